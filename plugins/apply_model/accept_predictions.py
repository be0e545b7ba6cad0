"""`accept_predictions`: predictions that a person has looked at become labels, or corrections."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from fiftyone import ViewField as F
from pydantic import BaseModel, ConfigDict, Field

from .shared import focus_views, samples
from .shared.errors import InputError
from .shared.focus_views import SUGGESTED
from .shared.forms import Form
from .shared.labelling import IdField, MarkerTag, NewLabelField, TagPrefix, correction_tags
from .shared.memo import cached
from .shared.operators import Job, Spec, SuiteOperator, target_view
from .shared.sync import edits
from .shared.sync.corrections import MARKER, OWN_TAGS
from .shared.sync.labels import Event
from .shared.sync.store import LabelField, vocabulary
from .shared.vocabulary import Vocabulary
from .shared.wording import many

BATCH = 20_000  # samples looked at between two looks at whether to stop


class AcceptPredictions(SuiteOperator):
    """Labels the unlabelled samples of the target by their predictions, and corrects the labelled ones where asked."""

    spec = Spec(
        name="accept_predictions",
        label="Accept predictions",
        description="Predictions you have looked at become labels of unlabelled ROIs, or corrections of labelled ones",
        icon="how_to_reg",
        writes="fiftyone",
        quick=True,
        button=True,
    )

    class Params(BaseModel):
        """Parameters of `accept_predictions`."""

        model_config = ConfigDict(extra="forbid")

        prediction_field: str = Field(
            min_length=1, title="Predictions", description="A field of 'Apply a classifier'", examples=["pred_demo"]
        )
        label_field: NewLabelField = "ground_truth"
        min_confidence: float = Field(
            0.0, ge=0, le=1, description="From 0 to 1: less confident ones are left alone", examples=[0.9]
        )
        only_unlabelled: bool = Field(True, description="Otherwise labels that differ get a correction as well")
        id_field: IdField = samples.SOURCE_ID
        marker_tag: MarkerTag = MARKER
        tag_prefix: TagPrefix = None

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        dataset, target = form.ctx.dataset, target_view(form.ctx).view()
        focus = focus_views.is_one(target)
        suggested = dataset.has_sample_field(SUGGESTED) and [(SUGGESTED, f"{SUGGESTED} (what wrong labels look like)")]
        doubted = bool(suggested) and focus and not target.exists(SUGGESTED, False).count()
        field = form.predictions(more=suggested or (), **({"default": SUGGESTED} if doubted else {}))
        fields = [name for name in samples.label_fields(dataset) if not samples.writer(dataset, name)]
        form.choice("label_field", [(name, name) for name in fields], free=True)
        form.field("min_confidence")
        form.field("only_unlabelled", default=not doubted)
        form.warn_of_all()
        corrects = not form.value("only_unlabelled", not doubted)
        if doubted and corrects and not form.ctx.selected:
            _warn_of_doubts(form, target)
        elif focus and not doubted:
            _say_what_differs(form, target, field, corrects)
        if form.on_request("More options: id field, marker tag, tag prefix"):
            form.fields("id_field", "marker_tag", "tag_prefix")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Accept pred_ptvr on 1,144 ROIs"."""
        return f"Accept {params.prediction_field} on {many(count, 'ROI')}"

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


def _warn_of_doubts(form: Form, target: Any) -> None:
    """Says how many of the labels that look wrong are, before all of them are corrected."""
    likely = focus_views.last(form.ctx.dataset).get("likely_wrong")
    some = "some labels" if likely is None else f"about {many(max(1, round(likely)), 'label')}"
    form.warning(
        f"Only {some} of this list can be expected to be wrong: select the ROIs whose label is. As it stands, "
        f"{many(target.count(), 'ROI')} would get what they look like as a correction."
    )


def _say_what_differs(form: Form, target: Any, field: Any, corrects: bool) -> None:
    """Says how many labels a view of the model's errors would have corrected."""
    dataset, label = form.ctx.dataset, form.value("label_field")
    if not {field, label} <= {*samples.label_fields(dataset)}:
        return
    given, predicted = F(f"{label}.label"), F(f"{field}.label")
    differ = cached(
        ("differ", field, label, *samples.state(target)),
        lambda: target.exists(f"{label}.label").exists(f"{field}.label").match(given != predicted).count(),
    )
    said = f"Predictions here that differ from the label: {differ:,} of {target.count():,}."
    if differ and corrects:
        form.warning(
            f"{said} Each would correct its label: select the ROIs whose prediction is right, not those of errors."
        )
    elif differ:
        form.notice(f"{said} The labels stay as long as 'Only unlabelled' is ticked.")


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
    wrong_names = f"had a prediction that is no name of the vocabulary ({words.origin})"
    said = {
        "labelled": f"without a label got the prediction in {params.label_field!r}",
        "corrections": "with a label got the prediction as a correction",
        "agree": "had the predicted label already",
        "labelled_before": "had a label, which stays ('Only unlabelled')",
        "corrected_before": "had a correction before, which stays",
        "below_min_confidence": "had a prediction below the least confidence",
        "without_prediction": "had no prediction",
        "not_in_the_vocabulary": wrong_names,
        "left": "had changed meanwhile and were left alone",
    }
    happened = [f"{many(counts[name], 'ROI')} {what}." for name, what in said.items() if counts[name]]
    nothing = not (counts["labelled"] or counts["corrections"])
    message = " ".join(["Nothing was accepted.", *happened] if nothing else happened)
    return {
        "message": message,
        "counts": dict(counts),
        "labels": [{"label": label, "ROIs": n} for label, n in given.most_common()],
        "not_in_the_vocabulary": [
            {"prediction": name, "ROIs": n, "nearest_names": ", ".join(words.nearest(name)) or "none"}
            for name, n in outside.most_common()
        ],
    }
