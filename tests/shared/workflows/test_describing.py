"""What people say of a version goes beside it, and into its card."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.artifacts import open_root
from shared.errors import InputError, StorageError
from shared.lineage import focus_list
from shared.lineage.notes import Note
from shared.lineage.registry import VersionRecord
from shared.workflows import describing
from tests import cards, focus


def note(text: str, by: str = "ann") -> Note:
    return Note(at=datetime.now(UTC), by=by, notes=text)


@pytest.fixture
def root(tmp_path):
    return open_root(str(tmp_path / "artifacts"), {})


@pytest.fixture
def record(root, tmp_path):
    """A version that consists of a card and a plot."""
    return publish(root, tmp_path, {"card.json": cards.made().model_dump_json(), "plots/confusion.png": "a picture"})


def publish(root, tmp_path, files: dict[str, str]) -> VersionRecord:
    card = cards.made()
    folder = tmp_path / "version"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    key = f"versions/{card.name}"
    return VersionRecord(
        model=card.model,
        version=card.version,
        uri=root.uri(key),
        key=key,
        files=root.publish(folder, key),
        classes=card.classes,
        framing=card.framing,
        imgsz=card.imgsz,
        manifest_digest=card.data.digest,
    )


def test_a_note_is_added_and_the_card_lies_beside_it(root, record):
    first = describing.describe(record, root, note("seen"))
    second = describing.describe(record, root, note("seen again", by="bob"))
    assert [n.notes for n in second.notes] == ["seen", "seen again"]
    stored = Path(second.uri)
    assert second.uri == first.uri == root.uri(f"notes/{record.name}/card.md")
    assert stored.read_text(encoding="utf-8") == second.text
    assert "> seen again" in second.text


def test_the_pictures_of_the_card_are_where_it_says(root, record):
    described = describing.describe(record, root)
    [address] = [line.split("](")[1].rstrip(")") for line in described.text.splitlines() if line.startswith("![")]
    assert (Path(described.uri).parent / address).resolve().read_text() == "a picture"


def test_without_a_note_the_card_is_rendered_as_it_stands(root, record):
    assert describing.describe(record, root).text == describing.describe(record, root).text
    assert describing.describe(record, root).notes == []


def test_the_newest_focus_list_stands_after_the_figures(root, record):
    focus_list.add(root, record.name, focus.made())
    text = describing.describe(record, root).text
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    place = heads.index("## Where to look")
    assert heads[place - 1 : place + 2] == ["## How good it is", "## Where to look", "## What it learned from"]


def test_the_version_itself_stays_as_it_was(root, record):
    before = root.published(record.key)
    described = describing.describe(record, root, note("a"))
    assert root.published(record.key) == before
    assert "> a" in described.text
    assert root.list(record.key) == [f"{record.key}/{name}" for name in sorted(["files.json", *record.files])]


def test_of_many_who_write_at_once_all_are_in_the_card_that_stays(root, record):
    threads = [
        threading.Thread(target=describing.describe, args=(record, root, note(f"number {i} of six"))) for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stays = Path(root.uri(f"notes/{record.name}/card.md")).read_text(encoding="utf-8")
    assert [f"> number {i} of six" in stays for i in range(6)] == [True] * 6


def test_a_version_from_before_cards_is_refused_before_anything_is_written(root, tmp_path):
    record = publish(root, tmp_path, {"weights.pt": "weights"})
    assert "without a card" in describing.refusal(record)
    with pytest.raises(InputError, match=f"{record.name} was published without a card"):
        describing.describe(record, root, note("lost?"))
    assert root.list("notes") == []


def test_a_card_that_is_none_is_said_to_be_so(root, tmp_path):
    record = publish(root, tmp_path, {"card.json": '{"model": 1}'})
    with pytest.raises(StorageError, match="cannot be read"):
        describing.describe(record, root, note("lost?"))
    assert root.list("notes") == []


def test_a_card_that_was_altered_is_found_out(root, record):
    Path(root.uri(f"{record.key}/card.json")).write_text("{}")
    with pytest.raises(StorageError, match="damaged"):
        describing.describe(record, root)
