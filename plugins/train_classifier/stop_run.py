"""`stop_run`: a person's way to end a long run of any of the suite's plugins."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .shared import runs
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator


class StopRun(SuiteOperator):
    """Asks a run to end at its next safe point; it keeps what it has and says so."""

    spec = Spec(
        name="stop_run",
        label="Stop a run",
        description="Cancel or abort a long run at its next safe point; see its progress. It keeps what it has",
        icon="stop_circle",
        writes="fiftyone",
        execution="immediate",
        target=False,
        needs_dataset=False,
        recorded=False,
    )

    class Params(BaseModel):
        """Parameters of `stop_run`."""

        model_config = ConfigDict(extra="forbid")

        run: str = Field(title="Run", description="One that is under way", examples=["6920f3a1c0ffee0123456789"])

    def form(self, form: Form) -> None:
        """Draws the list of runs under way."""
        under_way = runs.running(form.db)
        if not under_way:
            form.error("No run of the suite is under way.")
            return
        only = str(under_way[0]["_id"]) if len(under_way) == 1 else None
        form.choice("run", [(str(record["_id"]), _describe(record)) for record in under_way], default=only)

    def work(self, job: Job) -> dict[str, Any]:
        """Leaves the request where the run sees it within seconds."""
        record = runs.request_stop(job.db, job.params.run, job.user)
        if record["lost"]:
            return {
                "message": f"{record['name']!r} has given no sign of life since {record['alive_at']:%Y-%m-%d %H:%M} "
                "UTC: its worker has probably died, and then there is nothing to stop; start it again. If it is alive "
                "after all, it stops."
            }
        return {"message": f"Asked {record['name']!r} to stop; it ends at its next safe point, within seconds."}


def _describe(record: dict[str, Any]) -> str:
    progress = record.get("progress") or {}
    how_far = f": {progress['what']}, {progress['done']:,} of {progress['total']:,}" if progress.get("total") else ""
    lost = " (no sign of life: its worker may have died)" if record["lost"] else ""
    # The App cuts what is long: what a person looks for comes first.
    return f"{record['name']}{how_far}{lost} (on {record['dataset']}, since {record['started_at']:%Y-%m-%d %H:%M} UTC)"
