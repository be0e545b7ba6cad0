"""Numbers in sentences."""

from shared.wording import many


def test_one_and_several():
    assert [many(count, "label") for count in (0, 1, 1200)] == ["0 labels", "1 label", "1,200 labels"]
    assert [many(count, "class") for count in (1, 2)] == ["1 class", "2 classes"]
    assert [many(count, "label does", "labels do") for count in (1, 2)] == ["1 label does", "2 labels do"]
