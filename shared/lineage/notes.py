"""What people write about a model version: dated notes beside it, one object each, added and never changed.

They lie at `notes/<model>/<version>/<time>_<8 hex>.json` below the artifact root. The version itself is immutable, and
two people who write at once write two objects.
"""

import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..artifacts import Artifacts, scratch
from ..errors import InputError

LONGEST = 20_000  # characters of one text
CARD = "card.md"  # the card with the notes, beside them

_NAME = re.compile(r"(\d{8}T\d{12})_[0-9a-f]{8}\.json")
_TIME = "%Y%m%dT%H%M%S%f"


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _said(text: str | None) -> str | None:
    return text if text and text.strip() else None


Text = Annotated[str | None, Field(max_length=LONGEST), AfterValidator(_said)]  # None where there is nothing to read


class Note(BaseModel):
    """What one person wrote at one time; a naive time is UTC."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer suite may have written more

    at: Annotated[datetime, AfterValidator(_utc)]
    by: str | None = None
    intended_use: Text = None
    limitations: Text = None
    notes: Text = None

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.intended_use or self.limitations or self.notes)


def folder(name: str) -> str:
    """Where the notes on the version `<model>/<version>` lie, below the artifact root."""
    return f"notes/{name}"


def add(root: Artifacts, name: str, note: Note) -> None:
    """Stores a note on a version, beside those that are there.

    Args:
        root: the artifact root
        name: `<model>/<version>`
        note: what to store

    Raises:
        InputError: the note says nothing
        StorageError: the root cannot be written
    """
    if note.empty:
        raise InputError("There is nothing to add: write an intended use, limitations or notes.")
    with scratch("note-") as local:
        path = local / "note.json"
        path.write_text(json.dumps(note.model_dump(mode="json"), indent=1, ensure_ascii=False), encoding="utf-8")
        root.put(f"{folder(name)}/{note.at:{_TIME}}_{secrets.token_hex(4)}.json", path)


def read(root: Artifacts, name: str) -> list[Note]:
    """All notes on a version, oldest first; where there are none, an empty list.

    One that is damaged takes its place with a word on that, so that it is neither lost silently nor in the way of the
    others.

    Args:
        root: the artifact root
        name: `<model>/<version>`

    Raises:
        StorageError: the root cannot be read
    """
    found = []
    with scratch("notes-") as local:
        for key in keys(root, name):
            path = local / Path(key).name
            if root.get(key, path):
                found.append((_parse(path, root.uri(key)), key))
    return [note for note, _ in sorted(found, key=lambda one: (one[0].at, one[1]))]


def keys(root: Artifacts, name: str) -> list[str]:
    """Where the notes on a version lie, one by one; cheaper than `read` to see whether there are new ones."""
    return [key for key in root.list(folder(name)) if _NAME.fullmatch(key.rpartition("/")[2])]


def _parse(path: Path, uri: str) -> Note:
    try:
        return Note.model_validate_json(path.read_bytes())
    except ValidationError:
        at = datetime.strptime(path.name[:21], _TIME).replace(tzinfo=UTC)
        return Note(at=at, notes=f"(The note of this time cannot be read: {uri} is damaged. Restore it from a backup.)")
