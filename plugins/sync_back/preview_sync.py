"""`preview_sync`: what `sync_back` would do now, line by line; no label, tag or store is touched."""

from collections import Counter
from contextlib import closing
from typing import Any

from pydantic import Field

from .common import (
    LISTED,
    OUTCOMES,
    LabelParams,
    csv_file,
    draw_corrections,
    label_field,
    label_store,
    listed,
    make_plan,
    misspelt,
    more_options,
    sentence,
    status_text,
)
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync import plan as plans
from .shared.sync.plan import Line, Status
from .shared.wording import many

UNTAGGED = "edited, not tagged"
VIEWS = {
    Status.UPDATE: "would change",
    Status.ALREADY: "already so",
    Status.CONFLICT: "conflicts",
    Status.NO_ID: "missing id",
    Status.ID_TWICE: "id twice",
    Status.NOT_IN_STORE: "not in the store",
    Status.TWO: "two corrections",
    Status.NOT_IN_VOCABULARY: "not in the vocabulary",
    Status.CANNOT: "cannot be stored",
    Status.NO_STORED: "stored label not known",
    Status.FAILED: "failed",
    UNTAGGED: UNTAGGED,
}


class PreviewSync(SuiteOperator):
    """Compares corrections, stored labels and the store, and says what would become of each."""

    spec = Spec(
        name="preview_sync",
        label="Preview a sync",
        description="Dry run: what 'Sync back' would send, each conflict, what it would not and why; no label changes",
        icon="preview",
        writes="fiftyone",
        quick=True,
    )

    class Params(LabelParams):
        """Parameters of `preview_sync`."""

        save_views: bool = Field(
            True, description="Saved views such as 'sync: conflicts', and the reason in a field of each sample"
        )
        csv: bool = Field(
            False, title="Lines as CSV", description="All lines, as a download and below the artifact root"
        )

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        draw_corrections(form)
        form.fields("save_views", "csv")
        more_options(form)

    def work(self, job: Job) -> dict[str, Any]:
        """Makes the plan and shows it."""
        field = label_field(job)
        field.index()
        with closing(label_store(job)) as store:
            lines, tags = make_plan(job, field, store)
        edited, counts = field.untagged_edits(job.view, tags), plans.counts(lines)
        result: dict[str, Any] = {
            "message": _message(lines, edited, store.name, job.params.marker_tag),
            "counts": {
                "would_change": counts["updated"],
                **{what: n for what, n in counts.items() if what not in ("updated", "failed")},  # of a sync
                "corrections": len(lines),
                "edited_not_tagged": len(edited),
            },
            "changes": plans.changes(lines),
            "problems": plans.problems(lines),
            "nearly_names": misspelt(tags),
            "edited_not_tagged": [
                {"label": label, "stored": stored, "labels": n}
                for (label, stored), n in Counter((e["label"], e["stored"]) for e in edited).most_common(LISTED)
            ],
            "lines": listed(lines),
        }
        if job.params.save_views:
            result["saved_views"] = show(field, job.view, lines, edited)
        if job.params.csv:
            result |= csv_file(job, f"preview-{job.run.id}.csv", plans.to_csv(lines))
        return result


def show(field: Any, view: Any, lines: list[Line], edited: list[dict[str, Any]]) -> list[str]:
    """Writes the status of each line to its sample, and saves a view for each kind of line; returns their names."""
    field.prepare()
    statuses = {line.correction.sample_id: status_text(line) for line in lines}
    statuses |= {row["id"]: f"{UNTAGGED}: the stored label is {row['stored']!r}" for row in edited}
    field.set_status(view, statuses)
    now = {line.status for line in lines} | ({UNTAGGED} if edited else set())
    return field.save_views({str(status): name for status, name in VIEWS.items() if status in now})


def _message(lines: list[Line], edited: list[dict[str, Any]], store: str, marker: str) -> str:
    if not lines and not edited:
        return f"There is no correction in the target; nothing would be sent to {store}."
    counts = plans.counts(lines)
    said = sentence(counts, OUTCOMES | {"updated": "would change"})
    message = f"Of {many(len(lines), 'correction')} for {store}: {said}."
    if edited:
        message += f" Edited and not tagged: {many(len(edited), 'label')}; a tag {marker!r} has them sent."
    return message
