"""`pull_labels`: what the label store holds, compared with FiftyOne, and taken in where nothing is lost by it."""

import csv
import io
import logging
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from .common import (
    LISTED,
    LabelParams,
    csv_file,
    label_field,
    label_store,
    more_options,
    name_store,
    names,
    require_ids,
)
from .sending import Sending
from .shared import samples
from .shared.errors import InputError, StorageError
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync import edits
from .shared.sync.labels import Event
from .shared.sync.stores import Store
from .shared.wording import many

BATCH = 20_000  # samples compared at a time
MOST_LINES = 100_000  # differences that the CSV lists
COLUMNS = ("sample_id", "source_id", "label", "stored", "in_store", "difference")

logger = logging.getLogger(__name__)


class PullLabels(SuiteOperator):
    """Compares every label of the target with the store's; with `apply`, the store's come in."""

    spec = Spec(
        name="pull_labels",
        label="Pull labels",
        description="Import or download labels from the database of record (Tator, MongoDB), but where edited here",
        icon="cloud_download",
        writes="fiftyone",
    )

    class Params(LabelParams):
        """Parameters of `pull_labels`."""

        apply: bool = Field(
            False,
            title="Take the store's labels in",
            description="Not where FiftyOne has a correction or an edit",
            examples=[True],
        )
        csv: bool = Field(
            False, title="Differences as CSV", description="All of them, as a download and below the artifact root"
        )

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.label_field()
        form.fields("apply", "csv")
        name_store(form)
        more_options(form)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Pull labels of 1,144 ROIs"."""
        return f"{'Pull' if params.apply else 'Compare'} labels of {many(count, 'ROI')}"

    def work(self, job: Job) -> dict[str, Any]:
        """Compares, and takes in what may come in."""
        field = label_field(job)
        found = _Differences()
        if job.params.apply:
            field.prepare()
            with Sending(job, "pull") as sending:
                sending.recover()
                _compare(job, field, sending.store, found, sending.confirm)
                name, elsewhere = sending.store.name, _only_in_store(job, field, sending.store, found)
        else:
            field.index()
            with closing(label_store(job)) as store:
                _compare(job, field, store, found, None)
                name, elsewhere = store.name, _only_in_store(job, field, store, found)
        if not found.kinds["compared"]:
            raise InputError(
                f"None of {found.kinds['samples']:,} ROIs has a label in {name} by its {field.id_path!r}; is that the "
                "field with the ids?"
            )
        return _result(job, found, name, elsewhere)


class _Differences:
    """The account of a comparison."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str | None, str | None]] = Counter()
        self.lines: list[tuple[Any, ...]] = []

    def add(self, kind: str, sample_id: str, source_id: Any, label: str | None, stored: str | None, held: Any) -> None:
        self.kinds[kind] += 1
        self.pairs[kind, label, held] += 1
        if len(self.lines) < MOST_LINES:
            self.lines.append((sample_id, source_id, label, stored, held, kind))

    def csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows(self.lines)
        return text.getvalue()


def _compare(job: Job, field: Any, store: Any, found: _Differences, confirm: Any) -> None:
    """Goes through the target batch by batch; with `confirm` (that the lease is ours) it takes labels in."""
    require_ids(job, field)
    tags = field.tags(names(job), job.params.marker_tag, job.params.tag_prefix)
    event = Event(job.run.id, job.user, datetime.now(UTC), "pull")
    columns = {
        "source_id": field.id_path,
        "label": f"{field.name}.label",
        "stored": field.stored,
        "tags": "tags",
        "label_tags": f"{field.name}.tags",
    }
    total, sure = job.view.count(), False  # that the store holds labels where they are looked for
    for rows in samples.batches(job.view, columns, BATCH):
        if job.run.stopping():
            break
        ids = [i for i in rows["source_id"] if i not in (None, "")]
        held, twice = store.read(ids), field.twice(ids)
        moves = []
        for sample_id, source_id, label, stored, on_sample, on_label in zip(*rows.values(), strict=True):
            there = held.get(source_id)
            if source_id in (None, ""):
                found.kinds["missing id"] += 1
            elif there is None:
                found.kinds["not in the store"] += 1
            elif there.copies > 1 or source_id in twice:
                found.add("id twice", sample_id, source_id, label, stored, there.label)
            elif there.label is None:
                found.add("not text in the store", sample_id, source_id, label, stored, there.other)
            else:
                found.kinds["compared"] += 1
                present = {*(on_sample or ()), *(on_label or ())}
                named = not present.isdisjoint(tags.names)  # one that is the label too: somebody has confirmed it
                kind, move = edits.pulled(label, stored, there.label, sample_id, tags.marker in present, named)
                if kind:
                    found.add(kind, sample_id, source_id, label, stored, there.label)
                moves += [move] if move else []
        found.kinds["samples"] += len(rows["id"])
        if held and not sure:
            if not any(one.label or one.other for one in held.values()):
                store.check(writing=False)  # says so where it is the path of the label that is wrong
            sure = True
        if confirm:
            confirm()
            field.move(moves, event)
        job.run.progress(found.kinds["samples"], total, "Comparing labels")


def _only_in_store(job: Job, field: Any, store: Store, found: _Differences) -> int | None:
    """How many records have no ROI here; None unless every ROI was compared and every id stands for one record."""
    kinds = found.kinds
    if not field.whole(job.view) or kinds["id twice"] or kinds["samples"] < job.view.count():
        return None
    try:
        there = store.count()
    except StorageError as error:  # the comparison is done, whatever became of this
        logger.warning("The records of %s could not be counted: %s", store.name, error)
        return None
    return None if there is None else max(0, there - kinds["compared"] - kinds["not text in the store"])


def _result(job: Job, found: _Differences, name: str, elsewhere: int | None) -> dict[str, Any]:
    kinds = found.kinds
    differ = sum(kinds[k] for k in KINDS)
    message = f"{kinds['compared']:,} of {kinds['samples']:,} ROIs have a record in {name}; "
    message += "none differs." if not differ else f"{many(differ, 'label differs', 'labels differ')}."
    if job.params.apply:
        message += (
            f" {kinds[edits.CHANGED]:,} labels came in; the stored labels are what the store holds now, but where a "
        )
        message += "correction waits."
    elif kinds[edits.CHANGED]:
        message += f" {kinds[edits.CHANGED]:,} would come in with 'apply'."
    if edited := kinds[edits.EDITED] + kinds[edits.BOTH_EDITED]:
        message += f" {edited:,} were edited here and not tagged; they stay, tag them 'needs-sync' to send them."
    if elsewhere:
        message += f" {many(elsewhere, 'record of the store has', 'records of the store have')} no ROI here."
    result = {
        "message": message,
        "counts": {
            key.replace(" ", "_"): kinds[key] for key in ("samples", "compared", "missing id", "not in the store")
        }
        | {"id_twice": kinds["id twice"], "differ": differ, "came_in": kinds[edits.CHANGED] if job.params.apply else 0}
        | ({} if elsewhere is None else {"only_in_store": elsewhere}),
        "differences": [
            {"difference": kind, "in_fiftyone": label, "in_store": held, "labels": n}
            for (kind, label, held), n in found.pairs.most_common(LISTED)
        ],
    }
    if job.params.csv:
        result |= csv_file(job, f"pull-{job.run.id}.csv", found.csv())
    return result


KINDS = (edits.CHANGED, edits.ONLY_HERE, edits.OPEN, edits.DISAGREE, edits.EDITED, edits.BOTH_EDITED)
