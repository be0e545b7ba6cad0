"""`apply_corrections`: corrections become labels in FiftyOne, with a history, and can be undone."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from .common import LabelParams, label_field, misspelt, more_options, names
from .shared.errors import InputError
from .shared.forms import Form
from .shared.labelling import show_corrections
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync import edits
from .shared.sync.corrections import applicable
from .shared.sync.labels import Event
from .shared.wording import many

BATCH = 5_000  # corrections applied between two looks at whether to stop


class ApplyCorrections(SuiteOperator):
    """Turns tags into labels at once, without any store; what has a source id is marked to be sent."""

    spec = Spec(
        name="apply_corrections",
        label="Apply corrections",
        description="Make corrections the labels in FiftyOne, or undo a run that did",
        icon="done_all",
        writes="fiftyone",
        quick=True,
    )

    class Params(LabelParams):
        """Parameters of `apply_corrections`."""

        undo: str | None = Field(
            None, title="Undo a run", description="Give a run, and its labels are what they were before it"
        )

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        field = form.label_field()
        if field:
            form.choice("undo", edits.recent(form.db, form.ctx.dataset.name), free=True)
            if not form.value("undo"):
                show_corrections(form, field)
        more_options(form)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Apply corrections on 1,144 ROIs"."""
        return f"Undo run {params.undo}" if params.undo else f"Apply corrections on {many(count, 'ROI')}"

    def work(self, job: Job) -> dict[str, Any]:
        """Applies, or undoes."""
        field = label_field(job)
        field.prepare()
        return _undo(job, field) if job.params.undo else _apply(job, field)


def _apply(job: Job, field: Any) -> dict[str, Any]:
    params = job.params
    words = names(job)
    tags = field.tags(words, params.marker_tag, params.tag_prefix)
    job.run.progress(0, 0, "Reading corrections")
    corrections = field.corrections(job.view, words, tags)
    event = Event(job.run.id, job.user, datetime.now(UTC), "correction")
    todo = [c for c in corrections if applicable(c)]
    moves = [edits.applied(c, params.marker_tag) for c in todo]
    for start in range(0, len(moves), BATCH):
        if job.run.stopping():
            break
        field.move(moves[start : start + BATCH], event, tagged=True)
        job.run.progress(min(start + BATCH, len(moves)), len(moves), "Applying corrections")
    changed = field.moved([m.sample_id for m in moves if m.before != m.to], event)
    pairs = Counter((m.before, m.to) for m in moves if m.sample_id in changed)
    already = sum(m.before == m.to for m in moves)
    marked = sum(params.marker_tag in m.tags_on for m in moves if m.sample_id in changed)
    left = [c for c in corrections if not applicable(c) and not c.marked]
    message = f"{len(changed):,} labels in {field.name!r} were corrected."
    if already:
        message += f" {already:,} were so already."
    if marked:
        message += f" {marked:,} have an id in the label store and wait for 'Sync back'."
    if late := len(moves) - len(changed) - already:
        message += f" {late:,} were left: their label or tag changed meanwhile, or the run was stopped."
    if left:
        message += f" {len(left):,} corrections cannot be applied; see why below."
    if not corrections:
        message = f"No ROI of the target has a correction for {field.name!r}."
    return {
        "message": message,
        "counts": {"applied": len(changed), "already": already, "left": late, "invalid": len(left), "marked": marked},
        "changes": [{"from": old, "to": new, "labels": n} for (old, new), n in pairs.most_common()],
        "problems": [
            {"status": str(status), "reason": reason, "labels": n}
            for (status, reason), n in Counter((c.problem, c.reason) for c in left).most_common()
        ],
        "nearly_names": misspelt(tags),
    }


def _undo(job: Job, field: Any) -> dict[str, Any]:
    job.run.progress(0, 0, "Reading what the run changed")
    moves, left = edits.undone(field.changed_by(job.params.undo), job.params.undo, job.params.marker_tag)
    if not moves and not left:
        raise InputError(f"The run {job.params.undo!r} changed no label in {field.name!r} of this dataset.")
    event = Event(job.run.id, job.user, datetime.now(UTC), "undo")
    field.move(moves, event)
    done = field.moved([m.sample_id for m in moves], event)
    left.update({"its label changed meanwhile": len(moves) - len(done)} if len(done) < len(moves) else {})
    message = (
        f"{len(done):,} labels in {field.name!r} are what they were before; corrections among them are open again."
    )
    if left:
        message += f" {sum(left.values()):,} were left alone."
    return {
        "message": message,
        "counts": {"undone": len(done), "left": sum(left.values())},
        "left_alone": [{"reason": reason, "labels": n} for reason, n in left.items()],
    }
