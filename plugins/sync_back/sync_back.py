"""`sync_back`: sends the corrections to the label store, each exactly once, and accounts for every one."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from .common import (
    OUTCOMES,
    LabelParams,
    draw_corrections,
    label_field,
    listed,
    make_plan,
    misspelt,
    more_options,
    sentence,
)
from .preview_sync import show
from .sending import Sending, unsent
from .shared.errors import InputError, StorageError
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync import edits
from .shared.sync import plan as plans
from .shared.sync.labels import Event
from .shared.sync.plan import Line, Status
from .shared.wording import many


class SyncBack(SuiteOperator):
    """Does what a fresh plan says: one conditional write for each correction."""

    spec = Spec(
        name="sync_back",
        label="Sync back",
        description="Send (push, upload) corrected labels to the database of record, such as Tator; nothing twice",
        icon="cloud_sync",
        writes="outside",
    )

    class Params(LabelParams):
        """Parameters of `sync_back`."""

        on_conflict: Literal["skip", "theirs", "fail"] = Field(
            "skip",
            title="Where the store holds another label",
            description="skip leaves it; theirs takes the store's label into FiftyOne and drops the correction; "
            "fail sends nothing at all",
            examples=["theirs"],
        )

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        draw_corrections(form)
        form.field("on_conflict")
        more_options(form)

    def work(self, job: Job) -> dict[str, Any]:
        """Settles what killed runs left, plans, sends, and says what became of each correction."""
        field = label_field(job)
        field.prepare()
        with Sending(job, "sync") as sending:
            finished = sending.recover()
            lines, tags = make_plan(job, field, sending.store)
            conflicts = sum(line.status == Status.CONFLICT for line in lines)
            if conflicts and job.params.on_conflict == "fail":
                show(field, job.view, lines, [])
                raise InputError(
                    f"{conflicts:,} of {len(lines):,} corrections are in conflict, so nothing was sent; look at the "
                    "saved view of the conflicts."
                )
            if job.params.on_conflict == "theirs":
                lines = _theirs(job, field, lines)
            lines = sending.send(lines, field)
            sending.settle(field, lines)
        views = show(field, job.view, [line for line in lines if not _settled(line)], [])
        counts = plans.counts(lines)
        if lines and counts["failed"] == len(lines):
            raise StorageError(unsent(lines))
        message = f"Of {many(len(lines), 'correction')} for {sending.store.name}: {sentence(counts, OUTCOMES)}."
        if counts["failed"]:
            message += f" {unsent(lines)}"
        if came := sum(_came_in(line) for line in lines):
            message += f" Of the conflicts, {came:,} took the store's label into FiftyOne."
        if not lines:
            message = f"No ROI of the target has a correction for {field.name!r}; nothing was sent."
        if finished:
            message += f" Before that, {finished:,} labels of runs that were cut short were looked at and settled."
        return {
            "message": message,
            **counts,
            "corrections": len(lines),
            "settled_for_earlier_runs": finished,
            "changes": plans.changes(lines),
            "problems": plans.problems(lines),
            "nearly_names": misspelt(tags),
            "lines": listed(lines),
            "saved_views": views,
        }


THEIRS = "the store's label came in"


def _theirs(job: Job, field: Any, lines: list[Line]) -> list[Line]:
    """Takes the store's labels in where they conflict."""
    event = Event(job.run.id, job.user, datetime.now(UTC), "theirs")
    taken = {
        line.correction.sample_id: edits.theirs(line.correction, line.found)
        for line in lines
        if line.status == Status.CONFLICT and line.found is not None
    }
    field.move(list(taken.values()), event)
    now = field.labels(list(taken))
    came = {i for i, move in taken.items() if now.get(i) == move.to}
    return [
        replace(line, reason=f"{THEIRS}: {line.reason}") if line.correction.sample_id in came else line
        for line in lines
    ]


def _came_in(line: Line) -> bool:
    return line.status == Status.CONFLICT and line.reason.startswith(THEIRS)


def _settled(line: Line) -> bool:
    return _came_in(line) or line.status in (Status.DONE, Status.ALREADY)
