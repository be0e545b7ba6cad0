"""The figures of the panel, as Plotly gets them."""

import json

import pytest

from shared.lineage import figures
from tests import records

MIX = {"Calanus": {"train": 30, "val": 3, "test": 4}, "Pseudo-nitzschia": {"train": 8}}


@pytest.fixture(scope="module")
def scores():
    return records.scores()


@pytest.fixture(scope="module")
def drawn(scores):
    return {figure["name"]: figure for figure in figures.figures(scores, records.CSV, MIX)}


def test_everything_that_there_is_data_for_is_drawn_and_can_be_sent(drawn):
    assert list(drawn) == ["per_class", "confusion", "reliability", "slices", "class_mix", "loss", "accuracy"]
    assert json.loads(json.dumps(list(drawn.values()), allow_nan=False))
    assert all(figure["title"] and figure["caption"] and figure["height"] > 100 for figure in drawn.values())


def test_what_there_is_no_data_for_is_left_out():
    assert figures.figures({}, None, {}) == []
    assert [figure["name"] for figure in figures.figures({}, None, MIX)] == ["class_mix"]
    older = {"per_class": [{"label": "a", "n": 3, "f1": 0.5, "precision": 0.5, "recall": 0.5}]}
    (figure,) = figures.figures(older, "", {})
    assert figure["traces"][0]["error_x"] == {"visible": False}


def test_f1_and_its_interval_are_those_of_the_metrics(drawn, scores):
    trace = drawn["per_class"]["traces"][0]
    rows = {row["label"]: row for row in scores["per_class"]}
    for label, value, up, down in zip(
        trace["hovertext"], trace["x"], trace["error_x"]["array"], trace["error_x"]["arrayminus"], strict=True
    ):
        assert value == rows[label]["f1"]
        assert [value - down, value + up] == pytest.approx(rows[label]["f1_interval"])
    assert trace["x"] == sorted(trace["x"])


def test_the_confusion_has_the_counts_of_the_metrics(drawn, scores):
    trace = drawn["confusion"]["traces"][0]
    assert [[cell[0] for cell in row] for row in trace["customdata"]] == scores["confusion"]
    assert [sum(row) for row in trace["z"]] == pytest.approx([1.0] * len(records.CLASSES))
    assert trace["customdata"][0][1] == [scores["confusion"][0][1], records.CLASSES[0], records.CLASSES[1]]


def test_slices_and_class_mix_say_what_they_count(drawn, scores):
    slices = drawn["slices"]
    by_name = {f"{row['field']}: {row['value']} ({row['n']})": row["top1"] for row in scores["slices"]}
    trace = slices["traces"][0]
    assert dict(zip(trace["hovertext"], trace["x"], strict=True)) == by_name
    mix = {trace["name"]: trace["x"] for trace in drawn["class_mix"]["traces"]}
    assert mix == {"train": [8, 30], "val": [0, 3], "test": [0, 4]}


def test_two_long_names_that_are_shortened_alike_keep_a_bar_each():
    rows = [
        {"label": f"Aaaaaaaaaaaaaaaaaaaaaa{middle}aaaaaaaaaaaaaaaaaaaa", "n": 1, "f1": f1, "precision": 1, "recall": 1}
        for middle, f1 in (("x", 0.1), ("y", 0.9))
    ]
    (figure,) = figures.figures({"per_class": rows}, None, {})
    names = figure["layout"]["yaxis"]["ticktext"]
    assert names[0] == names[1]
    assert figure["traces"][0]["y"] == [0, 1]


def test_of_very_many_classes_the_worst_are_shown_and_that_is_said():
    rows = [{"label": f"c{k}", "n": 1, "f1": k / 200, "precision": 1, "recall": 1} for k in range(200)]
    (figure,) = figures.figures({"per_class": rows}, None, {})
    assert figure["traces"][0]["hovertext"] == [f"c{k}" for k in range(figures.MOST_ROWS)]
    assert "worst 80 of 200" in figure["caption"]


def test_epochs_are_read_once_each_and_what_is_no_number_is_left_open():
    text = "epoch, train/loss\n1, 2.0\n2, nan\n2, 1.5\n3, what\nbroken\n"
    assert figures.read_epochs(text) == {"epoch": [1.0, 2.0, 3.0], "train/loss": [2.0, 1.5, None]}
    assert figures.read_epochs("") == {}
