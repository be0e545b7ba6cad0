"""Marks and saved views of a focus list: its own are replaced, others stay."""

import fiftyone as fo
import numpy as np
import pytest

from shared import focus_views
from shared.errors import InputError
from shared.review.focus import Item


@pytest.fixture
def six(dataset):
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(6)])
    dataset.set_values("pred", [fo.Classification(label="a", confidence=i / 10) for i in range(6)])
    return dataset


def item(name: str, rows: list[int], kind: str = "confused") -> Item:
    return Item(kind, name, "", np.array(rows), len(rows), 0.1, 0.1)


def write(dataset, *items, doubts=None):
    return focus_views.write(dataset, dataset.values("id"), items, "pred", doubts or {}, {"eval_key": "e"})


def test_each_item_has_a_view_of_its_samples_the_most_confident_first(six):
    ids = six.values("id")
    names = write(six, item("a taken for b", [0, 2, 5]), item("Weak where x", [2]))
    assert names == ["focus 01: a taken for b (3)", "focus 02: Weak where x (1)"]
    assert six.load_saved_view(names[0]).values("id") == [ids[5], ids[2], ids[0]]
    assert six.load_saved_view(names[1]).values("id") == [ids[2]]
    assert six.values("focus")[2] == ["01", "02"]
    assert focus_views.last(six) == {"eval_key": "e"}
    assert focus_views.is_one(six.load_saved_view(names[0]))
    assert not focus_views.is_one(six.view())


def test_labels_that_look_wrong_have_the_worst_first_and_a_suggestion(six):
    ids = six.values("id")
    doubts = {ids[1]: (0.3, "b"), ids[4]: (0.1, "c")}
    (name,) = write(six, item("Labels that look wrong", [1, 4], "wrong labels"), doubts=doubts)
    view = six.load_saved_view(name)
    assert view.values("id") == [ids[4], ids[1]]
    assert view.values("focus_suggested") == ["c", "b"]
    write(six)
    assert six.exists("focus_suggested").count() == six.exists("focus_quality").count() == 0
    assert six.list_saved_views() == []


def test_marks_of_an_evaluation_stay_when_another_list_is_written(six):
    ids = six.values("id")
    first = focus_views.leave_out(six, "eval_a", ids[:2])
    second = focus_views.leave_out(six, "eval_b", ids[1:3])
    write(six, item("x", [0, 1]))
    write(six, item("y", [3]))
    assert six.match(first).values("id") == ids[2:]
    assert six.match(second).values("id") == [ids[0], *ids[3:]]
    assert six.match(focus_views.leave_out(six, "eval_a", [])).count() == 6
    assert six.match(second).count() == 4


def test_nothing_to_leave_out_makes_no_field(six):
    assert six.match(focus_views.leave_out(six, "eval_a", [])).count() == 6
    assert not six.has_sample_field("focus")


def test_a_long_name_loses_its_end_and_keeps_its_count(six):
    (name,) = write(six, item("Pseudo-nitzschia " * 10, [1]))
    assert len(name) <= focus_views.LONGEST
    assert name.startswith("focus 01: Pseudo-nitzschia")
    assert name.endswith("… (1)")


@pytest.mark.parametrize("field", ["focus", "focus_quality", "focus_suggested"])
def test_a_field_that_is_somebody_elses_is_refused(six, field):
    six.add_sample_field(field, fo.StringField)
    with pytest.raises(InputError, match=f"{field!r} exists and no evaluation of this suite made it"):
        write(six, item("x", [0]))
