"""Model versions side by side, on samples that none of them has learned from; without FiftyOne."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from .. import intervals, runtimes
from ..artifacts import Artifacts
from ..classifier import metrics, predict, weights
from ..errors import InputError, StorageError
from ..lineage.registry import VersionRecord
from ..runs import Monitor
from .ancestry import Seen

ALL_RIGHT, ALL_WRONG, RIGHT = "all right", "all wrong", "right: "
WRONG_APART = f"{ALL_WRONG}, differently"

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Rows:
    """Labelled samples of one dataset.

    Attributes:
        dataset_id: of the dataset
        ids: N sample ids
        uris: N paths or URIs of media
        labels: N labels
        slices: for each field to slice by, N names of slices (None where there is none)
    """

    dataset_id: str
    ids: Sequence[str]
    uris: Sequence[str]
    labels: Sequence[str]
    slices: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: np.ndarray) -> Rows:
        """The rows for which `chosen`, bool (N,), holds."""
        cut = {name: list(compress(values, chosen)) for name, values in self.slices.items()}
        ids, uris, labels = (list(compress(column, chosen)) for column in (self.ids, self.uris, self.labels))
        return Rows(self.dataset_id, ids, uris, labels, cut)


# Predictions


@dataclass(frozen=True)
class Measured:
    """A version's predictions for N images, and what they took.

    Attributes:
        name: of the version
        classes: C names, in the order of its outputs
        predicted: the position of the top class, int (N,), -1 where the image could not be read
        confidence: of that class, float32 (N,)
        hashes: the SHA-256 of each image's bytes as they were read, None where there were none
        unreadable: (row, reason)
        seconds: for all of them, reading and decoding included
        runtime: what it ran on
        size: bytes of its weights
        framing: how images were framed
        imgsz: pixels
        stopped: whether somebody asked for an end before all were done
    """

    name: str
    classes: tuple[str, ...]
    predicted: np.ndarray
    confidence: np.ndarray
    hashes: list[str | None]
    unreadable: list[tuple[int, str]]
    seconds: float
    runtime: str
    size: int
    framing: str
    imgsz: int
    stopped: bool

    @property
    def rate(self) -> float:
        """Images a second; 0 where none was read."""
        return int((self.predicted >= 0).sum()) / self.seconds if self.seconds else 0.0

    def labels(self) -> list[str | None]:
        """The top class of each image, None where it could not be read."""
        return [self.classes[p] if p >= 0 else None for p in self.predicted]

    def take(self, chosen: np.ndarray) -> Measured:
        """The same for the images for which `chosen`, bool (N,), holds; the time is that of all."""
        rows = np.cumsum(chosen) - 1
        return replace(
            self,
            predicted=self.predicted[chosen],
            confidence=self.confidence[chosen],
            hashes=list(compress(self.hashes, chosen)),
            unreadable=[(int(rows[row]), reason) for row, reason in self.unreadable if chosen[row]],
        )


def measure(
    record: VersionRecord,
    uris: Sequence[str],
    read: Read,
    root: Artifacts,
    folder: Path,
    monitor: Monitor | None = None,
) -> Measured:
    """Applies the published weights of a version to images, as `apply_model` does.

    Args:
        record: the version
        uris: N paths or URIs
        read: bytes of one; called from several threads
        root: the artifact root
        folder: for files that are fetched
        monitor: progress, and whether to stop

    Raises:
        WeightsError: the weights cannot be used
        StorageError: they, or the media as a whole, cannot be fetched
    """
    names = [name for name in ("weights.pt", "model.json") if name not in record.files]
    if names:
        raise StorageError(f"The version {record.name} was published without {' and '.join(names)}: choose another.")
    files = {name: record.files[name] for name in ("weights.pt", "model.json")}
    fetched = root.fetch(record.key, files, folder / "weights" / record.name)
    classifier = weights.load(fetched)
    shutil.rmtree(fetched, ignore_errors=True)  # those of many versions would not fit a small scratch disk
    runtime = runtimes.build(classifier)
    hashes: dict[str, str] = {}
    predicted, confidence = np.full(len(uris), -1), np.zeros(len(uris), np.float32)
    unreadable: list[tuple[int, str]] = []

    def hashing(uri: str) -> bytes:
        data = read(uri)
        hashes[uri] = hashlib.sha256(data).hexdigest()
        return data

    def keep(batch: predict.Predictions) -> None:
        unreadable.extend((int(row), reason) for row, reason in batch.unreadable)
        if batch.ids:
            probabilities, rows = predict.softmax(batch.logits), np.array(batch.ids, int)
            predicted[rows], confidence[rows] = probabilities.argmax(axis=1), probabilities.max(axis=1)

    items = ((str(row), uri) for row, uri in enumerate(uris))
    shown = _Named(monitor or Monitor(), f"Applying {record.name}")
    totals = predict.predict(items, hashing, classifier, runtime, keep, monitor=shown, total=len(uris))
    return Measured(
        name=record.name,
        classes=classifier.names,
        predicted=predicted,
        confidence=confidence,
        hashes=[hashes.get(uri) for uri in uris],
        unreadable=sorted(unreadable),
        seconds=totals.seconds,
        runtime=runtime.description,
        size=record.files["weights.pt"].size,
        framing=classifier.framing,
        imgsz=classifier.imgsz,
        stopped=totals.stopped,
    )


class _Named(Monitor):
    """Says which of several versions is at work."""

    def __init__(self, monitor: Monitor, what: str) -> None:
        self._monitor, self._what = monitor, what

    def progress(self, done: int, total: int, what: str) -> None:
        self._monitor.progress(done, total, self._what)

    def stopping(self) -> bool:
        return self._monitor.stopping()


@dataclass(frozen=True)
class Together:
    """Several versions' predictions for the same samples, and which samples were left out.

    Attributes:
        rows: the M samples that were compared
        measured: of each version, for these M
        by_id: samples left out that a version was trained on
        by_bytes: further ones left out whose image is, byte for byte, one that a version was trained on
        unreadable: (sample id, reason) of further ones that could not be read
        stopped: whether somebody asked for an end; nothing can be compared then
    """

    rows: Rows
    measured: list[Measured]
    by_id: int
    by_bytes: int
    unreadable: list[tuple[str, str]]
    stopped: bool = False

    def left_out(self) -> str:
        """A sentence on what was left out; empty where nothing was."""
        parts = []
        if self.by_id:
            parts.append(f"{self.by_id:,} that one of the versions was trained on")
        if self.by_bytes:
            parts.append(f"{self.by_bytes:,} with exactly the image of one that it was trained on")
        if self.unreadable:
            parts.append(f"{len(self.unreadable):,} that could not be read")
        return f"Left out: {', '.join(parts)}." if parts else ""


def together(
    records: Sequence[VersionRecord],
    rows: Rows,
    known: Seen,
    read: Read,
    root: Artifacts,
    folder: Path,
    monitor: Monitor | None = None,
) -> Together:
    """Applies versions to the same samples, without those that any of them has learned from.

    An image's bytes are looked at while the first version reads it, so that each is read once a version.

    Args:
        records: at least one version
        rows: the samples to choose from
        known: what the versions have learned from
        read: bytes of a path or URI
        root: the artifact root
        folder: for files that are fetched
        monitor: progress, and whether to stop

    Raises:
        WeightsError: some weights cannot be used
        StorageError: they, or the media as a whole, cannot be fetched
    """
    trained_on = known.by_id(rows.dataset_id, rows.ids)
    rows = rows.take(~trained_on)
    done = Together(rows, [], int(trained_on.sum()), 0, [])
    for record in records:
        found = measure(record, done.rows.uris, read, root, folder, monitor)
        if found.stopped:
            return replace(done, stopped=True)
        copies = known.by_bytes(found.hashes)
        bad = [(row, reason) for row, reason in found.unreadable if not copies[row]]
        keep = ~copies & (found.predicted >= 0)
        done = Together(
            done.rows.take(keep),
            [before.take(keep) for before in done.measured] + [found.take(keep)],
            done.by_id,
            done.by_bytes + int(copies.sum()),
            done.unreadable + [(done.rows.ids[row], reason) for row, reason in bad],
        )
    return done


# Comparing


@dataclass(frozen=True)
class Comparison:
    """Versions side by side; figures are as `classifier.metrics.evaluate` gives them.

    Attributes:
        names: V versions
        scores: of each, over the classes of all of them and of the labels
        right: whether each is right, bool (V, M)
        alike: whether all say the same, bool (M,)
        unknown_labels: of each, samples whose label it does not know, which count as wrong
        differences: of each but the first, its figures less the first's: `top1` and `macro_f1`, each with
            the paired 95% interval (value, low, high)
    """

    names: list[str]
    scores: list[dict[str, Any]]
    right: np.ndarray
    alike: np.ndarray
    unknown_labels: list[int]
    differences: list[dict[str, tuple[float, float, float]]]

    def verdicts(self) -> list[str]:
        """For each sample who is right: all, none (alike or differently), or `right: ` and the versions that are."""
        patterns, which = np.unique(self.right, axis=1, return_inverse=True)
        texts = [verdict(list(compress(self.names, pattern)), len(self.names)) for pattern in patterns.T]
        found = [texts[i] for i in which.ravel()]
        return [
            WRONG_APART if text == ALL_WRONG and not alike else text
            for text, alike in zip(found, self.alike, strict=True)
        ]


def verdict(right: Sequence[str], of: int) -> str:
    """What is said of a sample for which these, `of` so many versions, are right."""
    if len(right) in (0, of):
        return ALL_RIGHT if right else ALL_WRONG
    return RIGHT + ", ".join(right)


def compare(rows: Rows, measured: Sequence[Measured]) -> Comparison:
    """Compares versions by their predictions for the same M samples.

    Raises:
        InputError: there is no sample
    """
    if not len(rows):
        raise InputError(
            "There is nothing to compare on: no sample of the target has a label and a readable image, and is none "
            "that the versions were trained on; choose other samples."
        )
    classes = sorted({*rows.labels, *(name for one in measured for name in one.classes)})
    number = {name: i for i, name in enumerate(classes)}
    truth = np.array([number[label] for label in rows.labels])
    chosen = [np.array([number[name] for name in one.classes])[one.predicted] for one in measured]
    return Comparison(
        names=[one.name for one in measured],
        scores=[metrics.evaluate(truth, np.eye(len(classes))[own], classes, slices=rows.slices) for own in chosen],
        right=np.stack([own == truth for own in chosen]),
        alike=(np.stack(chosen) == chosen[0]).all(axis=0),
        unknown_labels=[sum(label not in set(one.classes) for label in rows.labels) for one in measured],
        differences=[intervals.paired(truth, chosen[0], own, len(classes)) for own in chosen[1:]],
    )
