"""Every gate passes where it should, fails where it should, and fails where it cannot be checked."""

from dataclasses import dataclass

import numpy as np
import pytest

from shared.lineage import gates
from shared.lineage.schema import Card, Data, Evaluation, Figure, Training

HOLDER = "m/20260101T000000_aaaaaa"


@dataclass
class Note:
    intended_use: str | None = None
    limitations: str | None = None


@dataclass
class Check:
    what: str
    state: str
    detail: str = ""


# --- golden set ---


def golden(right: list[bool], must: list[bool], bound: float = 0.75, **more: int) -> gates.Gate:
    return gates.golden_set("golden", np.array(right, bool), np.array(must, bool), bound, **more)


def test_a_golden_set_passes_at_the_bound_with_every_must_pass_right():
    gate = golden([True, True, True, False], [True, False, False, False])
    assert gate.passed
    assert gate.figure == "0.750 (3 of 4); must-pass 1 of 1"


def test_one_wrong_must_pass_sample_fails_whatever_the_accuracy():
    gate = golden([True] * 99 + [False], [False] * 98 + [True] * 2)
    assert not gate.passed
    assert gate.why == "1 of 2 must-pass samples are wrong."


def test_too_low_an_accuracy_fails():
    gate = golden([True, True, False, False], [True, False, False, False])
    assert not gate.passed
    assert gate.why == "2 of 4 golden samples are wrong."


def test_what_counts_as_wrong_is_said():
    gate = golden([True, True, True, False], [False] * 4, unlabelled=1, unreadable=1)
    assert gate.passed
    assert gate.why == "1 have no label, which counts as wrong. 1 could not be read, which counts as wrong."


def test_a_golden_set_of_nothing_is_not_checked_and_fails():
    gate = golden([], [], bound=0)
    assert not gate.passed
    assert gate.figure == gates.NOT_CHECKED
    assert "'golden'" in gate.why


# --- not worse than the holder ---


def difference(top1: float, macro_f1: float) -> dict[str, tuple[float, float, float]]:
    """Differences of which these are the lower ends."""
    return {"top1": (top1 + 0.03, top1, top1 + 0.06), "macro_f1": (macro_f1 + 0.03, macro_f1, macro_f1 + 0.06)}


def test_lower_ends_above_the_margin_pass():
    gate = gates.not_worse(difference(-0.019, -0.02), 300, 0.02, HOLDER)
    assert gate.passed
    assert gate.figure == "top-1 +0.011 (-0.019 to +0.041); macro F1 +0.010 (-0.020 to +0.040)"
    assert gate.why == f"Beside {HOLDER}, on 300 fresh samples."


@pytest.mark.parametrize(
    ("top1", "macro_f1", "worse"),
    [(-0.021, 0.1, "top-1"), (0.1, -0.021, "macro F1"), (-0.1, -0.1, "top-1 and macro F1")],
    ids=["top1", "macro", "both"],
)
def test_a_lower_end_below_the_margin_fails_and_is_named(top1, macro_f1, worse):
    gate = gates.not_worse(difference(top1, macro_f1), 300, 0.02, HOLDER)
    assert not gate.passed
    assert gate.why.startswith(f"On 300 fresh samples {worse} may be lower than those of {HOLDER}")


def test_the_very_same_predictions_are_no_worse_even_without_a_margin():
    assert gates.not_worse({"top1": (0.0, 0.0, 0.0), "macro_f1": (0.0, 0.0, 0.0)}, 300, 0.0, HOLDER).passed


def test_too_few_samples_tell_nothing():
    assert gates.not_worse(difference(0.1, 0.1), gates.FEWEST, 0.02, HOLDER).passed
    gate = gates.not_worse(difference(0.1, 0.1), gates.FEWEST - 1, 0.02, HOLDER)
    assert not gate.passed
    assert gate.figure == gates.NOT_CHECKED
    assert "Only 29 fresh labelled samples are left" in gate.why
    assert not gates.not_worse(None, 0, 0.02, HOLDER).passed


def test_the_first_holder_is_worse_than_nobody():
    gate = gates.not_worse(None, 0, 0.02, "")
    assert gate.passed
    assert "No version holds the alias yet" in gate.why


# --- class mix ---


def test_the_divergence_is_that_of_its_definition():
    first, second = {"a": 30, "b": 10}, {"a": 10, "c": 10}
    p, q = np.array([0.75, 0.25, 0]), np.array([0.5, 0, 0.5])

    def entropy(x: np.ndarray) -> float:
        return -sum(v * np.log2(v) for v in x if v)

    expected = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    assert gates.divergence(first, second) == pytest.approx(expected)
    assert gates.divergence(first, {"a": 3, "b": 1}) == pytest.approx(0, abs=1e-12)
    assert gates.divergence({"a": 1}, {"b": 7}) == pytest.approx(1)


