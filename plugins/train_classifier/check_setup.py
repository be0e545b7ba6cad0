"""`check_setup`: one table that tells an admin on the first day what works and what is missing."""

from pathlib import Path
from typing import Any

import fiftyone.plugins as fop
from pydantic import BaseModel, ConfigDict

from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.workflows import setup_check


class CheckSetup(SuiteOperator):
    """Tries what the suite needs, where it runs: schedule it to check a worker."""

    spec = Spec(
        name="check_setup",
        label="Check the set-up",
        description="Is the setup right? Versions, GPU, storage, media, workers, secrets (not shown): what to install",
        icon="fact_check",
        writes="nothing",
        quick=True,
        target=False,
        needs_dataset=False,
        recorded=False,
    )

    class Params(BaseModel):
        """`check_setup` takes no parameters."""

        model_config = ConfigDict(extra="forbid")

    def form(self, form: Form) -> None:
        """Says where it looks."""
        form.notice("Execute looks at the machine of the App; Schedule looks at a worker, where trainings run.")

    def work(self, job: Job) -> dict[str, Any]:
        """Tries everything and says what came of it."""
        rows = setup_check.run(job.secrets, job.db, _plugins(), _some_media(job.dataset))
        bad = [row["item"] for row in rows if row["state"] == "failed"]
        message = f"Needs attention: {', '.join(bad)}." if bad else "Everything that is set up works."
        root = next(row["state"] for row in rows if row["item"] == "artifact root")
        if root == "not set":
            message += " Training cannot work yet: the secret MBARI_ARTIFACTS is not set."
        if root == "read only":
            message += " This machine can apply models; it cannot train, since it may not write to the artifact root."
        return {"message": message, "checks": rows}


def _plugins() -> list[setup_check.Plugin]:
    """The suite's plugins that are installed where this runs."""
    found = [plugin for plugin in fop.list_plugins(builtin=False) if plugin.name.startswith("@mbari/")]
    return [setup_check.Plugin(plugin.name, str(plugin.version), Path(plugin.directory)) for plugin in found]


def _some_media(dataset: Any) -> list[str]:
    """The first, the middle and the last file of a dataset."""
    count = dataset.count() if dataset is not None else 0
    places = sorted({0, count // 2, count - 1}) if count else []
    return [path for place in places for path in dataset.skip(place).limit(1).values("filepath")]
