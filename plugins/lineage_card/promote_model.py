"""`promote_model`: moves an alias that is not protected, through gates."""

from typing import Any

from pydantic import Field, field_validator

from . import promotion
from .shared.forms import Form
from .shared.lineage.registry import NAME, PRODUCTION
from .shared.operators import Job, Spec, SuiteOperator


class PromoteModel(SuiteOperator):
    """Lets an alias such as `staging` stand for another version, if that passes every gate."""

    spec = Spec(
        name="promote_model",
        label="Promote a model",
        description="Move an alias such as 'staging' to a version that passes the gates; the target are fresh ROIs",
        icon="upgrade",
        writes="fiftyone",
    )

    class Params(promotion.PromotionParams):
        """Parameters of `promote_model`."""

        alias: str = Field(
            pattern=f"^{NAME.pattern}$",
            description="Such as candidate or staging; 'Promote to production' is for production",
            examples=["staging"],
        )

        @field_validator("alias")
        @classmethod
        def _unprotected(cls, alias: str) -> str:
            if alias.lower() == PRODUCTION:
                raise ValueError("it is protected: use the operator 'Promote to production' (promote_to_production)")
            return alias

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.choice("alias", [(name, name) for name in ("staging", "candidate")], free=True)
        promotion.draw(form, form.value("alias"))

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Promote ptvr@candidate to staging"."""
        return f"Promote {params.model} to {params.alias}"

    def work(self, job: Job) -> dict[str, Any]:
        """Asks the gates, then moves the alias."""
        return promotion.work(job, job.params.alias)