def test_a_mix_passes_up_to_the_bound_and_fails_beyond():
    mine, theirs = {"a": 60, "b": 40}, {"a": 40, "b": 60}
    found = gates.divergence(mine, theirs)
    assert gates.class_mix(mine, theirs, found, HOLDER).passed
    gate = gates.class_mix(mine, theirs, found * 0.99, HOLDER)
    assert not gate.passed
    assert f"The largest change from {HOLDER} is a: +20.0 points." in gate.why


def test_a_mix_of_few_samples_is_not_checked_and_without_a_holder_passes():
    assert not gates.class_mix({"a": 29}, {"a": 29}, 0.1, HOLDER).passed
    assert gates.class_mix({"a": 29}, {"a": 29}, 0.1, HOLDER).figure == gates.NOT_CHECKED
    assert gates.class_mix({}, {}, 0.1, "").passed


# --- no training sample ---


def test_a_golden_sample_that_was_trained_on_fails():
    assert gates.no_training_sample(0, [HOLDER], [], "5 fresh ones were left out.").passed
    gate = gates.no_training_sample(2, [HOLDER], [], "")
    assert not gate.passed
    assert gate.why.startswith("2 golden samples were trained on")


def test_unknown_training_data_fails():
    gate = gates.no_training_sample(0, [HOLDER], ["m/x has no manifest."], "5 fresh ones were left out.")
    assert not gate.passed
    assert gate.why == "m/x has no manifest. 5 fresh ones were left out."


# --- card ---


def card(*splits: str) -> Card:
    figure = Figure(value=0.5)
    scores = {"top1": figure, "top5": 1.0, "macro_precision": 0.5, "macro_recall": 0.5, "macro_f1": figure, "ece": 0.1}
    return Card(
        model="m",
        version="20260101T000000_aaaaaa",
        created_at="2026-01-01T00:00:00+00:00",
        intended_use="none stated",
        limitations=[],
        classes=["a", "b"],
        framing="pad",
        imgsz=32,
        weights_sha256="0" * 64,
        licence="AGPL-3.0",
        data=Data(digest="0" * 64),
        training=Training(),
        evaluation=[Evaluation(split=split, n=4, **scores) for split in splits],
    )


def test_a_card_with_an_evaluation_and_a_persons_words_is_complete():
    notes = [Note(intended_use="Triage."), Note(), Note(limitations="Only Monterey Bay.")]
    assert gates.card_complete(card("val"), notes).passed
    assert gates.card_complete(card("test", "val"), notes).passed


@pytest.mark.parametrize(
    ("given", "notes", "said"),
    [
        (None, [Note("Triage.", "Bay.")], "It has no card. It is older than cards."),
        (card(), [Note("Triage.", "Bay.")], "It has no evaluation on test or val."),
        (card("train"), [Note("Triage.", "Bay.")], "It has no evaluation on test or val."),
        (card("test"), [], "no intended use written by a person, no limitations written by a person. Write it with"),
        (card("test"), [Note("Triage.")], "It has no limitations written by a person."),
        (card("test"), [Note(None, "Bay.")], "It has no intended use written by a person."),
    ],
    ids=["card", "evaluation", "other split", "notes", "limitations", "use"],
)
def test_an_incomplete_card_fails_and_says_what_is_missing(given, notes, said):
    gate = gates.card_complete(given, notes, "" if given else "It is older than cards.")
    assert not gate.passed
    assert said in gate.why


# --- weights ---


def test_verified_weights_pass_and_anything_else_fails():
    right = [Check("weights", "reproduced"), Check("metrics", "reproduced")]
    assert gates.weights_verified(right).passed
    gate = gates.weights_verified([*right, Check("manifest", "differs", "another digest"), Check("card", "differs")])
    assert not gate.passed
    assert (gate.figure, gate.why) == ("2 of 4 reproduced", "manifest: differs (another digest); card: differs")
    assert not gates.weights_verified([Check("metrics", "not checked", "No predictions.")]).passed
    assert not gates.weights_verified([]).passed


def test_a_gate_that_something_keeps_from_being_checked_fails():
    gate = gates.unchecked(golden([True], [True]), "There is no file at s3://lab/x.")
    assert (gate.passed, gate.figure, gate.why) == (False, gates.NOT_CHECKED, "There is no file at s3://lab/x.")
    assert gate.bound == golden([True], [True]).bound


def test_a_gate_becomes_a_row_that_a_database_can_keep():
    row = gates.weights_verified([]).row()
    assert list(row) == ["name", "passed", "figure", "bound", "why"]
    assert row["passed"] is False
