"""`show_runs`: what the suite has done lately, with outcome, duration and cost."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .shared import run_list
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.wording import many

MOST = 300  # runs that are shown
ALL = "all"


class ShowRuns(SuiteOperator):
    """Lists the suite's runs, newest first."""

    spec = Spec(
        name="show_runs",
        label="Show runs",
        description="Status, progress and history of long runs, failed ones too: what, by whom, duration, cost",
        icon="history",
        writes="nothing",
        execution="immediate",
        target=False,
        needs_dataset=False,
        recorded=False,
    )

    class Params(BaseModel):
        """Parameters of `show_runs`."""

        model_config = ConfigDict(extra="forbid")

        days: float = Field(30, gt=0, le=3650, title="Days", description="How far to look back", examples=[7])
        operator: str = Field(ALL, title="Operator", description="Only runs of this one, such as train_classifier")
        state: Literal["all", "running", "completed", "stopped", "failed", "lost"] = Field(
            "all", title="Outcome", description="'lost' gave no sign of life for long: its worker has died"
        )
        dataset: str | None = Field(None, title="Dataset", description="Only runs on this one; empty for all")

    def form(self, form: Form) -> None:
        """Draws the filters, with what there is to choose from."""
        operators, datasets = run_list.known(form.db)
        form.field("days")
        form.choice("operator", [(ALL, ALL), *((name, name) for name in operators)], free=True)
        form.field("state")
        form.choice("dataset", [(name, name) for name in datasets], free=True)
        if not operators:
            form.notice("No long operator of the suite has been run yet.")

    def work(self, job: Job) -> dict[str, Any]:
        """Asks the database; nothing is changed."""
        params, now = job.params, datetime.now(UTC).replace(tzinfo=None)
        found, count = run_list.find(
            job.db,
            now - timedelta(days=params.days),
            now,
            operator=None if params.operator == ALL else params.operator,
            state=None if params.state == ALL else params.state,
            dataset=params.dataset,
            most=MOST,
        )
        price = run_list.price_per_hour(job.secrets.get("MBARI_PRICE_PER_HOUR"))
        costs = [run_list.cost(record, now, price) or 0.0 for record in found] if price is not None else None
        rows = [run_list.row(record, now, price) for record in found]
        said = {name for row in rows for name, value in row.items() if value not in (None, "")}
        shown = [{name: value for name, value in row.items() if name in said} for row in rows]
        return {"message": _message(params, len(shown), count, costs), "runs": shown}


def _message(params: Any, shown: int, count: int, costs: list[float] | None) -> str:
    if not shown:
        return f"There was no such run in the last {params.days:g} days."
    said = f"{many(count, 'run')} in the last {params.days:g} days"
    if count > shown:
        said += f"; the newest {shown:,} are shown: choose an operator or fewer days to see others"
    if costs is not None:
        said += f". The workers cost {sum(costs):,.2f} together for those shown; what ran at once cost none"
    return f"{said}."
