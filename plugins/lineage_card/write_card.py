"""`write_card`: a thin layer between FiftyOne and `shared/workflows/describing.py`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .shared.errors import SuiteError
from .shared.forms import Form
from .shared.lineage.notes import LONGEST, Note
from .shared.lineage.registry import Registry, VersionRecord
from .shared.memo import cached, forget
from .shared.operators import Job, Spec, SuiteOperator, secrets
from .shared.wording import many
from .shared.workflows.describing import refusal


class WriteCard(SuiteOperator):
    """Adds a dated note to a model version, and renders its card with all notes."""

    spec = Spec(
        name="write_card",
        label="Write card",
        description="Document a model version: what it is for and what not. The model card keeps every dated note",
        icon="description",
        writes="fiftyone",
        quick=True,
        target=False,
        needs_dataset=False,
    )

    class Params(BaseModel):
        """Parameters of `write_card`."""

        model_config = ConfigDict(extra="forbid", protected_namespaces=())

        model: str = Field(
            min_length=1, description="A model's version or alias, such as ptvr@production", examples=["demo@candidate"]
        )
        intended_use: str | None = Field(
            None, max_length=LONGEST, description="What it is for; stands in the card in place of what was there"
        )
        limitations: str | None = Field(
            None,
            max_length=LONGEST,
            description="What not to expect of it; stands before what the data show",
            examples=["Not tried in winter"],
        )
        notes: str | None = Field(None, max_length=LONGEST, description="Anything else worth knowing")

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.version()
        if not secrets(form.ctx).get("MBARI_ARTIFACTS"):
            form.warning("MBARI_ARTIFACTS is not set here: only a worker that has it can read and write cards.")
        record = form.registered(form.value("model"))
        if record is not None:
            if problem := refusal(record):
                form.error(problem)
            elif form.on_request("Show what was written before"):
                _show_notes(form, record)
        form.fields("intended_use", "limitations", "notes")
        form.notice(
            "What you write is added with your name and the date; nothing written before is changed. Left empty, the "
            "card is rendered as it stands."
        )

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Write the card of ptvr@production"."""
        return f"Write the card of {params.model}"

    def work(self, job: Job) -> dict[str, Any]:
        """Adds what was written, and hands out the card."""
        from .shared.artifacts import open_root
        from .shared.workflows import describing

        params = job.params
        record = Registry(job.db).resolve(params.model)
        root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
        said = {name: getattr(params, name) for name in ("intended_use", "limitations", "notes")}
        note = Note(at=datetime.now(UTC), by=job.user, **said)
        described = describing.describe(record, root, None if note.empty else note)
        forget("write_card")
        added = "" if note.empty else "Your note was added. "
        count = len(described.notes)
        return {
            "message": f"{added}The card of {record.name}, with {many(count, 'note')}, is at {described.uri}.",
            "version": record.name,
            "card": described.uri,
            "notes": _rows(described.notes),
            "download": {
                "name": f"{record.model}-{record.version}.md",
                "text": described.text,
                "type": "text/markdown",
            },
        }


def _show_notes(form: Form, record: VersionRecord) -> None:
    """A table of the notes on a version, or why it cannot be shown."""
    from .shared.artifacts import open_root
    from .shared.lineage import notes

    given = secrets(form.ctx)

    def look() -> list[Note]:
        return notes.read(open_root(given.get("MBARI_ARTIFACTS", ""), given), record.name)

    try:
        found = cached(("write_card", record.name), look, seconds=5)
    except SuiteError as error:
        form.warning(str(error))
        return
    if found:
        form.table(_rows(found), "Notes, oldest first")
    else:
        form.notice(f"Nobody has written anything about {record.name} yet.")


def _rows(written: Sequence[Note]) -> list[dict[str, Any]]:
    return [
        {"at": f"{note.at:%Y-%m-%d %H:%M} UTC", "by": note.by, "intended_use": note.intended_use}
        | {"limitations": note.limitations, "notes": note.notes}
        for note in written
    ]
