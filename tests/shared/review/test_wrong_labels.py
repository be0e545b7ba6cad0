"""Wrong labels against cleanlab, folds and probes against scikit-learn, and labels flipped on purpose."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.preprocessing import normalize

from shared.errors import InputError
from shared.review import wrong_labels
from shared.review.wrong_labels import WrongLabels
from shared.runs import Monitor

CLASSES, ROWS, DIMS = 6, 900, 16


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which 5% are flipped, features that tell the classes apart for the most part, and what was flipped."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(CLASSES), ROWS // CLASSES)
    features = 0.9 * random.normal(size=(CLASSES, DIMS))[truth] + random.normal(size=(ROWS, DIMS))
    flipped = random.random(ROWS) < 0.05
    return np.where(flipped, (truth + 1) % CLASSES, truth), features.astype(np.float32), flipped


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return drawn()


@pytest.fixture(scope="module")
def found(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> WrongLabels:
    labels, features, _ = data
    result = wrong_labels.find(labels, features, None, CLASSES)
    assert result is not None
    return result


def sure(labels: np.ndarray, features: np.ndarray, **more: object) -> np.ndarray:
    given = {"classes": CLASSES, "folds": 5, "seed": 51, "monitor": Monitor()} | more
    result = wrong_labels.out_of_fold(labels, features, **given)
    assert result is not None
    return result


def test_flipped_labels_come_first(data: tuple, found: WrongLabels) -> None:
    labels, _, flipped = data
    n = flipped.sum()
    assert flipped[found.indices[:n]].mean() > 0.7
    assert np.all(np.diff(found.quality[found.indices]) >= 0)
    assert (found.suggested[flipped] == (labels[flipped] - 1) % CLASSES).mean() > 0.7
    assert found.judged == ROWS


@pytest.mark.parametrize("noise", [1, 3], ids=["clear", "vague"])
def test_the_verdict_is_cleanlabs_of_what_is_likely_wrong(data: tuple, noise: int) -> None:
    labels, features, _ = data
    features = features + (noise - 1) * np.random.default_rng(5).normal(size=features.shape).astype(np.float32)
    found = wrong_labels.find(labels, features, None, CLASSES)
    assert found is not None
    probabilities = sure(labels, features)
    peer = find_label_issues(
        labels, probabilities, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence"
    )
    likely = found.chance >= wrong_labels.LIKELY
    assert found.indices.tolist() == peer[likely[peer]].tolist()
    # Where classes are hard to tell apart, most of what cleanlab names is not worth a look.
    assert (len(found.indices) < len(peer) / 2) == (noise == 3)
    assert np.array_equal(found.quality, get_label_quality_scores(labels, probabilities))
    assert np.array_equal(found.suggested, probabilities.argmax(axis=1))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.1, 0.2])
def test_as_many_are_expected_to_be_wrong_as_are(share: float) -> None:
    random = np.random.default_rng(8)
    logits = 4 * random.normal(size=(6_000, CLASSES))
    truth = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    flipped = random.random(len(truth)) < share
    labels = np.where(flipped, (truth + random.integers(1, CLASSES, len(truth))) % CLASSES, truth)
    # Half as sure as it should be, as a probe is that is held back.
    found = wrong_labels.find(labels, None, softmax(logits / 2, axis=1), CLASSES)
    assert found is not None
    assert found.chance.sum() == pytest.approx(flipped.sum(), rel=0.15, abs=30)
    named = found.indices
    assert found.chance[named].sum() == pytest.approx(flipped[named].sum(), rel=0.2, abs=15)
    assert not share or flipped[named].mean() > 2 * share


def test_a_mistake_that_is_made_often_is_named_though_the_probe_learns_it() -> None:
    random = np.random.default_rng(4)
    truth = np.repeat(np.arange(3), 100)
    features = np.eye(3)[truth] * 4 + random.normal(0, 0.3, (300, 3))
    labels = truth.copy()
    labels[100:106] = 2
    found = wrong_labels.find(labels, features, None, 3)
    assert found is not None
    assert sorted(found.indices) == list(range(100, 106))
    assert found.suggested[found.indices].tolist() == [1] * 6


def test_the_probabilities_are_scikit_learns_out_of_fold(data: tuple) -> None:
    labels, features, _ = data
    split = PredefinedSplit(wrong_labels._folds(labels, None, 5, 51))
    probe = LogisticRegression(C=wrong_labels.STRENGTH, max_iter=1_000, tol=1e-8)
    peer = cross_val_predict(probe, normalize(features.astype(np.float64)), labels, cv=split, method="predict_proba")
    assert sure(labels, features) == pytest.approx(peer, abs=0.03)


def test_a_label_has_no_say_in_its_own_verdict(data: tuple) -> None:
    labels, features, _ = data
    before = sure(labels, features)
    # The folds are dealt out class by class: two rows of one fold may swap their classes without moving another.
    fold = wrong_labels._folds(labels, None, 5, 51)
    first, second = np.flatnonzero((fold == 2) & (labels == 0))[0], np.flatnonzero((fold == 2) & (labels == 4))[0]
    features = features.copy()
    features[[first, second]] = features[[second, first]]
    after = sure(labels, features)
    assert after[first] == pytest.approx(before[second], abs=1e-5)
    assert after[second] == pytest.approx(before[first], abs=1e-5)


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
def test_folds_are_even_in_every_class(grouped: bool) -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2, 3], [500, 101, 7, 2])
    groups = np.where(random.random(len(labels)) < 0.5, -1, np.arange(len(labels)) // 3) if grouped else None
    fold = wrong_labels._folds(labels, groups, 5, 51)
    counts = np.stack([np.bincount(fold[labels == c], minlength=5) for c in range(4)])
    assert counts.sum(axis=0).tolist() == np.bincount(fold).tolist()
    spread = counts.max(axis=1) - counts.min(axis=1)
    if groups is None:
        assert spread.max() <= 1
    else:
        assert spread[0] <= 30
        assert spread[1] <= 12
        for group in np.unique(groups[groups >= 0]):
            assert len(set(fold[groups == group])) == 1
        assert len(set(fold[groups == -1])) == 5


def test_groups_do_not_teach_their_own_members() -> None:
    # Twins with the same wrong label: alone each confirms the other, as a group they cannot.
    labels, features, flipped = drawn(3)
    wrong = np.flatnonzero(flipped)
    twins = np.concatenate([np.arange(ROWS), np.repeat(wrong, 20)])
    groups = np.full(len(twins), -1)
    for number, row in enumerate(wrong):
        groups[twins == row] = number
    alone = wrong_labels.find(labels[twins], features[twins], None, CLASSES)
    together = wrong_labels.find(labels[twins], features[twins], None, CLASSES, groups=groups)
    assert alone is not None
    assert together is not None
    assert together.quality[wrong].mean() < alone.quality[wrong].mean()


def test_what_cannot_be_judged_is_not(data: tuple) -> None:
    labels, features, _ = (column.copy() for column in data)
    labels[0] = -1
    features[1] = np.nan
    features[2] = 0
    features[3, 4] = np.inf
    labels[4] = CLASSES  # a class with one ROI
    found = wrong_labels.find(labels, features, None, CLASSES + 2)
    assert found is not None
    assert np.flatnonzero(np.isnan(found.quality)).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(found.suggested == -1).tolist() == [0, 1, 2, 3, 4]
    assert not set(found.indices) & {0, 1, 2, 3, 4}
    assert found.judged == ROWS - 5


def test_without_features_a_models_probabilities_do(data: tuple) -> None:
    labels, features, _ = data
    probabilities = sure(labels, features)
    labels = labels.copy()
    labels[0], probabilities[1] = -1, np.nan
    found = wrong_labels.find(labels, None, probabilities, CLASSES)
    assert found is not None
    assert np.array_equal(found.quality[2:], get_label_quality_scores(labels[2:], probabilities[2:]))
    assert len(found.indices)
    assert np.flatnonzero(np.isnan(found.quality)).tolist() == [0, 1]
    assert np.flatnonzero(np.isnan(found.chance)).tolist() == [0, 1]


def test_features_of_another_scale_give_the_same(data: tuple, found: WrongLabels) -> None:
    labels, features, _ = data
    again = wrong_labels.find(labels, features.astype(np.float16) * np.float16(8), None, CLASSES)
    assert again is not None
    assert again.quality == pytest.approx(found.quality, abs=0.02)


def test_many_rows_are_thinned_and_rare_classes_kept(monkeypatch: pytest.MonkeyPatch, data: tuple) -> None:
    labels = np.repeat([0, 1, 2], [5_000, 800, 10])
    monkeypatch.setattr(wrong_labels, "ROWS", 1_000)
    kept, weights = wrong_labels._thinned(labels, np.arange(len(labels)), np.random.RandomState(0))
    assert weights is not None
    assert np.bincount(labels[kept]).tolist() == [495, 495, 10]
    assert len(set(kept)) == 1_000
    share = np.bincount(labels[kept], weights=weights) / weights.sum()
    assert share == pytest.approx(np.bincount(labels) / len(labels), rel=1e-5)
    assert weights.mean() == pytest.approx(1, rel=1e-5)

    labels, features, flipped = data
    monkeypatch.setattr(wrong_labels, "ROWS", 400)
    found = wrong_labels.find(labels, features, None, CLASSES)
    assert found is not None
    assert flipped[found.indices[: flipped.sum()]].mean() > 0.6


def test_one_class_or_no_row_has_nothing_wrong() -> None:
    random = np.random.default_rng(0)
    for labels in (np.zeros(20, int), np.full(20, -1), np.zeros(0, int)):
        found = wrong_labels.find(labels, random.normal(size=(len(labels), 4)), None, 3)
        assert found is not None
        assert len(found.indices) == found.judged == 0


def test_it_stops_when_asked_to(data: tuple) -> None:
    class Impatient(Monitor):
        told: list[tuple[int, int]]

        def __init__(self) -> None:
            self.told = []

        def progress(self, done: int, total: int, what: str) -> None:
            self.told.append((done, total))

        def stopping(self) -> bool:
            return len(self.told) > 2

    labels, features, _ = data
    monitor = Impatient()
    assert wrong_labels.find(labels, features, None, CLASSES, monitor=monitor) is None
    assert monitor.told == [(0, 5), (1, 5), (2, 5)]


def test_the_same_twice(data: tuple, found: WrongLabels) -> None:
    labels, features, _ = data
    again = wrong_labels.find(labels, features, None, CLASSES)
    assert again is not None
    assert np.array_equal(again.quality, found.quality)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": None}, "needs embeddings, or predictions with stored logits"),
        ({"labels": np.full(ROWS, 0.5)}, "class numbers"),
        ({"labels": np.full(ROWS, CLASSES)}, "not among the 6 classes"),
        ({"features": np.zeros((3, 2))}, "features of 3 ROIs and labels of 900"),
        ({"groups": np.zeros(3, int)}, "groups of 3 ROIs"),
        ({"features": None, "probabilities": np.zeros((ROWS, 2))}, "of the 6 classes"),
        ({"folds": 1}, "at least 2 folds"),
    ],
    ids=["neither", "not integers", "class", "features", "groups", "probabilities", "folds"],
)
def test_what_cannot_be_used_is_refused(data: tuple, change: dict, said: str) -> None:
    given = {"labels": data[0], "features": data[1], "probabilities": None, "classes": CLASSES} | change
    with pytest.raises(InputError, match=said):
        wrong_labels.find(**given)
