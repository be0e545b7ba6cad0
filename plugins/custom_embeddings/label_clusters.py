"""`label_clusters`: clusters that a person has looked at become corrections, or labels."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from fiftyone import ViewField
from pydantic import BaseModel, ConfigDict, Field

from .shared import clustered, samples
from .shared.errors import InputError
from .shared.forms import Form
from .shared.labelling import (
    IdField,
    MarkerTag,
    NewLabelField,
    TagPrefix,
    choose_name,
    correction_tag,
    correction_tags,
)
from .shared.memo import cached
from .shared.operators import Job, Spec, SuiteOperator, target_view
from .shared.sync import edits
from .shared.sync.corrections import MARKER, Correction
from .shared.sync.labels import Event, history_field, stored_field
from .shared.sync.store import LabelField, vocabulary
from .shared.wording import many

DEFAULT = "ground_truth"  # the label field that people use most
BATCH = 20_000  # samples looked at between two looks at whether to stop


class LabelClusters(SuiteOperator):
    """Gives the members of clusters a label of the vocabulary, as corrections or at once."""

    spec = Spec(
        name="label_clusters",
        label="Label clusters",
        description="Give clusters, or what you drew a lasso around, a label: as corrections, or at once with undo",
        icon="new_label",
        writes="fiftyone",
        quick=True,
        button=True,
    )

    class Params(BaseModel):
        """Parameters of `label_clusters`."""

        model_config = ConfigDict(extra="forbid")

        cluster_field: str = Field(
            "cluster",
            min_length=1,
            title="Cluster field",
            description="Of 'Cluster embeddings'",
            examples=["look_alikes"],
        )
        clusters: list[str] = Field(
            default_factory=list,
            description="Left empty, all clusters of the selected ROIs, or of those in the lasso or the view",
            examples=[["Unknown C0"]],
        )
        label: str = Field(min_length=1, description="A name of the vocabulary", examples=["Calanoida"])
        label_field: NewLabelField = DEFAULT
        only_unlabelled: bool = Field(False, description="Leave ROIs that have a label alone")
        min_confidence: float = Field(
            0.0, ge=0, le=1, description="From 0 to 1: members with a lower probability, at a cluster's edge, are left"
        )
        write: Literal["correction", "label"] = Field(
            "correction",
            description="correction: tags, for 'Apply corrections' or 'Sync back'; label: labels at once, with undo",
        )
        id_field: IdField = samples.SOURCE_ID
        marker_tag: MarkerTag = MARKER
        tag_prefix: TagPrefix = None

    def form(self, form: Form) -> None:
        """Draws the inputs, and what would change, by the labels that the members have now."""
        dataset = form.ctx.dataset
        fields = clustered.fields(dataset)
        if fields != [form.value("cluster_field")]:
            form.choice(
                "cluster_field", [(name, name) for name in fields], default=_first(form.value("cluster_field"), fields)
            )
        field = _first(form.value("cluster_field"), fields)
        if field is None:
            form.error("There are no clusters in this dataset yet: run 'Cluster embeddings' first.")
            return
        view = target_view(form.ctx)
        sizes: Counter[str | None] = Counter()
        for (name, _), n in _members_of(form, view, field).items():
            sizes[name] += n
        form.counted(sizes.total())
        alone = sizes.pop(None, 0)
        largest = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))
        form.choice("clusters", [(name, f"{name} ({many(n, 'ROI')})") for name, n in largest], several=True)
        outside = [name for name in form.value("clusters") or () if name not in sizes]
        if outside and (problem := _unknown(outside, sizes if form.all else _names(dataset, field), field)):
            form.error(problem)
        own = [
            name for name in samples.label_fields(dataset) if name not in fields and not samples.writer(dataset, name)
        ]
        form.choice("label_field", [(name, name) for name in own], free=True)
        choose_name(form, _named_in(dataset, form.value("label_field")))
        form.fields("write", "only_unlabelled")
        if problem := _unspoken(dataset, *(form.value(name) for name in ("label_field", "write", "tag_prefix"))):
            form.error(problem)
        _preview(form, view, field, alone)
        if form.on_request("More options: min confidence, id field, marker tag, tag prefix"):
            form.fields("min_confidence", "id_field", "marker_tag", "tag_prefix")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Label Unknown C1, Unknown C2 as Calanus"."""
        what = ", ".join(params.clusters[:3]) + (", ..." if len(params.clusters) > 3 else "")
        return f"Label {what or f'{count:,} clustered ROIs'} as {params.label}"

    def work(self, job: Job) -> dict[str, Any]:
        """Reads the members batch by batch, and writes correction tags or labels."""
        params, dataset = job.params, job.dataset
        chosen = _members(job)
        words = vocabulary(dataset, _named_in(dataset, params.label_field), job.secrets)
        tag = correction_tag(params.label, words, params.tag_prefix, params.marker_tag)
        if params.marker_tag in words:
            raise InputError(f"The marker tag {params.marker_tag!r} is a name of the vocabulary; choose another one.")
        if problem := _unspoken(dataset, params.label_field, params.write, params.tag_prefix):
            raise InputError(problem)
        spoken_of = _spoken_of(dataset, params.label_field) == params.label_field
        samples.ensure_label_field(dataset, params.label_field)
        path = samples.source_path(dataset, params.label_field, params.id_field)
        field = LabelField(dataset, params.label_field, path)
        field.prepare()
        counts: Counter[str] = Counter(members=chosen.count())

        if not params.clusters:
            counts["in_no_cluster"] = job.view.count() - counts["members"]
        before: Counter[str | None] = Counter()
        if not counts["members"]:
            raise InputError("No ROI of the target is in these clusters; choose other clusters or another target.")
        event = Event(job.run.id, job.user, datetime.now(UTC), "cluster")
        others = correction_tags(words, params.tag_prefix)
        looked_at = 0
        for rows in _rows(chosen, field, params):
            if job.run.stopping():
                break
            kept = [row for row in rows if _takes(row, params, counts)]
            before.update(row["label"] for row in kept)
            if params.write == "correction":
                ids = [row["id"] for row in kept]
                counts += field.correct(ids, tag, params.label, others, params.marker_tag)
            else:
                moves = [edits.applied(_correction(row, params, others), params.marker_tag) for row in kept]
                if not spoken_of:  # tags are about another label field
                    moves = [replace(move, tags_off=(), tags_on=()) for move in moves]
                field.move([move for move in moves if move.before != move.to or move.tags_off], event)
                new = [move.sample_id for move in moves if move.before != move.to]
                done = field.moved(new, event)
                counts += Counter(samples=len(kept), labelled=len(done), already=len(kept) - len(new))
                counts["changed_meanwhile"] += len(new) - len(done)
            looked_at += len(rows)
            job.run.progress(looked_at, counts["members"], "Labelling members")
        return _result(params, counts, before)


