"""Notes are added, never changed: nobody loses what somebody wrote."""

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.artifacts import open_root
from shared.errors import InputError
from shared.lineage import notes
from shared.lineage.notes import Note

NAME = "ptvr/20260301T120000_ab12cd"


def at(hour: int, **said: str) -> Note:
    return Note(at=datetime(2026, 3, 1, hour, tzinfo=UTC), **said)


@pytest.fixture
def root(tmp_path):
    return open_root(str(tmp_path / "artifacts"), {})


def test_notes_come_back_oldest_first_and_as_they_were(root):
    later = at(9, by="bob", limitations="a\n---\nb: {{ c }}", notes="µ ↵")
    notes.add(root, NAME, later)
    notes.add(root, NAME, at(8, by="ann", intended_use="counting"))
    assert notes.read(root, NAME) == [at(8, by="ann", intended_use="counting"), later]
    assert notes.read(root, "ptvr/20260301T120000_ffffff") == []
    assert all(key.startswith(f"notes/{NAME}/20260301T0") for key in notes.keys(root, NAME))


def test_they_work_the_same_on_s3(s3, bucket):
    root = open_root(f"s3://{bucket}/prefix", s3)
    notes.add(root, NAME, at(8, notes="one"))
    notes.add(root, NAME, at(8, notes="two"))
    assert sorted(note.notes for note in notes.read(root, NAME)) == ["one", "two"]


def test_many_who_write_at_once_lose_nothing(root):
    threads = [threading.Thread(target=notes.add, args=(root, NAME, at(8, notes=f"note {i}"))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(note.notes for note in notes.read(root, NAME)) == sorted(f"note {i}" for i in range(16))


def test_a_note_that_says_nothing_is_refused(root):
    with pytest.raises(InputError, match="nothing to add"):
        notes.add(root, NAME, at(8, by="ann", intended_use="", notes=" \n"))
    assert notes.read(root, NAME) == []


def test_blank_text_is_none():
    assert at(8, intended_use="  ").intended_use is None
    assert at(8, intended_use=" a ").intended_use == " a "


def test_a_text_without_end_is_refused():
    with pytest.raises(ValidationError):
        at(8, notes="x" * (notes.LONGEST + 1))


def test_times_are_kept_in_utc():
    pacific = timezone(timedelta(hours=-8))
    assert Note(at=datetime(2026, 3, 1, 4, tzinfo=pacific), notes="a") == at(12, notes="a")
    assert Note(at=datetime(2026, 3, 1, 12), notes="a") == at(12, notes="a")


def test_a_damaged_note_is_named_and_the_others_are_read(root, tmp_path):
    notes.add(root, NAME, at(8, notes="good"))
    notes.add(root, NAME, at(9, notes="bad"))
    key = notes.keys(root, NAME)[1]
    file = Path(root.uri(key))
    file.write_text('{"at": ')
    found = notes.read(root, NAME)
    assert found[0].notes == "good"
    assert found[1].at == datetime(2026, 3, 1, 9, tzinfo=UTC)
    assert key in found[1].notes
    assert "cannot be read" in found[1].notes


def test_other_files_beside_notes_are_no_notes(root, tmp_path):
    notes.add(root, NAME, at(8, notes="a"))
    (tmp_path / "card.md").write_text("# card")
    root.put(f"{notes.folder(NAME)}/{notes.CARD}", tmp_path / "card.md")
    assert len(notes.keys(root, NAME)) == len(notes.read(root, NAME)) == 1
