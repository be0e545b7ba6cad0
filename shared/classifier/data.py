"""One pass over the ROIs of a training run: read, check, frame, and lay out for Ultralytics.

`build` turns a table of rows into `<folder>/{train,val,test}/<0000>/<row>.png`. Class folders are numbered, so that a
label may hold any character; `TrainingSet.classes` has their names. Every row that is not used says why.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import ImageError, InputError, StorageError
from ..framing import frame
from ..media import decode, map_threads, read_workers
from ..runs import Monitor

SPLITS = ("train", "val", "test")

# From lossless to small; the first that fits the free space is taken.
_ENCODINGS = ("png", "jpeg95", "jpeg90")

# What training writes beside the images: checkpoints, plots, the version itself.
_RESERVE = 64 * 1024**2
_BLOCK = 4096
_PROBES = 64


@dataclass
class TrainingSet:
    """Framed images on disk, and what became of every row.

    Attributes:
        folder: holds `{train,val,test}/<0000>/*`, one numbered folder a class.
        classes: class names; the position is the class index and the folder's number.
        rows: the input table with the columns `sha256` (of the media's bytes, null where they were not read), `used`
            and `why_left_out` (null where used).
        counts: class -> split -> images used.
        left_out: reason -> number of rows.
        skipped_classes: class -> why none of its rows is used.
        unreadable: (sample id, reason) of each image that could not be read.
        leaks: groups of sample ids with identical bytes that stand in several splits; the copies in train are left out.
        conflicts: groups of sample ids with identical bytes and different labels. They are kept: nobody but a person
            knows which label is right, and a rare class should not lose images silently. Correct them and train again.
        encoding: `png` (lossless), `jpeg95` or `jpeg90`.
        stopped: whether the monitor asked to stop; the set is incomplete then and not to be trained on.
    """

    folder: Path
    classes: list[str]
    rows: pa.Table
    imgsz: int
    framing: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    skipped_classes: dict[str, str] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    encoding: str = "png"
    stopped: bool = False


@dataclass
class _Image:
    """What one row gave: its bytes' hash and either a written file or a reason."""

    sha256: str | None = None
    path: Path | None = None
    problem: str | None = None


def build(
    rows: pa.Table,
    folder: Path,
    read: Callable[[str], bytes],
    *,
    imgsz: int,
    framing: str,
    min_per_class: int = 5,
    classes: Sequence[str] | None = None,
    workers: int | None = None,
    monitor: Monitor | None = None,
) -> TrainingSet:
    """Frames every usable ROI once to `imgsz` x `imgsz` and lays the images out for training.

    Left out, each with its reason: rows without a label or with an unknown split, labels that were not chosen, classes
    with fewer than `min_per_class` usable images or none in train, unreadable images, and copies in train of an image
    that is in val or test as well.

    Args:
        rows: strings `sample_id`, `filepath`, `label`, `split`, and any further columns, which are kept.
        folder: an empty or new folder on the scratch disk.
        read: bytes of one media URI; raises ImageError for one that is missing, StorageError when the store is.
        imgsz: side of the square, in pixels; a multiple of 32.
        framing: one of `framing.FRAMINGS`.
        min_per_class: fewest usable images, over all splits, of a class that is trained on.
        classes: the labels to train on; all by default.
        workers: threads that read, decode and frame; by default what suits the place of the images.
        monitor: told the progress; asked between images whether to stop.

    Raises:
        InputError: an imgsz that cannot be trained, no train or val image, fewer than two classes, or chosen classes
            that no row has.
        StorageError: the scratch disk cannot hold the framed images.
    """
    monitor = monitor or Monitor()
    if imgsz < 32 or imgsz % 32:
        # Ultralytics would round it up, and then train on another size than that of the framed images.
        raise InputError(f"imgsz is {imgsz}; choose a multiple of 32 pixels, such as 224.")
    labels, splits = rows["label"].to_pylist(), rows["split"].to_pylist()
    reasons, skipped = _screen(labels, splits, min_per_class, classes)
    wanted = [i for i, reason in enumerate(reasons) if reason is None]
    names = sorted({labels[i] for i in wanted})
    _require_trainable(names, [splits[i] for i in wanted], skipped)

    paths = rows["filepath"].to_pylist()
    folder.mkdir(parents=True, exist_ok=True)
    encoding = _choose_encoding([paths[i] for i in wanted], folder, read, imgsz, framing)
    number = {name: f"{i:04d}" for i, name in enumerate(names)}
    for name in names:
        for split in SPLITS:
            (folder / split / number[name]).mkdir(parents=True, exist_ok=True)

    def make(i: int) -> _Image:
        stem = folder / splits[i] / number[labels[i]] / f"{i:07d}"
        return _make(paths[i], stem, read, imgsz, framing, encoding)

    images: list[_Image] = [_Image()] * len(labels)
    stopped = False
    workers = workers or read_workers(paths[wanted[0]])
    results = map_threads(make, wanted, workers, ahead=4 * workers)
    for done, (i, image) in enumerate(zip(wanted, results, strict=False), start=1):
        images[i] = image
        reasons[i] = image.problem
        monitor.progress(done, len(wanted), "Framing ROIs")
        if stopped := monitor.stopping():
            _close(results)
            break

    ids = rows["sample_id"].to_pylist()
    result = TrainingSet(folder, names, rows, imgsz, framing, encoding=encoding, stopped=stopped)
    result.unreadable = [(ids[i], str(images[i].problem)) for i in wanted if images[i].problem]
    if stopped:
        reasons = [reason or (None if images[i].path else "the run was stopped") for i, reason in enumerate(reasons)]
    else:
        _leave_out_leaks(result, ids, labels, splits, images, reasons)
        _leave_out_depleted(labels, splits, reasons, skipped, min_per_class)
        used = [i for i, reason in enumerate(reasons) if reason is None]
        result.classes = sorted({labels[i] for i in used})
        _require_trainable(result.classes, [splits[i] for i in used], skipped, result.unreadable)
        for i, image in enumerate(images):
            if image.path and reasons[i] is not None:
                image.path.unlink()
        _renumber(folder, [number[name] for name in result.classes])

    result.skipped_classes = skipped
    result.left_out = dict(Counter(reason for reason in reasons if reason is not None))
    result.counts = {name: dict.fromkeys(SPLITS, 0) for name in result.classes}
    for label, split, reason in zip(labels, splits, reasons, strict=True):
        if reason is None:
            result.counts[label][split] += 1
    result.rows = (
        rows.append_column("sha256", pa.array([image.sha256 for image in images], pa.string()))
        .append_column("used", pa.array([reason is None for reason in reasons], pa.bool_()))
        .append_column("why_left_out", pa.array(reasons, pa.string()))
    )
    return result


def _screen(
    labels: list[str | None], splits: list[str | None], min_per_class: int, classes: Sequence[str] | None
) -> tuple[list[str | None], dict[str, str]]:
    """What can be said before any image is read: a reason (or None) per row, and the classes left out."""
    chosen = None if classes is None else set(classes)
    if chosen is not None and (unknown := chosen - set(labels)):
        raise InputError(f"No ROI has the label {_list(unknown)}; choose classes that the view holds.")
    reasons: list[str | None] = []
    for label, split in zip(labels, splits, strict=True):
        if not label:
            reasons.append("no label")
        elif chosen is not None and label not in chosen:
            reasons.append("its class was not chosen")
        elif not split:
            reasons.append("in no split")
        elif split not in SPLITS:
            reasons.append(f"unknown split {split!r}")
        else:
            reasons.append(None)
    skipped: dict[str, str] = {}
    _leave_out_depleted(labels, splits, reasons, skipped, min_per_class)
    return reasons, skipped


def _leave_out_depleted(
    labels: Sequence[str | None],
    splits: Sequence[str | None],
    reasons: list[str | None],
    skipped: dict[str, str],
    min_per_class: int,
) -> None:
    """Leaves out, in place, the classes with too few rows still in use, or with none of them in train."""
    total: Counter[str] = Counter()
    train: Counter[str] = Counter()
    for label, split, reason in zip(labels, splits, reasons, strict=True):
        if reason is None and label is not None:
            total[label] += 1
            train[label] += split == "train"
    for label, n in total.items():
        if n < min_per_class:
            skipped[label] = f"only {n} usable image{'s' * (n != 1)}, fewer than {min_per_class}"
        elif not train[label]:
            skipped[label] = "none of its images is in train"
    for i, label in enumerate(labels):
        if reasons[i] is None and label in skipped:
            reasons[i] = f"class left out: {skipped[label]}"


def _require_trainable(
    names: Sequence[str], splits: Sequence[str], skipped: dict[str, str], unreadable: Sequence[tuple[str, str]] = ()
) -> None:
    """Refuses what no classifier can be trained or judged on."""
    why = "".join(f"; {name}: {reason}" for name, reason in sorted(skipped.items())[:5])
    if unreadable:
        why += f"; {len(unreadable)} images cannot be read, the first because {unreadable[0][1]}"
    if "train" not in splits:
        raise InputError(f"No labelled ROI is in the train split; run assign_splits first{why}.")
    if len(names) < 2:
        what = f"only {names[0]!r}" if names else "none"
        raise InputError(f"A classifier needs at least two classes with enough images, and there is {what}{why}.")
    if "val" not in splits:
        raise InputError(f"No ROI to train on is in the val split; assign splits so that some are{why}.")


def _make(uri: str, stem: Path, read: Callable[[str], bytes], imgsz: int, framing: str, encoding: str) -> _Image:
    """Reads, hashes, frames and writes one ROI."""
    sha256 = None
    try:
        data = read(uri)
        sha256 = hashlib.sha256(data).hexdigest()
        square = frame(decode(data), imgsz, framing)
    except ImageError as error:
        return _Image(sha256, problem=f"unreadable: {error}")
    path = stem.with_suffix(".png" if encoding == "png" else ".jpg")
    try:
        path.write_bytes(encode(square, encoding))
    except OSError as error:
        raise StorageError(
            f"The framed images could not be written to {stem.parents[2]} ({error.strerror}); "
            "free some space or point TMPDIR at a larger disk."
        ) from error
    return _Image(sha256, path)


def encode(rgb: np.ndarray, encoding: str) -> bytes:
    """An (H, W, 3) uint8 RGB array as the bytes of a `png`, `jpeg95` (full colour resolution) or `jpeg90` file."""
    import cv2

    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if encoding == "png":
        # Level 1: within a few percent of the size of slower levels on small, smooth squares.
        ok, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    else:
        sampling = (
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if encoding == "jpeg95" else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        )
        quality = int(encoding.removeprefix("jpeg"))
        ok, data = cv2.imencode(
            ".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        )
    if not ok:
        raise StorageError(f"An image of {rgb.shape} pixels could not be encoded as {encoding}.")
    return data.tobytes()


def _choose_encoding(paths: list[str], folder: Path, read: Callable[[str], bytes], imgsz: int, framing: str) -> str:
    """The best encoding whose images fit the free space, measured on some of the ROIs where space is short.

    Raises:
        StorageError: even the smallest does not fit.
    """
    free = shutil.disk_usage(folder).free - _RESERVE
    if len(paths) * _on_disk(3 * imgsz**2 + 1024) <= free:
        return _ENCODINGS[0]
    sizes: dict[str, list[int]] = {encoding: [] for encoding in _ENCODINGS}
    for path in paths[:: max(1, len(paths) // _PROBES)]:
        try:
            square = frame(decode(read(path)), imgsz, framing)
        except ImageError:
            continue
        for encoding in _ENCODINGS:
            sizes[encoding].append(_on_disk(len(encode(square, encoding))))
    needed = 0
    for encoding in _ENCODINGS:
        # A tenth more than the sample says: the mean of some dozens of images is no better known.
        needed = int(1.1 * len(paths) * np.mean(sizes[encoding] or [_BLOCK]))
        if needed <= free:
            return encoding
    raise StorageError(
        f"{len(paths):,} ROIs framed to {imgsz} pixels need about {(needed + _RESERVE) / 2**20:,.0f} MiB on the "
        f"scratch disk, and {folder} has {(free + _RESERVE) / 2**20:,.0f} MiB free; train on a smaller view or imgsz, "
        "or point TMPDIR at a larger disk."
    )


def _on_disk(size: int) -> int:
    """Bytes that a file of `size` bytes takes, in whole blocks."""
    return -(-size // _BLOCK) * _BLOCK


def _leave_out_leaks(
    result: TrainingSet,
    ids: list[str],
    labels: list[str],
    splits: list[str],
    images: list[_Image],
    reasons: list[str | None],
) -> None:
    """Finds identical images; those of train which val or test hold as well are left out, in place."""
    groups: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        if image.path and image.sha256:
            groups.setdefault(image.sha256, []).append(i)
    for group in groups.values():
        if len({labels[i] for i in group}) > 1:
            result.conflicts.append([ids[i] for i in group])
        held_out = {splits[i] for i in group}
        if len(held_out) > 1:
            result.leaks.append([ids[i] for i in group])
            for i in group:
                if splits[i] == "train":
                    reasons[i] = "the same image is in val or test"


def _renumber(folder: Path, kept: list[str]) -> None:
    """Closes the gaps that classes left out after reading would leave in the folder numbers."""
    for split in SPLITS:
        for old in (folder / split).iterdir():
            if old.name not in kept:
                shutil.rmtree(old)
        for new, name in enumerate(kept):  # ascending, so a target is always free
            (folder / split / name).rename(folder / split / f"{new:04d}")


def _close(results: Iterator[_Image]) -> None:
    """Ends a generator early, so that its threads do."""
    close = getattr(results, "close", None)
    if close is not None:
        close()


def _list(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)[:5]) + (" and others" if len(names) > 5 else "")
