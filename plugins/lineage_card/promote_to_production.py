"""`promote_to_production`: moves the protected alias, through gates; an operator that an admin can give to few."""

from typing import Any

from pydantic import Field

from . import promotion
from .shared.forms import Form
from .shared.lineage.registry import PRODUCTION
from .shared.operators import Job, Spec, SuiteOperator


class PromoteToProduction(SuiteOperator):
    """Lets `production` stand for another version, if that passes every gate."""

    spec = Spec(
        name="promote_to_production",
        label="Promote to production",
        description="Release or deploy: the alias 'production' moves to a version that passes all gates on fresh ROIs",
        icon="rocket_launch",
        writes="outside",
    )

    class Params(promotion.PromotionParams):
        """Parameters of `promote_to_production`."""

        reason: str = Field(
            min_length=1,
            max_length=2000,
            pattern=r"\S",
            description="Why; it is kept in the alias's history",
            examples=["Better on copepods"],
        )

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        promotion.draw(form, PRODUCTION)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Promote ptvr@staging to production"."""
        return f"Promote {params.model} to {PRODUCTION}"

    def work(self, job: Job) -> dict[str, Any]:
        """Asks the gates, then moves the alias."""
        return promotion.work(job, PRODUCTION)
