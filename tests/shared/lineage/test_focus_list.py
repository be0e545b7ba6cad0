"""Focus lists beside a model version: the newest one that can be read counts."""

from datetime import timedelta

import pytest

from shared.artifacts import open_root
from shared.lineage import focus_list
from tests.focus import AT, made


@pytest.fixture
def root(tmp_path):
    return open_root(str(tmp_path), {})


def test_the_newest_list_comes_back_as_it_was(root):
    assert focus_list.newest(root, "m/1") is None
    later = made(AT + timedelta(seconds=1), by="ann", remarks=["What it came from is not known."])
    assert focus_list.add(root, "m/1", later).startswith(root.uri("focus/m/1/20260304T050608000000_"))
    focus_list.add(root, "m/1", made())
    focus_list.add(root, "m/2", made(AT + timedelta(days=1)))
    assert focus_list.newest(root, "m/1").model_dump() == later.model_dump() | {
        "items": [later.items[0].model_dump()],
    }


def test_a_damaged_list_is_passed_over(root, tmp_path):
    focus_list.add(root, "m/1", made())
    uri = focus_list.add(root, "m/1", made(AT + timedelta(hours=1)))
    (tmp_path / "focus" / "m" / "1" / uri.rpartition("/")[2]).write_text("{")
    assert focus_list.newest(root, "m/1").at == AT


def test_markdown_says_the_items_in_their_order_and_shows_names_as_they_are():
    text = focus_list.markdown(made())
    assert "04 March 2026, on 1,200 labelled ROIs" in text
    assert "1. a taken for \\*b\\* (3): 3 of 9." in text
    assert "Nothing stands out." in focus_list.markdown(made(items=[]))
