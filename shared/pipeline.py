"""Many images through a network: threads decode, a runtime computes and a thread writes, all at once."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from .errors import ImageError
from .framing import frame
from .media import decode, map_threads, read_workers
from .runs import Monitor

# Images that a thread decodes in a row: handing over single ones costs a few percent.
_GROUP = 8
# Batches that may wait for the writer, beside the one it writes.
_UNWRITTEN = 2


Key = TypeVar("Key")


class Patch(NamedTuple):
    """A part of an image: where the image is, and the box in it.

    Attributes:
        uri: path or URI of the image
        box: left, top, width and height, each as a share of the image's (0 to 1), as FiftyOne has them
    """

    uri: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Outputs(Generic[Key]):
    """What came of one batch.

    Attributes:
        ids: n images that could be read
        values: float32 (n, K), what the network gave, in their order
        unreadable: (id, reason) of those that could not
    """

    ids: list[Key]
    values: np.ndarray
    unreadable: list[tuple[Key, str]]


@dataclass(frozen=True)
class Totals:
    """What came of all: images computed, images unreadable, seconds, and whether somebody asked for an early end."""

    done: int
    unreadable: int
    seconds: float
    stopped: bool


def stream(
    items: Iterable[tuple[Key, str | Patch]],
    read: Callable[[str], bytes],
    compute: Callable[[np.ndarray], np.ndarray],
    sink: Callable[[Outputs[Key]], None],
    *,
    imgsz: int,
    framing: str,
    batch_size: int,
    workers: int | None = None,
    monitor: Monitor | None = None,
    total: int | None = None,
    what: str = "Computing",
) -> Totals:
    """Sends images through a network; one that cannot be read is reported and does not stop the rest.

    Memory does not grow with the number of images: a few batches are in flight. An error of any
    stage ends the others and is raised here; what was computed before it has been written.

    Args:
        items: (id, path or URI, or a patch of one) of each image; taken by this thread, as far as needed
        read: the bytes of a path or URI; called from several threads
        compute: images, uint8 (n, imgsz, imgsz, 3) RGB, to float32 (n, K); called from this thread
        sink: takes each batch, in order; called from one thread, not this one
        imgsz: side of the square that the network sees, in pixels
        framing: how an image becomes that square, see `framing.frame`
        batch_size: images that are computed at a time
        workers: decoding threads; by default what suits the place of the first image
        monitor: told of each batch, and asked after each whether to stop
        total: number of images, for progress
        what: what is being done, for progress

    Raises:
        Exception: whatever `items`, `read`, `compute` or `sink` raised, except `ImageError` of `read`
    """
    monitor = monitor or Monitor()
    began = time.monotonic()
    done = unreadable = 0
    stopped = False
    with closing(_batches(items, read, imgsz, framing, batch_size, workers)) as batches, _Writer(sink) as writer:
        for batch in batches:
            values = compute(batch.images)
            writer.write(Outputs(batch.ids, values, batch.unreadable))
            done += len(batch.ids)
            unreadable += len(batch.unreadable)
            monitor.progress(done + unreadable, total or done + unreadable, what)
            if monitor.stopping():
                stopped = True
                break
    return Totals(done, unreadable, time.monotonic() - began, stopped)


# Reading


@dataclass
class _Batch:
    """Images on their way to the network, each group of them filled in by another thread."""

    images: np.ndarray
    ids: list[Any] = field(default_factory=list)
    unreadable: list[tuple[Any, str]] = field(default_factory=list)


@dataclass
class _Group:
    """A part of a batch that one thread decodes."""

    batch: _Batch
    start: int
    items: list[tuple[Any, str | Patch]]
    reasons: list[str | None] = field(default_factory=list)


def _batches(
    items: Iterable[tuple[Any, str | Patch]],
    read: Callable[[str], bytes],
    side: int,
    framing: str,
    size: int,
    workers: int | None,
) -> Generator[_Batch]:
    """Framed images in batches of `size`, in order, decoded about two batches ahead."""
    items = iter(items)
    first = next(items, None)
    if first is None:
        return
    workers = workers or read_workers(_uri(first[1]))

    def fill(group: _Group) -> _Group:
        opened = _Opened(read)
        for place, (_, source) in enumerate(group.items, group.start):
            try:
                group.batch.images[place] = frame(opened.pixels(source), side, framing)
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


def _groups(items: Iterator[tuple[Any, str | Patch]], size: int, side: int) -> Iterator[_Group]:
    while chosen := list(islice(items, size)):
        # The threads write straight into the batch: nothing is copied together afterwards.
        batch = _Batch(np.empty((len(chosen), side, side, 3), np.uint8))
        for start in range(0, len(chosen), _GROUP):
            yield _Group(batch, start, chosen[start : start + _GROUP])


def _uri(source: str | Patch) -> str:
    return source.uri if isinstance(source, Patch) else source


class _Opened:
    """Decodes images and patches; the patches of one image, which follow each other, from one decoding."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._last: tuple[str, np.ndarray | ImageError] | None = None

    def pixels(self, source: str | Patch) -> np.ndarray:
        """The image, or the part of it.

        Raises:
            ImageError: it cannot be read, or the box has no pixel of it
        """
        if not isinstance(source, Patch):
            return decode(self._read(source))
        if self._last is None or self._last[0] != source.uri:
            try:
                self._last = source.uri, decode(self._read(source.uri))
            except ImageError as error:
                self._last = source.uri, error
        image = self._last[1]
        if isinstance(image, ImageError):
            raise ImageError(str(image))
        return _cut(image, source)


def _cut(image: np.ndarray, patch: Patch) -> np.ndarray:
    """The pixels that a box touches, as far as they are in the image."""
    try:
        x, y, w, h = map(float, patch.box)
    except (TypeError, ValueError):
        x = y = w = h = math.nan
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ImageError(f"A box in {patch.uri} is not made of numbers.")
    height, width = image.shape[:2]
    # Bounded before they become pixels: a box may be of any size.
    left, right = (min(max(share, 0.0), 1.0) * width for share in (x, x + w))
    top, bottom = (min(max(share, 0.0), 1.0) * height for share in (y, y + h))
    part = image[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
    if not part.size or w <= 0 or h <= 0:
        raise ImageError(f"A box in {patch.uri} has no pixel of the image.")
    return part


# Writing


class _Writer:
    """Hands batches to a sink in a thread of its own; as a context it ends when all are written."""

    def __init__(self, sink: Callable[[Outputs[Any]], None]) -> None:
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

    def write(self, outputs: Outputs[Any]) -> None:
        """Queues one batch; waits while too many are queued, and raises what the sink raised."""
        before = self._waiting[-1] if self._waiting else None
        self._waiting.append(self._pool.submit(self._write_after, before, outputs))
        while len(self._waiting) > 1 + _UNWRITTEN:
            self._waiting.popleft().result()

    def _write_after(self, before: Future[None] | None, outputs: Outputs[Any]) -> None:
        # The one before is done, since there is one thread; if it failed, so does this one.
        if before is not None:
            before.result()
        self._sink(outputs)
