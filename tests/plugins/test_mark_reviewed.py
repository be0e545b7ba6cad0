"""ROIs that a person has looked at are marked by one click, and never a whole dataset by mistake."""

import asyncio

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError, execute_or_delegate_operator
from fiftyone.operators.types import Places

from shared import selected
from tests import labels
from tests.worker import form

URI = "@mbari/apply_model/mark_reviewed"


@pytest.fixture
def waiting(dataset):
    """Six samples, of which the first four were chosen for review."""
    ids = labels.fill(dataset, ["Calanus"] * 6)
    selected.write(dataset, "ground_truth", 0.9, dict.fromkeys(ids[:4], "confident: 0.95"), ["confident"])
    dataset.reload()
    return dataset


def mark(target, selection=None, **params):
    where = {"dataset": target} if isinstance(target, fo.Dataset) else {"view": target}
    done = foo.execute_operator(URI, {**where, "selected": selection, "params": params}).result
    target._root_dataset.reload()
    return done


def test_selected_ones_are_tagged_and_leave_the_views(waiting):
    ids = waiting.values("id")
    done = mark(waiting.load_saved_view("review: all"), ids[:3])
    assert waiting.match_tags("reviewed").values("id") == ids[:3]
    assert waiting.load_saved_view("review: all").values("id") == waiting.load_saved_view("review: confident").values(
        "id"
    )
    assert waiting.load_saved_view("review: all").values("id") == [ids[3]]
    assert done["counts"] == {"samples": 3, "changed": 3, "already": 0, "left": 1}
    assert done["message"] == "3 of 3 ROIs got the tag 'reviewed'. Still to be looked at in this view: 1."

    done = mark(waiting, ids[1:5])
    assert done["counts"] == {"samples": 4, "changed": 2, "already": 2}
    assert waiting.match_tags("reviewed").values("id") == ids[:5]


def test_a_view_is_marked_whole_and_that_can_be_taken_back(waiting):
    done = mark(waiting.load_saved_view("review: all"))
    assert "That was all of this view." in done["message"]
    assert waiting.load_saved_view("review: all").count() == 0
    done = mark(waiting.limit(5), clear=True)
    assert done["counts"] == {"samples": 5, "changed": 4, "already": 1, "left": 5}
    assert waiting.match_tags("reviewed").count() == 0
    assert waiting.load_saved_view("review: all").count() == 4


def test_a_whole_dataset_is_marked_only_where_that_was_said(waiting):
    for target in (waiting, waiting.sort_by("id")):
        with pytest.raises(ExecutionError, match="select ROIs or open a view first"):
            mark(target)
    assert waiting.match_tags("reviewed").count() == 0
    assert mark(waiting, view_target="DATASET")["counts"]["changed"] == 6


def test_patches_are_not_samples(waiting):
    waiting.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    waiting.set_values("boxes", [fo.Detections(detections=[fo.Detection(label="a")]) for _ in range(6)])
    patches = waiting.to_patches("boxes")
    with pytest.raises(ExecutionError, match="This view shows parts of samples; open the samples themselves"):
        mark(patches)
    assert waiting.match_tags("reviewed").count() == 0
    if fo.__version__.startswith("1.12."):
        pytest.skip("this FiftyOne offers no other target while patches are shown")
    assert mark(patches, view_target="DATASET")["counts"] == {"samples": 6, "changed": 6, "already": 0}


def test_the_sidebars_filters_count_in_a_saved_view_as_well(waiting):
    """FiftyOne's `ctx.view` drops them there, so that one click would mark what nobody has seen."""
    name = "review: all"
    filters = {"elemental_id": {"values": ["e1", "e5"], "exclude": False, "isMatching": True}}
    stages = waiting.load_saved_view(name)._serialize()
    request = {"dataset_name": waiting.name, "view_name": name, "view": stages, "filters": filters, "params": {}}
    execution = asyncio.run(execute_or_delegate_operator(URI, request))
    waiting.reload()
    assert execution.result["counts"]["samples"] == 1
    assert waiting.match_tags("reviewed").values("elemental_id") == ["e1"]


def test_its_button_asks_nothing_and_the_app_shows_what_was_done(waiting):
    placement = foo.get_operator(URI).resolve_placement(None)
    assert placement.place == Places.SAMPLES_GRID_ACTIONS
    assert placement.view.to_json()["prompt"] is False
    execution = foo.execute_operator(URI, {"view": waiting.limit(1), "params": {}})
    asked = [(request.operator_uri, request.params) for request in execution.executor._requests]
    assert [uri for uri, _ in asked][-3:] == ["reload_dataset", "clear_selected_samples", "notify"]
    assert asked[-1][1]["message"] == execution.result["message"]


def test_bad_input_is_one_sentence(waiting):
    with pytest.raises(ExecutionError, match="no parameter 'clera'; did you mean 'clear'"):
        mark(waiting.limit(1), clera=True)
    assert any("every ROI of the dataset" in text for text in form(URI, waiting))
