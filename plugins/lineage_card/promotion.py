"""What the two operators that promote have in common: parameters, form and work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .compare_models import chosen, labelled
from .shared import events, samples
from .shared.errors import InputError
from .shared.forms import Form
from .shared.lineage.registry import AliasChange, Registry
from .shared.memo import cached
from .shared.operators import Job

if TYPE_CHECKING:
    from .shared.workflows.promoting import Golden, Promotion

MUST_PASS = "must-pass"  # the tag of golden samples that every version must get right


class PromotionParams(BaseModel):
    """What `promote_model` and `promote_to_production` both take."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(
        min_length=1,
        title="Model",
        description="An alias (ptvr@candidate) or a version (ptvr/<version>)",
        examples=["demo@candidate"],
    )
    reason: str | None = Field(
        None, max_length=2000, description="Why; it is kept in the alias's history", examples=["Better on copepods"]
    )
    golden_view: str = Field(
        "golden",
        min_length=1,
        title="Golden set",
        description="A saved view or a sample tag: ROIs whose labels are beyond doubt, the most important of them "
        f"tagged {MUST_PASS!r}",
    )
    golden_accuracy: float = Field(0.8, ge=0, le=1, description="The least accuracy on the golden set")
    margin: float = Field(
        0.02, ge=0, le=1, description="How much worse than the present holder the interval of top-1 and F1 may reach"
    )
    max_mix_change: float = Field(
        0.1, ge=0, le=1, title="Largest change of mix", description="Jensen-Shannon divergence of the class mix, 0 to 1"
    )
    label_field: str = Field("ground_truth", min_length=1, title="Label field", description="The true labels")
    force: bool = Field(False, description="Move the alias although gates fail; needs a reason, and is recorded")

    @model_validator(mode="after")
    def _reasoned(self) -> Any:
        if self.force and not (self.reason or "").strip():
            raise ValueError("'force' needs a reason")
        return self


def draw(form: Form, alias: str | None) -> None:
    """Draws the inputs but for the alias."""
    form.version()
    record = chosen(form, form.value("model"))
    if record and alias:
        holder = Registry(form.db).aliases(record.model).get(alias)
        if holder == record.version:
            form.error(f"{record.model}@{alias} stands for {record.name} already: there is nothing to move.")
        else:
            form.notice(f"{record.model}@{alias} stands for {holder or 'nothing'} now, and then for {record.version}.")
    form.field("reason")
    form.label_field()
    form.field("golden_view")
    name, dataset = form.value("golden_view"), form.ctx.dataset
    tags = cached(("tags", *samples.state(dataset)), lambda: dataset._sample_collection.distinct("tags"))
    if not dataset.has_saved_view(name) and name not in tags:
        form.warning(f"There is no saved view {name!r} and no sample tagged {name!r}: the gate 'Golden set' will fail.")
    form.field("force")
    if form.on_request("More options: bounds of the gates"):
        form.fields("golden_accuracy", "margin", "max_mix_change")


def work(job: Job, alias: str) -> dict[str, Any]:
    """Asks the gates and moves the alias; the target's labelled samples are the fresh ones."""
    from .shared.artifacts import open_root, scratch
    from .shared.media import Media
    from .shared.workflows import promoting

    params, registry = job.params, Registry(job.db)
    record = registry.resolve(params.model)
    root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
    fresh, _ = labelled(job.view, params.label_field)
    golden = golden_set(job.dataset, params.golden_view, params.label_field)
    wish = promoting.Wish(record, alias, job.user, params.reason, job.run.id, params.force)
    bounds = promoting.Bounds(params.golden_accuracy, params.margin, params.max_mix_change)
    with scratch("promote-") as folder:
        where = promoting.Where(registry, root, Media(job.secrets).read, folder, job.run)
        outcome = promoting.promote(wish, fresh, golden, bounds, where)
    message = _message(wish, outcome)
    lost = _tell(job, wish, outcome, message)
    return {
        "message": f"{message} {lost}" if lost else message,
        "moved": outcome.change is not None,
        "alias": wish.name,
        "version": record.name,
        "previous": outcome.holder,
        "forced": bool(outcome.change and outcome.change.forced),
        "failed": outcome.failed,
        "gates": [gate.row() for gate in outcome.gates],
        "history": history_rows(registry.history(record.model, alias)),
    }


def _tell(job: Job, wish: Any, outcome: Promotion, message: str) -> str | None:
    """Posts what came of it; returns why that could not be done, if so."""
    if outcome.change is None and not outcome.failed:
        return None
    return events.post(
        job.secrets,
        events.GATE_FAILED if outcome.change is None else events.PROMOTED,
        message,
        alias=wish.name,
        version=wish.record.name,
        previous=outcome.holder,
        by=job.user,
        reason=wish.reason,
        forced=bool(outcome.change and outcome.change.forced),
        gates=[gate.row() for gate in outcome.gates],
    )


def golden_set(dataset: Any, name: str, label_field: str) -> Golden:
    """The samples that a saved view or a tag of this name selects; none where there is no such."""
    from .shared.workflows.comparing import Rows
    from .shared.workflows.promoting import Golden

    view = dataset.load_saved_view(name) if dataset.has_saved_view(name) else dataset.match_tags(name)
    if samples.not_samples(view):
        raise InputError(f"The golden set {name!r} is a view of patches or frames, or of groups: save one of samples.")
    columns = {"uri": "filepath", "label": f"{label_field}.label", "tags": "tags"}
    table = samples.read(view, columns)
    labels = [label or "" for label in table["label"]]
    must = np.array([MUST_PASS in (tags or ()) for tags in table["tags"]], bool)
    return Golden(name, Rows(str(dataset._doc.id), table["id"], table["uri"], labels), must)


def _message(wish: Any, outcome: Promotion) -> str:
    passed = f"{len(outcome.gates) - len(outcome.failed)} of {len(outcome.gates)} gates passed."
    if outcome.change is None:
        stays = f"it still stands for {outcome.holder}" if outcome.holder else "it stands for nothing yet"
        # Somebody else moved it meanwhile, if every gate was passed: then the registry says what it stands for.
        lost = bool(outcome.gates) and not outcome.failed
        said = [outcome.why_not] if lost else [f"{wish.name} was not moved: {stays}.", outcome.why_not]
        if outcome.failed:
            said.append(f"{passed} See the table for what to do.")
        return " ".join(said)
    said = [f"{wish.name} stands for {wish.record.name} now (before: {outcome.holder or 'nothing'})."]
    if outcome.change.forced:
        said.append(f"It was forced, which is recorded, although it does not pass: {', '.join(outcome.failed)}.")
    if outcome.change.loosened:
        said.append(f"Bounds were loosened, which is recorded: {', '.join(outcome.change.loosened)}.")
    return " ".join([*said, passed, outcome.left_out]).strip()


def history_rows(history: list[AliasChange]) -> list[dict[str, Any]]:
    """An alias's moves as rows of a table, the newest first."""
    return [
        {
            "at": f"{change.at:%Y-%m-%d %H:%M} UTC",
            "version": change.version,
            "before": change.previous,
            "how": ", ".join([change.kind, *(["forced"] if change.forced else []), *change.loosened]),
            "by": change.by,
            "reason": change.reason,
        }
        for change in reversed(history)
    ]
