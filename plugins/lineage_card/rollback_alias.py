"""`rollback_alias`: gives an alias back to the version that held it before."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .promotion import history_rows
from .shared.errors import SuiteError
from .shared.forms import Form
from .shared.lineage.registry import NAME, Registry
from .shared.operators import Job, Spec, SuiteOperator


class RollbackAlias(SuiteOperator):
    """Takes back the last promotion of an alias; a second run, the one before it."""

    spec = Spec(
        name="rollback_alias",
        label="Roll an alias back",
        description="Undo a promotion: an alias, such as production, stands again for the version that held it before",
        icon="undo",
        writes="outside",
        quick=True,
        target=False,
        needs_dataset=False,
    )

    class Params(BaseModel):
        """Parameters of `rollback_alias`."""

        model_config = ConfigDict(extra="forbid")

        alias: str = Field(
            pattern=f"^{NAME.pattern}@{NAME.pattern}$",
            description="Such as ptvr@production",
            examples=["demo@production"],
        )
        reason: str = Field(
            min_length=1,
            max_length=2000,
            pattern=r"\S",
            description="Why; it is kept in the alias's history",
            examples=["It misses the smallest"],
        )

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        registry = Registry(form.db)
        named = [
            (f"{model}@{alias}", f"{model}@{alias} ({version})")
            for model in registry.models()
            for alias, version in registry.aliases(model).items()
        ]
        form.choice("alias", named, free=True)
        if not named:
            form.error("No model has an alias yet: a training gives it one.")
        if chosen := form.value("alias"):
            model, _, alias = chosen.partition("@")
            try:
                before, now = registry.before(model, alias), registry.aliases(model)[alias]
                form.notice(f"{chosen} stands for {now} now, and then for {before} again.")
            except SuiteError as error:
                form.error(str(error))
        form.field("reason")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Roll ptvr@production back"."""
        return f"Roll {params.alias} back"

    def work(self, job: Job) -> dict[str, Any]:
        """Moves the alias back from the version that it stood for when the run began."""
        registry, params = Registry(job.db), job.params
        model, _, alias = params.alias.partition("@")
        held = registry.aliases(model).get(alias)
        change = registry.rollback(model, alias, by=job.user, reason=params.reason, run_id=job.run.id, expected=held)
        return {
            "message": f"{params.alias} stands for {model}/{change.version} again (before: {change.previous}).",
            "alias": params.alias,
            "version": f"{model}/{change.version}",
            "previous": f"{model}/{change.previous}",
            "history": history_rows(registry.history(model, alias)),
        }
