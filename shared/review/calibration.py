"""Probabilities that mean what they say: temperature scaling, and how far off they were before and after.

A temperature changes no class that is predicted, only how sure the model says it is (Guo et al. 2017, "On Calibration
of Modern Neural Networks"). It is fitted where the model has learned nothing from: on `val`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from ..errors import InputError

# Where every label of a small `val` is right, the most likely temperature is 0: certainty that nothing bears out.
LOWEST, HIGHEST = 0.05, 20.0
BINS = 15  # as in Guo et al.
BLOCK = 4_000_000  # logits at a time: some 100 MB


@dataclass(frozen=True)
class Calibration:
    """What a temperature does for a model's probabilities.

    Attributes:
        temperature: what its logits are divided by; above 1 it was too sure, below 1 not sure enough
        before: expected calibration error of its probabilities as they were, 0 to 1
        after: the same with the temperature
        images: how many it was fitted on, and both errors were measured on
    """

    temperature: float
    before: float
    after: float
    images: int


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fits the temperature and measures what it does. One number is fitted, so both are done on the same images.

    Args and errors are those of `temperature`.
    """
    found = temperature(logits, labels)
    before, after = (expected_error(apply(logits, t), labels) for t in (1.0, found))
    return Calibration(found, before, after, len(labels))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least negative log-likelihood, between 0.05 and 20.

    That likelihood is unimodal in the temperature (it is convex in its inverse), so the minimum is the only one.

    Args:
        logits: what the model gives before the softmax, (N, C); log-probabilities do as well.
        labels: the true classes, (N,), integers below C.

    Raises:
        InputError: no images, or logits or labels that cannot be used.
    """
    logits, labels = _checked(logits, labels, "logits")
    step = max(1, BLOCK // logits.shape[1])

    def loss(log_temperature: float) -> float:
        scale, total = np.exp(-log_temperature), 0.0
        for start in range(0, len(logits), step):
            scaled = logits[start : start + step] * scale
            scaled -= scaled.max(axis=1, keepdims=True)
            true = scaled[np.arange(len(scaled)), labels[start : start + step]]
            total += float((np.log(np.exp(scaled).sum(axis=1)) - true).sum(dtype=np.float64))
        return total / len(logits)

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def apply(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at a temperature.

    Args:
        logits: (N, C), or log-probabilities.
        temperature: above 0; 1 leaves the model's own probabilities.

    Returns:
        softmax(logits / temperature), float32 (N, C).

    Raises:
        InputError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise InputError(f"A temperature is above 0, not {temperature}.")
    probabilities = np.array(logits, dtype=np.float32)
    probabilities -= probabilities.max(axis=1, keepdims=True)
    probabilities /= np.float32(temperature)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def expected_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: by how much confidence and share of right ones differ, over equal bins of confidence.

    Naeini, Cooper and Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", for the
    class that is predicted, as in Guo et al.

    Args:
        probabilities: (N, C), rows that sum to 1.
        labels: the true classes, (N,).
        bins: how many bins of confidence, equally wide from 0 to 1.

    Returns:
        0 (says what is so) to 1.

    Raises:
        InputError: no images, or probabilities or labels that cannot be used.
    """
    probabilities, labels = _checked(probabilities, labels, "probabilities")
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(labels)), predicted].astype(np.float64)
    edges = np.arange(bins + 1) / bins
    # A bin is without its lower and with its upper bound, as in the metrics of a version.
    place = np.digitize(confidence, edges[1:-1], right=True)
    difference = np.bincount(place, weights=confidence - (predicted == labels), minlength=bins)
    return float(np.abs(difference).sum() / len(labels))


def _checked(rows: np.ndarray, labels: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = np.asarray(rows), np.asarray(labels)
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        raise InputError(f"Calibration needs {what} of as many images as there are labels.")
    if not len(labels):
        raise InputError(f"There is nothing to calibrate on: no image has both a label and {what}.")
    if labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise InputError(f"A label to calibrate on is not among the {rows.shape[1]} classes.")
    if not np.isfinite(rows).all():
        raise InputError(f"Some {what} are not numbers; apply the model again with logits stored.")
    return rows, labels
