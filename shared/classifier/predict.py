"""Classifying many images: each framed as its classifier wants it, and what a person makes of the logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..pipeline import Outputs, Totals, stream
from ..runs import Monitor
from ..runtimes import Runtime
from .weights import Classifier


@dataclass(frozen=True)
class Predictions:
    """What came of one batch.

    Attributes:
        ids: n images that could be read
        logits: float32 (n, C), in their order
        unreadable: (id, reason) of those that could not
    """

    ids: list[str]
    logits: np.ndarray
    unreadable: list[tuple[str, str]]


def predict(
    items: Iterable[tuple[str, str]],
    read: Callable[[str], bytes],
    classifier: Classifier,
    runtime: Runtime,
    sink: Callable[[Predictions], None],
    *,
    workers: int | None = None,
    monitor: Monitor | None = None,
    total: int | None = None,
) -> Totals:
    """Classifies images, see `pipeline.stream`, which says what the arguments are and what is raised.

    Args:
        items: (id, path or URI) of each image
        read: the bytes of a path or URI
        classifier: what the images are made ready for
        runtime: the same classifier on some hardware
        sink: takes each batch
        workers: decoding threads
        monitor: progress, and whether to stop
        total: number of images, for progress
    """

    def put(batch: Outputs[str]) -> None:
        sink(Predictions(batch.ids, batch.values, batch.unreadable))

    return stream(
        items,
        read,
        runtime,
        put,
        imgsz=classifier.imgsz,
        framing=classifier.framing,
        batch_size=runtime.batch_size,
        workers=workers,
        monitor=monitor,
        total=total,
        what="Classifying ROIs",
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of logits (N, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
