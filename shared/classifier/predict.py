"""Classifying many images: threads decode, a runtime infers and a thread writes, all at once."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np

from ..errors import ImageError
from ..framing import frame
from ..media import decode, map_threads, read_workers
from ..runs import Monitor
from .runtimes import Runtime
from .weights import Classifier

# Images that a thread decodes in a row: handing over single ones costs a few percent.
_GROUP = 8
# Batches that may wait for the writer, beside the one it writes.
_UNWRITTEN = 2


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


@dataclass(frozen=True)
class Totals:
    """What came of all: images predicted, images unreadable, seconds, and whether somebody asked for an early end."""

    predicted: int
    unreadable: int
    seconds: float
    stopped: bool


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
    """Classifies images; one that cannot be read is reported and does not stop the rest.

    Memory does not grow with the number of images: a few batches are in flight. An error of any
    stage ends the others and is raised here; what was predicted before it has been written.

    Args:
        items: (id, path or URI) of each image; taken by this thread, as far as needed
        read: the bytes of a path or URI; called from several threads
        classifier: what the images are made ready for
        runtime: the same classifier on some hardware
        sink: takes each batch, in order; called from one thread, not this one
        workers: decoding threads; by default what suits the place of the first image
        monitor: told of each batch, and asked after each whether to stop
        total: number of images, for progress

    Raises:
        Exception: whatever `items`, `read`, `runtime` or `sink` raised, except `ImageError` of `read`
    """
    monitor = monitor or Monitor()
    began = time.monotonic()
    predicted = unreadable = 0
    stopped = False
    with closing(_batches(items, read, classifier, runtime.batch_size, workers)) as batches, _Writer(sink) as writer:
        for batch in batches:
            logits = runtime(batch.images)
            writer.write(Predictions(batch.ids, logits, batch.unreadable))
            predicted += len(batch.ids)
            unreadable += len(batch.unreadable)
            monitor.progress(predicted + unreadable, total or predicted + unreadable, "Classifying ROIs")
            if monitor.stopping():
                stopped = True
                break
    return Totals(predicted, unreadable, time.monotonic() - began, stopped)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of logits (N, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# Reading


@dataclass
class _Batch:
    """Images on their way to the runtime, each group of them filled in by another thread."""

    images: np.ndarray
    ids: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Group:
    """A part of a batch that one thread decodes."""

    batch: _Batch
    start: int
    items: list[tuple[str, str]]
    reasons: list[str | None] = field(default_factory=list)


def _batches(
    items: Iterable[tuple[str, str]],
    read: Callable[[str], bytes],
    classifier: Classifier,
    size: int,
    workers: int | None,
) -> Generator[_Batch]:
    """Framed images in batches of `size`, in order, decoded about two batches ahead."""
    items = iter(items)
    first = next(items, None)
    if first is None:
        return
    workers = workers or read_workers(first[1])
    side, framing = classifier.imgsz, classifier.framing

    def fill(group: _Group) -> _Group:
        for place, (_, uri) in enumerate(group.items, group.start):
            try:
                group.batch.images[place] = frame(decode(read(uri)), side, framing)
                group.reasons.append(None)
            except ImageError as error:
                group.reasons.append(str(error))
        return group

    groups = _groups(chain([first], items), size, side)
    reasons: list[str | None] = []
    # What a thread has begun counts as ahead.
    with closing(map_threads(fill, groups, workers, workers + 2 * -(-size // _GROUP))) as filled:
        for group in filled:
            batch = group.batch
            for (name, _), reason in zip(group.items, group.reasons, strict=True):
                if reason is None:
                    batch.ids.append(name)
                else:
                    batch.unreadable.append((name, reason))
            reasons += group.reasons
            if len(reasons) == len(batch.images):
                if batch.unreadable:
                    batch.images = batch.images[[reason is None for reason in reasons]]
                reasons = []
                yield batch


def _groups(items: Iterator[tuple[str, str]], size: int, side: int) -> Iterator[_Group]:
    while chosen := list(islice(items, size)):
        # The threads write straight into the batch: nothing is copied together afterwards.
        batch = _Batch(np.empty((len(chosen), side, side, 3), np.uint8))
        for start in range(0, len(chosen), _GROUP):
            yield _Group(batch, start, chosen[start : start + _GROUP])


# Writing


class _Writer:
    """Hands batches to a sink in a thread of its own; as a context it ends when all are written."""

    def __init__(self, sink: Callable[[Predictions], None]) -> None:
        self._sink = sink
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mbari-writer")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._pool.shutdown(wait=True)
        # An error that is under way says more than what it may have brought about here.
        if error is None:
            for job in self._waiting:
                job.result()

    def write(self, predictions: Predictions) -> None:
        """Queues one batch; waits while too many are queued, and raises what the sink raised."""
        before = self._waiting[-1] if self._waiting else None
        self._waiting.append(self._pool.submit(self._write_after, before, predictions))
        while len(self._waiting) > 1 + _UNWRITTEN:
            self._waiting.popleft().result()

    def _write_after(self, before: Future[None] | None, predictions: Predictions) -> None:
        # The one before is done, since there is one thread; if it failed, so does this one.
        if before is not None:
            before.result()
        self._sink(predictions)
