"""Temperatures against scikit-learn's temperature scaling, calibration errors against its reliability curve."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from shared.classifier import metrics
from shared.errors import InputError
from shared.review import calibration

CLASSES = 7


def drawn(temperature: float, n: int = 4_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels as they are when the logits are too large by a factor."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, CLASSES))
    sure = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (random.random((n, 1)) > sure.cumsum(axis=1)).sum(axis=1).clip(max=CLASSES - 1)
    return (logits * temperature).astype(np.float32), labels


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_of_drawn_labels_is_found(true: float) -> None:
    assert calibration.temperature(*drawn(true, 40_000)) == pytest.approx(true, rel=0.03)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its logits."""

    def fit(self, logits: np.ndarray, labels: np.ndarray) -> "Given":
        self.classes_ = np.arange(CLASSES)
        return self

    def predict(self, logits: np.ndarray) -> np.ndarray:
        return logits.argmax(axis=1)

    def decision_function(self, logits: np.ndarray) -> np.ndarray:
        return logits


def test_the_temperature_is_scikit_learns() -> None:
    logits, labels = drawn(2.0)
    peer = CalibratedClassifierCV(FrozenEstimator(Given().fit(logits, labels)), method="temperature", cv=2)
    peer.fit(logits, labels)
    ours = calibration.apply(logits, calibration.temperature(logits, labels))
    assert ours == pytest.approx(peer.predict_proba(logits), abs=1e-4)


def test_no_other_temperature_has_a_smaller_loss() -> None:
    logits, labels = drawn(1.7, 500)
    best = calibration.temperature(logits, labels)
    losses = [log_loss(labels, calibration.apply(logits, t)) for t in (best, best * 0.98, best * 1.02, 1.0)]
    assert min(losses) == losses[0]


def test_log_probabilities_do_as_well_as_logits() -> None:
    logits, labels = drawn(2.0)
    logs = np.log(calibration.apply(logits, 1.0))
    assert calibration.temperature(logs, labels) == pytest.approx(calibration.temperature(logits, labels), rel=1e-4)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = drawn(2.0, 500)
    whole = calibration.temperature(logits, labels)
    monkeypatch.setattr(calibration, "BLOCK", 7 * CLASSES)
    assert calibration.temperature(logits, labels) == pytest.approx(whole, rel=1e-4)


def test_labels_that_are_all_right_do_not_make_certainty() -> None:
    logits, _ = drawn(1.0, 20)
    assert calibration.temperature(logits, logits.argmax(axis=1)) == pytest.approx(calibration.LOWEST, rel=0.01)


def test_applying_keeps_the_prediction_and_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0, -1e4], [3, 1, 2]], dtype=np.float32)
    found = calibration.apply(logits, 0.05)
    assert found.argmax(axis=1).tolist() == [0, 0]
    assert found.sum(axis=1) == pytest.approx(1)
    assert logits[0, 0] == np.float32(1e4)
    powers = np.exp(logits[1] / 2)
    assert calibration.apply(logits, 2.0)[1] == pytest.approx(powers / powers.sum())


def test_the_error_is_that_of_scikit_learns_reliability_curve() -> None:
    logits, labels = drawn(2.0)
    sure = calibration.apply(logits, 1.0)
    confidence, right = sure.max(axis=1), sure.argmax(axis=1) == labels
    shares, means = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    counts = np.histogram(confidence, 15, (0, 1))[0]
    peer = (counts[counts > 0] * np.abs(shares - means)).sum() / len(labels)
    assert peer > 0.05
    assert calibration.expected_error(sure, labels) == pytest.approx(peer, abs=1e-6)


def test_the_error_is_that_of_a_versions_card() -> None:
    logits, labels = drawn(2.0, 300)
    # On the bounds of bins as well.
    sure = np.round(calibration.apply(logits, 1.0) * 15) / 15
    card, _ = metrics.calibration(sure.max(axis=1), sure.argmax(axis=1) == labels)
    assert calibration.expected_error(sure, labels) == pytest.approx(card, abs=1e-6)


def test_the_error_of_a_few_rows_by_hand() -> None:
    # Two of confidence 0.8, one of them right; one of 1, which is right.
    sure = np.array([[0.8, 0.2], [0.2, 0.8], [1, 0]])
    assert calibration.expected_error(sure, np.array([0, 0, 0])) == pytest.approx(2 / 3 * 0.3)


def test_a_temperature_mends_what_is_too_sure() -> None:
    logits, labels = drawn(3.0)
    found = calibration.calibrate(logits, labels)
    assert found.images == 4_000
    assert found.temperature == calibration.temperature(logits, labels)
    assert found.before == calibration.expected_error(calibration.apply(logits, 1.0), labels)
    assert found.after < 0.03 < 0.15 < found.before


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "nothing to calibrate on"),
        (np.zeros((2, 3)), np.zeros(1, int), "as many images"),
        (np.zeros((1, 3)), np.array([3]), "not among the 3 classes"),
        (np.zeros((1, 3)), np.array([-1]), "not among the 3 classes"),
        (np.full((1, 3), np.nan), np.array([0]), "not numbers"),
    ],
    ids=["none", "unlike", "above", "below", "nan"],
)
def test_what_cannot_be_used_is_refused(logits: np.ndarray, labels: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        calibration.temperature(logits, labels)
    with pytest.raises(InputError, match=said):
        calibration.expected_error(logits, labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_0(temperature: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        calibration.apply(np.zeros((1, 2)), temperature)
