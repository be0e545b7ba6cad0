"""`accept_predictions`: predictions that a person has looked at become labels, or corrections."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .shared import focus_views, samples
from .shared.errors import InputError
from .shared.focus_views import SUGGESTED
from .shared.forms import Form
from .shared.labelling import correction_tags
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync import edits
from .shared.sync.corrections import MARKER, OWN_TAGS
from .shared.sync.labels import Event
from .shared.sync.store import LabelField, vocabulary
from .shared.vocabulary import Vocabulary

BATCH = 20_000  # samples looked at between two looks at whether to stop


class AcceptPredictions(SuiteOperator):
    """Labels the unlabelled samples of the target by their predictions, and corrects the labelled ones where asked."""

    spec = Spec(
        name="accept_predictions",
        label="Accept predictions",
        description="Predictions you have looked at become labels of unlabelled ROIs, or corrections of labelled ones",
        icon="how_to_reg",
        risk="high",
        quick=True,
        button=True,
    )

    class Params(BaseModel):
        """Parameters of `accept_predictions`."""

        model_config = ConfigDict(extra="forbid")

        prediction_field: str = Field(min_length=1, title="Predictions", description="A field of 'Apply a classifier'")
        label_field: str = Field(
            "ground_truth",
            pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
            title="Label field",
            description="Made where there is none",
        )
        min_confidence: float = Field(0.0, ge=0, le=1, description="From 0 to 1: less confident ones are left alone")
        only_unlabelled: bool = Field(True, description="Otherwise labels that differ get a correction as well")
        id_field: str = Field("elemental_id", min_length=1, title="Id field")
        marker_tag: str = Field(MARKER, min_length=1, title="Marker tag")
        tag_prefix: str | None = Field(None, title="Tag prefix", description="Of correction tags, such as 'fix:'")

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        dataset, view = form.ctx.dataset, form.ctx.view
        focus = focus_views.is_one(view)
        suggested = dataset.has_sample_field(SUGGESTED) and [(SUGGESTED, f"{SUGGESTED} (what wrong labels look like)")]
        doubted = suggested and focus and not view.exists(SUGGESTED, False).count()
        form.predictions(more=suggested or (), **({"default": SUGGESTED} if doubted else {}))
        fields = [name for name in samples.label_fields(dataset) if not samples.writer(dataset, name)]
        form.choice("label_field", [(name, name) for name in fields], free=True)
        form.field("min_confidence")
        form.field("only_unlabelled", default=not focus)  # what is in a focus list has a label already
        form.warn_of_all()
        if form.on_request("More options: id field, marker tag, tag prefix"):
            form.fields("id_field", "marker_tag", "tag_prefix")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Accept pred_ptvr on 1,144 ROIs"."""
        return f"Accept {params.prediction_field} on {count:,} ROIs"

    def work(self, job: Job) -> dict[str, Any]:
        """Reads predictions and labels batch by batch, and writes labels and correction tags."""
        params, dataset = job.params, job.dataset
        if params.prediction_field != SUGGESTED or not dataset.has_sample_field(SUGGESTED):
            samples.require_label_field(dataset, params.prediction_field)
        if params.prediction_field == params.label_field:
            raise InputError("The predictions are in the label field itself; choose another field for the labels.")
        samples.ensure_label_field(dataset, params.label_field)
        path = samples.source_path(dataset, params.label_field, params.id_field)
        field = LabelField(dataset, params.label_field, path)
        field.prepare()
        words = _names(job)
        event = Event(job.run.id, job.user, datetime.now(UTC), "accepted")
        counts: Counter[str] = Counter()
        outside: Counter[str] = Counter()
        given: Counter[str] = Counter()
        total = job.view.count()
        for rows in _rows(job, field):
            if job.run.stopping():
                break
            moves, corrected = _sort(rows, params, words, counts, outside)
            field.move(moves, event)
            for label, ids in corrected.items():
                _correct(field, ids, label, params, words)
            done = field.moved([move.sample_id for move in moves], event)
            given.update(move.to for move in moves if move.sample_id in done)
            counts["left"] += len(moves) - len(done)
            job.run.progress(counts["samples"], total, "Accepting predictions")
        counts["labelled"] = sum(given.values())
        return _result(params, counts, given, outside, words)


def _names(job: Job) -> Vocabulary:
    """The vocabulary of the label field; before there is any label, the model's classes."""
    words = vocabulary(job.dataset, job.params.label_field, job.secrets)
    return words if len(words) else vocabulary(job.dataset, job.params.prediction_field, job.secrets)


def _rows(job: Job, field: LabelField) -> Any:
    predicted = job.params.prediction_field
    columns = {
        "label": f"{field.name}.label",
        "stored": field.stored,
        "source_id": field.id_path,
        "predicted": predicted if predicted == SUGGESTED else f"{predicted}.label",
        "confidence": f"{predicted}.confidence",
        "tags": "tags",
        "label_tags": f"{field.name}.tags",
    }
    for batch in samples.batches(job.view, columns, BATCH):
        yield [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def _sort(
    rows: list[dict[str, Any]], params: Any, words: Vocabulary, counts: Counter[str], outside: Counter[str]
) -> tuple[list[Any], dict[str, list[str]]]:
    """What becomes of each sample: labels to give, and corrections by label; what is left alone is counted."""
    moves, corrected = [], {}
    prefix = params.tag_prefix or ""
    for row in rows:
        counts["samples"] += 1
        label, predicted, confidence = row["label"], row["predicted"], row["confidence"]
        tags = {*(row["tags"] or ()), *(row["label_tags"] or ())}
        if predicted is None:
            counts["without_prediction"] += 1
        elif (confidence if confidence is not None else 1.0) < params.min_confidence:
            counts["below_min_confidence"] += 1
        elif predicted not in words:
            counts["not_in_the_vocabulary"] += 1
            outside[predicted] += 1
        elif any(tag.startswith(prefix) and tag.removeprefix(prefix) in words for tag in tags - OWN_TAGS):
            counts["corrected_before"] += 1  # a person has said what it is
        elif label is None:
            has_id = row["source_id"] not in (None, "")
            moves.append(edits.accepted(row["id"], predicted, row["stored"], has_id, params.marker_tag, confidence))
        elif params.only_unlabelled:
            counts["labelled_before"] += 1
        elif label == predicted:
            counts["agree"] += 1
        else:
            counts["corrections"] += 1
            corrected.setdefault(predicted, []).append(row["id"])
    return moves, corrected


def _correct(field: LabelField, ids: list[str], label: str, params: Any, words: Vocabulary) -> None:
    tag = (params.tag_prefix or "") + label
    field.correct(ids, tag, label, correction_tags(words, params.tag_prefix), params.marker_tag)


def _result(params: Any, counts: Counter[str], given: Counter[str], outside: Counter[str], words: Vocabulary) -> dict:
    message = f"{counts['labelled']:,} unlabelled ROIs were labelled in {params.label_field!r} by their predictions."
    if not params.only_unlabelled:
        message += f" {counts['corrections']:,} labelled ROIs differ and got a correction; {counts['agree']:,} agree."
    if counts["corrected_before"]:
        message += f" {counts['corrected_before']:,} had a correction before, which stays."
    if outside:
        message += f" {sum(outside.values()):,} predictions are no names of the vocabulary ({words.origin})."
    return {
        "message": message,
        "counts": dict(counts),
        "labels": [{"label": label, "ROIs": n} for label, n in given.most_common()],
        "not_in_the_vocabulary": [
            {"prediction": name, "ROIs": n, "nearest_names": ", ".join(words.nearest(name)) or "none"}
            for name, n in outside.most_common()
        ],
    }
