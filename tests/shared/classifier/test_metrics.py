"""Every metric, also of each slice, against scikit-learn; the calibration error against its formula, written again."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peer

from shared import intervals
from shared.classifier.metrics import calibration, evaluate
from shared.errors import InputError


@st.composite
def cases(draw):
    """Random predictions, some classes absent from the truth, some never predicted."""
    n, count, seed = draw(st.integers(1, 60)), draw(st.integers(1, 12)), draw(st.integers(0, 10_000))
    rng = np.random.RandomState(seed)
    present = rng.choice(count, rng.randint(1, count + 1), replace=False)
    probs = rng.dirichlet(np.full(count, draw(st.sampled_from([0.1, 1.0]))) + 1e-3, n)
    return rng.choice(present, n), probs.astype(draw(st.sampled_from([np.float32, np.float64]))), count


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None, max_examples=200)
@given(cases())
def test_every_metric_equals_scikit_learns(case):
    y_true, probs, count = case
    classes = [f"c{i}" for i in range(count)]
    ours, predicted = evaluate(y_true, probs, classes), probs.argmax(axis=1)
    assert ours["n"] == len(y_true)
    assert ours["top1"] == pytest.approx(peer.accuracy_score(y_true, predicted))
    assert ours["confusion"] == peer.confusion_matrix(y_true, predicted, labels=range(count)).tolist()
    kind = {"zero_division": 0, "labels": range(count), "average": None}
    each = peer.precision_recall_fscore_support(y_true, predicted, **kind)
    for i, name in enumerate(("precision", "recall", "f1", "n")):
        assert [row[name] for row in ours["per_class"]] == pytest.approx(each[i].tolist())
    assert [row["label"] for row in ours["per_class"]] == classes
    kind = {"zero_division": 0, "labels": np.unique(y_true), "average": "macro"}
    macro = peer.precision_recall_fscore_support(y_true, predicted, **kind)
    for i, name in enumerate(("precision", "recall", "f1")):
        assert ours[f"macro_{name}"] == pytest.approx(macro[i])
    assert json.loads(json.dumps(ours, allow_nan=False)) == ours


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 80), st.integers(6, 20), st.integers(0, 1000))
def test_top5_equals_scikit_learns(n, count, seed):
    rng = np.random.RandomState(seed)
    y_true, probs = rng.randint(count, size=n), rng.dirichlet(np.ones(count), n)
    theirs = peer.top_k_accuracy_score(y_true, probs, k=5, labels=range(count))
    assert evaluate(y_true, probs, list(map(str, range(count))))["top5"] == pytest.approx(theirs)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_five_classes_or_fewer_top5_is_one(count):
    rng = np.random.RandomState(0)
    probs = rng.dirichlet(np.ones(count), 20)
    assert evaluate(rng.randint(count, size=20), probs, list(map(str, range(count))))["top5"] == 1


def test_among_equals_the_earlier_class_ranks_first_in_top1_and_top5():
    probs = np.full((8, 8), 1 / 8)
    scores = evaluate(np.arange(8), probs, list("abcdefgh"))
    assert (scores["top1"], scores["top5"]) == (1 / 8, 5 / 8)


def test_an_absent_class_is_not_judged_but_predicting_it_is_a_mistake():
    probs = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    scores = evaluate(np.array([0, 1, 1]), probs, ["a", "b", "absent"])
    assert scores["macro_recall"] == pytest.approx((1 + 0.5) / 2)
    zeros = {"precision": 0, "recall": 0, "f1": 0, "n": 0}
    assert scores["per_class"][2] == {"label": "absent", **zeros, "recall_interval": None, "f1_interval": None}


@st.composite
def sliced(draw):
    """As `cases`, with two fields; some images are in no slice."""
    y_true, probs, count = draw(cases())
    names = st.sampled_from([None, "a", "b", "10 to 25", "5 to 10"])
    column = st.lists(names, min_size=len(y_true), max_size=len(y_true))
    return y_true, probs, count, {"depth": draw(column), "a site": draw(column)}


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None, max_examples=30)
@given(sliced())
def test_every_slice_equals_scikit_learns_of_its_images(case):
    y_true, probs, count, slices = case
    predicted = probs.argmax(axis=1)
    ours = evaluate(y_true, probs, [f"c{i}" for i in range(count)], slices)
    rows = iter(ours["slices"])
    for field, column in slices.items():
        for name in ("5 to 10", "10 to 25", "a", "b"):
            inside = np.array([value == name for value in column])
            if not inside.any():
                continue
            truth, chosen, row = y_true[inside], predicted[inside], next(rows)
            assert (row["field"], row["value"], row["n"]) == (field, name, inside.sum())
            assert row["top1"] == pytest.approx(peer.accuracy_score(truth, chosen))
            macro = peer.f1_score(truth, chosen, labels=np.unique(truth), average="macro", zero_division=0)
            assert row["macro_f1"] == pytest.approx(macro)
            assert row["top1_interval"] == list(intervals.wilson(int((truth == chosen).sum()), int(inside.sum())))
            table = peer.confusion_matrix(truth, chosen, labels=range(count))
            assert row["macro_f1_interval"] == list(intervals.macro_f1(table))
    assert next(rows, None) is None
    assert json.loads(json.dumps(ours, allow_nan=False)) == ours


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None, max_examples=30)
@given(cases())
def test_intervals_are_those_of_the_counts(case):
    y_true, probs, count = case
    predicted = probs.argmax(axis=1)
    ours = evaluate(y_true, probs, [f"c{i}" for i in range(count)])
    table = peer.confusion_matrix(y_true, predicted, labels=range(count))
    assert ours["intervals"]["top1"] == list(intervals.wilson(int(table.trace()), len(y_true)))
    assert ours["intervals"]["macro_f1"] == list(intervals.macro_f1(table))
    for i, row in enumerate(ours["per_class"]):
        if row["n"]:
            assert row["recall_interval"] == list(intervals.wilson(int(table[i, i]), row["n"]))
            assert row["f1_interval"] == intervals.class_f1(table)[i].tolist()
            for name in ("recall", "f1"):
                low, high = row[f"{name}_interval"]
                assert low - 1e-12 <= row[name] <= high + 1e-12
        else:
            assert (row["recall_interval"], row["f1_interval"]) == (None, None)
    assert ours["slices"] == []


def test_slices_of_other_images_are_refused():
    with pytest.raises(InputError, match="2 images but 3 values of depth"):
        evaluate(np.array([0, 1]), np.eye(2), ["a", "b"], {"depth": ["a", "b", "c"]})


def guo(confidence, correct) -> float:
    """Equation 3 of Guo et al. 2017 literally, bin by bin: I_m = ((m - 1) / M, m / M]."""
    total = 0.0
    for m in range(1, 16):
        inside = [i for i, c in enumerate(confidence) if (m - 1) / 15 < c <= m / 15]
        if inside:
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            mean = sum(float(confidence[i]) for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.floats(1e-9, 1), st.booleans()), min_size=1, max_size=80))
def test_the_calibration_error_equals_its_formula(rows):
    confidence, correct = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    ece, bins = calibration(confidence, correct)
    assert ece == pytest.approx(guo(confidence, correct), abs=1e-12)
    assert sum(each["n"] for each in bins) == len(rows)
    assert all(each["low"] - 1e-12 <= each["confidence"] <= each["high"] + 1e-12 for each in bins)


def test_bounds_of_bins_belong_to_the_bin_below():
    _, bins = calibration(np.array([1 / 15, 0.2, 1.0, 0.0]), np.array([True, False, True, False]))
    assert [(round(each["high"] * 15), each["n"]) for each in bins] == [(1, 2), (3, 1), (15, 1)]


def test_a_perfect_and_an_overconfident_model():
    sure = np.eye(6)[np.arange(60) % 6]
    assert evaluate(np.arange(60) % 6, sure, list("abcdef"))["ece"] == 0
    assert evaluate((np.arange(60) + 1) % 6, sure, list("abcdef"))["ece"] == 1


@pytest.mark.parametrize(
    ("y_true", "probs", "said"),
    [
        (np.array([], int), np.zeros((0, 2)), "nothing to evaluate"),
        (np.array([0]), np.ones((1, 3)) / 3, "made for other classes"),
        (np.array([0, 1]), np.ones((1, 2)) / 2, "do not fit 2 labels"),
        (np.array([2]), np.ones((1, 2)) / 2, "not among the 2 classes"),
        (np.array([-1]), np.ones((1, 2)) / 2, "not among the 2 classes"),
        (np.array([0]), np.array([[np.nan, 1]]), "not numbers"),
    ],
)
def test_what_cannot_be_scored_is_refused(y_true, probs, said):
    with pytest.raises(InputError, match=said):
        evaluate(y_true, probs, ["a", "b"])