def _first(chosen: str, fields: list[str]) -> str | None:
    """The chosen field where it has clusters, else the only choice there is."""
    if chosen in fields:
        return chosen
    return fields[0] if fields else None


def _members_of(form: Form, view: Any, field: str, least: float = 0.0) -> Counter[tuple[str | None, str | None]]:
    """How many samples a view has, by cluster and present label; in a label field that is not there yet, none has one.

    While its name is being typed, what is known of the usual field will do.
    """
    given, have = form.value("label_field"), samples.label_fields(form.ctx.dataset)
    counted = next((name for name in (given, DEFAULT) if name in have), None)
    key = ("label_clusters", field, counted, least, *samples.state(view))
    found = cached(key, lambda: clustered.members(view, field, counted, least))
    if counted == given:
        return found
    unlabelled: Counter[tuple[str | None, str | None]] = Counter()
    for (cluster, _), n in found.items():
        unlabelled[cluster, None] += n
    return unlabelled


def _names(dataset: Any, field: str) -> set[str]:
    """The clusters of a field, wherever in the dataset."""
    return cached(("clusters", field, *samples.state(dataset)), lambda: set(dataset.distinct(f"{field}.label")))


def _any(dataset: Any, field: str) -> bool:
    """Whether any sample has a value in a field; where none has, a database without an index reads all of them."""
    if not dataset.has_sample_field(field):
        return False
    return cached(("any", field, *samples.state(dataset)), lambda: dataset.exists(field).limit(1).count() > 0)


def _members(job: Job) -> Any:
    """The members of the chosen clusters among the target."""
    params = job.params
    samples.require_label_field(job.dataset, params.cluster_field)
    summary = clustered.summary(job.dataset, params.cluster_field)
    if summary is None:
        have = ", ".join(clustered.fields(job.dataset)) or "none"
        raise InputError(f"The field {params.cluster_field!r} holds no clusters (these do: {have}).")
    if not summary.get("complete"):
        raise InputError(f"The clustering in {params.cluster_field!r} was broken off; run 'Cluster embeddings' again.")
    if not params.clusters and job.view.count() == job.dataset.count():
        raise InputError("Choose clusters, or select the ROIs to label: nothing is chosen, and this is for every ROI.")
    label = f"{params.cluster_field}.label"
    if problem := _unknown(params.clusters, _names(job.dataset, params.cluster_field), params.cluster_field):
        raise InputError(problem)
    return job.view.match(ViewField(label).is_in(params.clusters)) if params.clusters else job.view.exists(label)


def _unknown(chosen: Iterable[str], known: Container[str], field: str) -> str | None:
    """Why clusters cannot be labelled: what is wrong with the first that is none."""
    wrong = next((name for name in chosen if name not in known), None)
    return None if wrong is None else f"There is no cluster {wrong!r} in {field!r}; the form lists those there are."


