"""The door to labelled samples: rows to learn from, and counts, as the dataset has them."""

import fiftyone as fo
import pytest

from shared import labelled
from shared.errors import InputError


def test_rows_to_train_on(five_rois):
    rows = labelled.rows(five_rois.view(), "ground_truth", "day")
    assert rows["label"] == ["a", "b", None, "a", "c c/c"]
    assert rows["split"] == ["train", "val", "train", None, None]  # two split tags are none
    assert rows["source_id"] == ["e0", None, "e2", "e3", "e4"]
    assert rows["group"] == ["0", "1", "0", "1", "0"]
    assert set(rows["dataset"]) == {five_rois.name}
    assert rows["label_id"][2] is None
    with pytest.raises(InputError, match="does not exist"):
        labelled.rows(five_rois.view(), "nope", None)


def test_the_source_id_may_be_an_attribute_of_the_label(dataset):
    dataset.add_sample(fo.Sample(filepath="/a.png", ground_truth=fo.Classification(label="a", elemental_id="x")))
    dataset.add_dynamic_sample_fields()
    assert labelled.rows(dataset.view(), "ground_truth", None)["source_id"] == ["x"]


def test_counts_by_split(five_rois):
    five_rois.skip(3).limit(1).tag_labels("b")
    counted = labelled.alike(five_rois.view(), "ground_truth")
    assert sorted(counted, key=repr)[0] == ("a", ("mine", "train"), (), 1)
    assert [row.label_tags for row in counted if row.label_tags] == [("b",)]
    assert sum(row.n for row in labelled.alike(five_rois.skip(1), "ground_truth")) == 4
    table = labelled.by_split(counted)
    assert table == {
        "a": {"train": 1, "val": 0, "test": 0, "none": 1},  # one is in two splits
        "b": {"train": 0, "val": 1, "test": 0, "none": 0},
        "c c/c": {"train": 0, "val": 0, "test": 0, "none": 1},
    }
