"""Objects beside a model version: each of its own time, none in another's way."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shared.artifacts import open_root
from shared.lineage import dated

AT = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)


@pytest.fixture
def root(tmp_path):
    return open_root(str(tmp_path / "artifacts"), {})


def test_they_come_back_oldest_first_and_of_their_own_version_and_kind_alone(root):
    for hours in (2, 0, 1):
        dated.add(root, "said", "m/1", dated.Dated(at=AT + timedelta(hours=hours), by="ann"))
    dated.add(root, "said", "m/10", dated.Dated(at=AT))
    dated.add(root, "done", "m/1", dated.Dated(at=AT))
    keys = dated.keys(root, "said", "m/1")
    assert [dated.time_of(key) for key in keys] == [AT + timedelta(hours=hours) for hours in range(3)]
    assert dated.Dated.model_validate_json(dated.read(root, keys[0])) == dated.Dated(at=AT, by="ann")


def test_what_else_lies_there_is_none_of_them(root, tmp_path):
    (tmp_path / "card.md").write_text("a card")
    root.put(f"{dated.folder('said', 'm/1')}/card.md", tmp_path / "card.md")
    assert dated.keys(root, "said", "m/1") == []
    assert dated.read(root, "said/m/1/20260304T050607000008_0123abcd.json") is None


def test_times_are_utc_whatever_they_were_given_as():
    here = timezone(timedelta(hours=-8))
    assert dated.Dated(at=AT.replace(tzinfo=None)).at == dated.Dated(at=AT.astimezone(here)).at == AT
    assert dated.Dated(at=AT.astimezone(here)).at.tzinfo is UTC