def _rows(view: Any, field: LabelField, params: Any) -> Iterator[list[dict[str, Any]]]:
    columns = {
        "label": f"{field.name}.label",
        "stored": field.stored,
        "source_id": field.id_path,
        "confidence": f"{params.cluster_field}.confidence",
        "tags": "tags",
        "label_tags": f"{field.name}.tags",
    }
    for batch in samples.batches(view, columns, BATCH):
        yield [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def _takes(row: dict[str, Any], params: Any, counts: Counter[str]) -> bool:
    """Whether a member gets the label; the others are counted."""
    if (row["confidence"] or 0.0) < params.min_confidence:
        counts["below_min_confidence"] += 1
    elif params.only_unlabelled and row["label"] is not None:
        counts["labelled_before"] += 1
    else:
        return True
    return False


def _correction(row: dict[str, Any], params: Any, others: list[str]) -> Correction:
    """What a person says of a member, as a tag in the grid would; earlier corrections are replaced."""
    own = {*others, params.marker_tag}
    tags = tuple(dict.fromkeys(tag for tag in (*(row["tags"] or ()), *(row["label_tags"] or ())) if tag in own))
    return Correction(row["id"], row["source_id"], row["label"], row["stored"], params.label, tags)


def _spoken_of(dataset: Any, label_field: str) -> str:
    """The label field that correction tags and the marker speak of: they do not say it themselves.

    The one with labels of a label store, else the one that was corrected before, else the one given.
    """
    corrected = [name for name in samples.label_fields(dataset) if dataset.has_sample_field(history_field(name))]

    def rank(name: str) -> tuple[bool, bool, bool]:
        return _any(dataset, stored_field(name)), name == DEFAULT, name == label_field

    return max(corrected, key=rank, default=label_field)


def _named_in(dataset: Any, label_field: str) -> str:
    """The label field whose names are the vocabulary: a new one takes those of the curated one."""
    there = dataset.classes.get(label_field) or _any(dataset, label_field)
    return label_field if there else _spoken_of(dataset, DEFAULT)


def _unspoken(dataset: Any, label_field: str, write: str, prefix: str | None) -> str | None:
    """Why corrections must not be made for a label field, if they must not."""
    spoken_of = _spoken_of(dataset, label_field)
    if write == "label" or prefix or spoken_of == label_field:
        return None
    return (
        f"Correction tags speak of {spoken_of!r} in this dataset; for {label_field!r} choose to write labels at once, "
        "or give a tag prefix."
    )


def _preview(form: Form, view: Any, field: str, alone: int) -> None:
    """How many members there are, by the label that they have now."""
    chosen = form.value("clusters")
    if not chosen and form.all:
        return
    least = form.value("min_confidence")
    most = bool(least) and form.slow and not form.on_request("Count without the clusters' edges (takes a few seconds)")
    now: Counter[str | None] = Counter()
    members = _members_of(form, view, field, 0.0 if most else least)
    for (name, label), n in members.items():
        if name is not None and (not chosen or name in chosen) and not (label and form.value("only_unlabelled")):
            now[label] += n
    would = f"{many(now.total(), 'ROI')} would be {form.value('label') or 'labelled'}"
    form.notice(f"{'Up to ' if most else ''}{would}. What they are labelled now:")
    form.table([{"label now": label or "none", "ROIs": n} for label, n in now.most_common(20)], "Members")
    if alone and not chosen:
        form.notice(f"{many(alone, 'ROI of the target is', 'ROIs of the target are')} in no cluster, and left.")


def _result(params: Any, counts: Counter[str], before: Counter[str | None]) -> dict[str, Any]:
    if params.write == "label":
        said = f"{counts['labelled']:,} of {counts['members']:,} members are now labelled {params.label!r}."
        then = " 'Apply corrections' can undo this run." if counts["labelled"] else ""
    else:
        said = f"{counts['corrected']:,} of {counts['members']:,} members are now marked to become {params.label!r}."
        then = " 'Apply corrections' makes them labels here, 'Sync back' sends them to the label store."
    for key, why in (
        ("already", "were labelled so already"),
        ("labelled_before", "had a label and were left"),
        ("below_min_confidence", "are at the edge of their cluster and were left"),
        ("replaced", "had an earlier correction, which this one replaces"),
        ("changed_meanwhile", "were left: their label changed meanwhile"),
        ("in_no_cluster", "of the target are in no cluster and were left"),
    ):
        if counts[key]:
            said += f" {counts[key]:,} {why}."
    return {
        "message": said + then,
        "counts": {key: n for key, n in counts.items() if n},
        "labels_before": [{"label": label or "none", "ROIs": n} for label, n in before.most_common()],
    }
