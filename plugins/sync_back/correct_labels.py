"""`correct_labels`: says what a label should be, by a tag that cannot be misspelt."""

from collections import Counter
from typing import Any

from pydantic import Field, model_validator

from .common import LabelParams, label_field, more_options, names, names_of_form
from .shared import samples
from .shared.errors import InputError
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync.corrections import OWN_TAGS

BATCH = 20_000  # samples tagged between two looks at whether to stop


class CorrectLabels(SuiteOperator):
    """Gives the target one correction, in place of earlier ones, or takes corrections back."""

    spec = Spec(
        name="correct_labels",
        label="Correct labels",
        description="Say what the selected ROIs should be labelled; nothing is sent and no label changes yet",
        icon="edit_note",
        risk="medium",
        quick=True,
        button=True,
    )

    class Params(LabelParams):
        """Parameters of `correct_labels`."""

        label: str | None = Field(None, title="Correct label", description="A name of the vocabulary")
        clear: bool = Field(False, description="Take corrections back instead")

        @model_validator(mode="after")
        def _one(self) -> Any:
            if (self.label is None) != self.clear:
                raise ValueError("give either a label, or 'clear' to take corrections back")
            return self

    def form(self, form: Form) -> None:
        """Draws the inputs: a list to choose from, so that nothing has to be typed."""
        field = form.label_field()
        form.warn_of_all()
        form.field("clear")
        words = names_of_form(form, field) if field else None
        if words is not None and not form.value("clear"):
            form.choice("label", [(name, name) for name in words.names], free=True, required=True)
            given = form.value("label")
            if given and given not in words:
                form.error(_not_there(given, words))
            elif not len(words):
                form.error("There is no name to choose yet: add one with 'Add a name to the vocabulary'.")
        more_options(form)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Correct 120 ROIs to Calanus"."""
        return (
            f"Take corrections of {count:,} ROIs back" if params.clear else f"Correct {count:,} ROIs to {params.label}"
        )

    def work(self, job: Job) -> dict[str, Any]:
        """Sets the tags."""
        params, field, words = job.params, label_field(job), names(job)
        prefix = params.tag_prefix or ""
        if params.label is not None:
            if params.label not in words:
                raise InputError(_not_there(params.label, words))
            if not prefix and params.label in OWN_TAGS | {params.marker_tag}:
                raise InputError(
                    f"The tag {params.label!r} has a meaning of its own here; give a tag prefix, such as 'fix:'."
                )
        field.prepare()
        others = [prefix + name for name in words.names if prefix or name not in OWN_TAGS]
        tag = None if params.label is None else prefix + params.label
        counts: Counter[str] = Counter()
        for ids in samples.id_batches(job.view, BATCH):
            if job.run.stopping():
                break
            counts += field.correct(ids, tag, params.label, others, params.marker_tag)
            job.run.progress(counts["samples"], 0, "Tagging ROIs")
        return {"message": _message(params, counts), "counts": dict(counts)}


def _message(params: Any, counts: Any) -> str:
    if params.clear:
        return f"The corrections of {counts['replaced']:,} of {counts['samples']:,} ROIs were taken back."
    said = f"{counts['corrected']:,} of {counts['samples']:,} ROIs are now corrected to {params.label!r}."
    if counts["already"]:
        said += f" {counts['already']:,} are labelled so already."
    if counts["replaced"]:
        said += f" {counts['replaced']:,} had an earlier correction, which this one replaces."
    return f"{said} 'Apply corrections' makes them labels here, 'Sync back' sends them to the label store."


def _not_there(label: str, words: Any) -> str:
    near = words.nearest(label)
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else "; 'Add a name to the vocabulary' adds one."
    return f"{label!r} is not in the vocabulary ({words.origin}){meant}"
