"""What people write about a model version: dated notes beside it, added and never changed; see `dated`."""

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from ..artifacts import Artifacts
from ..errors import InputError
from . import dated

LONGEST = 20_000  # characters of one text
CARD = "card.md"  # the card with the notes, beside them

_KIND = "notes"


def _said(text: str | None) -> str | None:
    return text if text and text.strip() else None


Text = Annotated[str | None, Field(max_length=LONGEST), AfterValidator(_said)]  # None where there is nothing to read


class Note(dated.Dated):
    """What one person wrote at one time."""

    intended_use: Text = None
    limitations: Text = None
    notes: Text = None

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.intended_use or self.limitations or self.notes)


def folder(name: str) -> str:
    """Where the notes on the version `<model>/<version>` lie, below the artifact root."""
    return dated.folder(_KIND, name)


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
    dated.add(root, _KIND, name, note)


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
    found = [(key, dated.read(root, key)) for key in keys(root, name)]
    return [_parse(data, key, root.uri(key)) for key, data in found if data is not None]


def keys(root: Artifacts, name: str) -> list[str]:
    """Where the notes on a version lie, oldest first; cheaper than `read` to see whether there are new ones."""
    return dated.keys(root, _KIND, name)


def _parse(data: bytes, key: str, uri: str) -> Note:
    try:
        return Note.model_validate_json(data)
    except ValidationError:
        said = f"(The note of this time cannot be read: {uri} is damaged. Restore it from a backup.)"
        return Note(at=dated.time_of(key), notes=said)
