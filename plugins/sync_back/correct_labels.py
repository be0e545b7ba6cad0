"""`correct_labels`: says what a label should be, by a tag that cannot be misspelt."""

from collections import Counter
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .common import LabelParams, label_field, more_options, names
from .shared import samples
from .shared.forms import Form
from .shared.labelling import choose_name, correction_tag, correction_tags
from .shared.operators import Job, Spec, SuiteOperator
from .shared.wording import many

BATCH = 20_000  # samples tagged between two looks at whether to stop


class CorrectLabels(SuiteOperator):
    """Gives the target one correction, in place of earlier ones, or takes corrections back."""

    spec = Spec(
        name="correct_labels",
        label="Correct labels",
        description="Relabel, fix, annotate: say what the selected ROIs should be; no label changes yet",
        icon="edit_note",
        writes="fiftyone",
        quick=True,
        button=True,
    )

    class Params(LabelParams):
        """Parameters of `correct_labels`."""

        label: str | None = Field(
            None, title="Correct label", description="A name of the vocabulary", examples=["Calanoida"]
        )
        clear: bool = Field(False, description="Take corrections back instead")

        @model_validator(mode="after")
        def _one(self) -> Any:
            what = "give either a label, or 'clear' to take corrections back"
            if self.label is None and not self.clear:
                raise PydanticCustomError("missing", what)  # nothing is wrong in a form before anything was entered
            if self.label is not None and self.clear:
                raise ValueError(what)
            return self

    def form(self, form: Form) -> None:
        """Draws the inputs: a list to choose from, so that nothing has to be typed."""
        field = form.label_field()
        form.warn_of_all()
        form.field("clear")
        if field and not form.value("clear"):
            choose_name(form, field, required=True)
        more_options(form)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Correct 120 ROIs to Calanus"."""
        of = many(count or 0, "ROI")
        return f"Take corrections of {of} back" if params.clear else f"Correct {of} to {params.label}"

    def work(self, job: Job) -> dict[str, Any]:
        """Sets the tags."""
        params, field, words = job.params, label_field(job), names(job)
        tag = params.label and correction_tag(params.label, words, params.tag_prefix, params.marker_tag)
        field.prepare()
        others = correction_tags(words, params.tag_prefix)
        counts: Counter[str] = Counter()
        for ids in samples.id_batches(job.view, BATCH):
            if job.run.stopping():
                break
            counts += field.correct(ids, tag, params.label, others, params.marker_tag)
            job.run.progress(counts["samples"], 0, "Tagging ROIs")
        return {"message": _message(params, counts), "counts": dict(counts)}


def _message(params: Any, counts: Any) -> str:
    if params.clear:
        return f"The corrections of {counts['replaced']:,} of {many(counts['samples'], 'ROI')} were taken back."
    said = f"{counts['corrected']:,} of {many(counts['samples'], 'ROI')} are now marked to become {params.label!r}."
    if counts["already"]:
        said += f" {counts['already']:,} are labelled so already."
    if counts["replaced"]:
        said += f" {counts['replaced']:,} had an earlier correction, which this one replaces."
    return f"{said} 'Apply corrections' makes them labels here, 'Sync back' sends them to the label store."
