"""`verify_version`: a thin layer over `shared/workflows/verifying.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from .shared.forms import Form
from .shared.lineage.registry import Registry
from .shared.operators import Job, Spec, SuiteOperator, secrets

if TYPE_CHECKING:
    from .shared.workflows.verifying import Check


class VerifyVersion(SuiteOperator):
    """Computes a version's hashes, digest, metrics and card anew from what is stored."""

    spec = Spec(
        name="verify_version",
        label="Verify a version",
        description="Is it reproducible? Hashes, manifest digest and metrics computed anew, and what differs",
        icon="fact_check",
        writes="nothing",
        quick=True,
        target=False,
        needs_dataset=False,
    )

    class Params(BaseModel):
        """Parameters of `verify_version`."""

        model_config = ConfigDict(extra="forbid", protected_namespaces=())

        model: str = Field(
            min_length=1, description="A model's version or alias, such as ptvr@production", examples=["demo@candidate"]
        )

    def form(self, form: Form) -> None:
        """Draws the choice of a version, and says how much is fetched."""
        form.version()
        if not secrets(form.ctx).get("MBARI_ARTIFACTS"):
            form.warning("MBARI_ARTIFACTS is not set here: only a worker that has it can fetch the files.")
        record = form.registered(form.value("model"))
        if record is not None:
            size = sum(info.size for info in record.files.values())
            form.notice(f"{len(record.files):,} files are fetched, {size / 1e6:,.1f} MB; nothing is changed.")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Verify ptvr@production"."""
        return f"Verify {params.model}"

    def work(self, job: Job) -> dict[str, Any]:
        """Verifies, and sorts the findings."""
        from .shared.artifacts import open_root, scratch
        from .shared.workflows import verifying

        record = Registry(job.db).resolve(job.params.model)
        root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
        with scratch("verify-") as folder:
            checks = verifying.verify(record, root, folder, job.run)
        by_state = {state: [c for c in checks if c.state == state] for state in verifying.STATES}
        differs, unchecked = by_state[verifying.DIFFERS], by_state[verifying.UNCHECKED]
        return {
            "message": _message(record.name, len(checks), differs, unchecked),
            "verdict": verifying.DIFFERS if differs else verifying.UNCHECKED if unchecked else verifying.REPRODUCED,
            "differs": [{"what": check.what, "how": check.detail} for check in differs],
            "cannot_be_checked": [{"what": check.what, "why": check.detail} for check in unchecked],
            "reproduced": [{"what": check.what} for check in by_state[verifying.REPRODUCED]],
        }


def _message(name: str, count: int, differs: list[Check], unchecked: list[Check]) -> str:
    if differs:
        some = ", ".join(check.what for check in differs[:5]) + (" and more" if len(differs) > 5 else "")
        said = f"{name} is not what its record says: {len(differs):,} of {count:,} checks differ ({some})."
        return f"{said} Restore its files from a backup, or do not use it."
    if unchecked:
        return (
            f"{name}: reproduced as far as it can be checked; {len(unchecked):,} of {count:,} checks could not be made."
        )
    return f"{name}: reproduced. All {count:,} checks found what its record says."
