"""What people say about a model version, added beside it, and its card rendered with that."""

from dataclasses import dataclass
from pathlib import Path

from ..artifacts import Artifacts, scratch
from ..errors import InputError, StorageError
from ..lineage import notes
from ..lineage.notes import Note
from ..lineage.registry import VersionRecord
from ..lineage.schema import Card

CARD = "card.json"
PLOTS = "plots/"


@dataclass(frozen=True)
class Described:
    """A card as it was rendered.

    Attributes:
        text: Markdown
        uri: where it lies
        notes: the notes that are in it, oldest first
    """

    text: str
    uri: str
    notes: list[Note]


def refusal(record: VersionRecord) -> str | None:
    """Why a version's card cannot be written, if so."""
    if CARD in record.files:
        return None
    return f"The version {record.name} was published without a card, before there were any: train it again to get one."


def describe(record: VersionRecord, root: Artifacts, note: Note | None = None) -> Described:
    """Adds a note, if given, renders the card with all notes and the newest focus list, and stores it beside them.

    Whoever adds a note at the same time adds another object, and whoever renders last has them all. The version's own
    card stays as it was published.

    Args:
        record: the version
        root: the artifact root
        note: what to add

    Raises:
        InputError: the version has no card, or the note says nothing
        StorageError: the root fails, or the card is damaged
    """
    from ..lineage import focus_list, render  # `render` takes long to import, and a form only asks for `refusal`

    if problem := refusal(record):
        raise InputError(problem)
    with scratch("card-") as folder:
        card = _card(root.fetch(record.key, {CARD: record.files[CARD]}, folder) / CARD, record)
        if note is not None:
            notes.add(root, record.name, note)
        key = f"{notes.folder(record.name)}/{notes.CARD}"
        above = "../" * key.count("/")
        plots = [f"{above}{record.key}/{name}" for name in sorted(record.files) if name.startswith(PLOTS)]
        while True:
            known = notes.keys(root, record.name), focus_list.keys(root, record.name)
            text, found = render.described(card, record.name, root, plots)
            path = folder / notes.CARD
            path.write_text(text, encoding="utf-8", newline="")
            root.put(key, path)
            # A note that came meanwhile is in the card of whoever added it, which this one may have replaced.
            if (notes.keys(root, record.name), focus_list.keys(root, record.name)) == known:
                return Described(text, root.uri(key), found)


def _card(path: Path, record: VersionRecord) -> Card:
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValueError:
        raise StorageError(
            f"The card of {record.name} cannot be read: it was written by a newer release of this suite, or by another "
            "program; update the plugins."
        ) from None
