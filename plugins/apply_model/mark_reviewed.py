"""`mark_reviewed`: a person has looked at these ROIs, and says so by one click."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .shared import samples, selected
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.wording import many

BATCH = 20_000  # samples looked at between two looks at whether to stop


class MarkReviewed(SuiteOperator):
    """Tags the target as reviewed, or takes that back."""

    spec = Spec(
        name="mark_reviewed",
        label="Mark as reviewed",
        description="Done: you have looked at the selected ROIs, or all of this view; they leave 'review: ...' views",
        icon="task_alt",
        writes="fiftyone",
        quick=True,
        button=True,
        at_once=True,
    )

    class Params(BaseModel):
        """Parameters of `mark_reviewed`."""

        model_config = ConfigDict(extra="forbid")

        clear: bool = Field(False, description="Take it back instead: nobody has looked at them yet")

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.warn_of_all()
        form.field("clear")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Mark 120 ROIs as reviewed"."""
        return f"Mark {many(count, 'ROI')} as {'not ' if params.clear else ''}{selected.DONE}"

    def work(self, job: Job) -> dict[str, Any]:
        """Sets the tag where it is not, or takes it away where it is."""
        clear = job.params.clear
        others = job.view.match_tags(selected.DONE, bool=clear)
        total, wrong, changed = job.view.count(), others.count(), 0
        for ids in samples.id_batches(others, BATCH):
            if job.run.stopping():
                break
            samples.set_tags(job.dataset, ids, [None if clear else selected.DONE] * len(ids), (selected.DONE,))
            changed += len(ids)
            job.run.progress(changed, wrong, "Tagging ROIs")
        counts = {"samples": total, "changed": changed, "already": total - wrong}
        # A view of samples, from which they may have gone by now.
        if not samples.not_samples(job.shown) and job.shown.count() < job.dataset.count():
            counts["left"] = job.shown.match_tags(selected.DONE, bool=False).count()
        return {"message": _message(counts, clear), "counts": counts}


def _message(counts: Mapping[str, int], clear: bool) -> str:
    of = many(counts["samples"], "ROI")
    said = [f"{counts['changed']:,} of {of} {'lost' if clear else 'got'} the tag {selected.DONE!r}."]
    if counts["already"]:
        said.append(f"{counts['already']:,} {'did not have' if clear else 'had'} it before.")
    left = counts.get("left")
    if left is not None:
        said.append(f"Still to be looked at in this view: {left:,}." if left else "That was all of this view.")
    return " ".join(said)
