"""From labelled rows to a published model version: the whole of a training run, without FiftyOne.

Data are framed once, a network is fine-tuned, what was trained is measured by the same `predict`
that will apply it, and everything that says where it comes from is published with it: files
first, the record last, so that no half of a version is ever visible.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifacts import Artifacts, scratch
from ..classifier import data, train, weights
from ..errors import AccessError, InputError, StorageError
from ..lineage import manifest
from ..lineage.card import Card, Context
from ..lineage.registry import Registry, VersionRecord, check_name, is_registered, new_version
from ..runs import Monitor, claim
from .publishing import Base, fetch_version, publish, to_json

if TYPE_CHECKING:
    import pyarrow as pa
    from pymongo.database import Database


@dataclass(frozen=True)
class Options:
    """How to train; the fields are the parameters of the operator `train_classifier`."""

    model_name: str
    base_weights: str = "yolov8n-cls.pt"
    epochs: int = 50
    imgsz: int = 224
    batch: int = -1
    framing: str = "pad"
    augmentation: str = "default"
    balance: str = "none"
    min_per_class: int = 5
    classes: tuple[str, ...] = ()
    patience: int = 10
    seed: int = 51
    device: str = "auto"
    resume: bool = True


@dataclass(frozen=True)
class Surroundings:
    """Where a training run happens: what it reads from, publishes to and is recorded in.

    Attributes:
        root: the artifact root
        db: the database of the registry and the runs
        read: bytes of a media path or URI
        secrets: for weights by URI, and the prefixes of trusted ones
        run_id: the id of the run's record, or None
        by: who started it
        dataset: the name of the dataset
        dataset_id: its id
        label_field: the field whose labels are learned
        extra_views: names of the further datasets and views trained on
        context: what else the card says of the data
        base_sha256: what the base weights must be, where that is known; else whatever they are
        repeats: the version that is trained again
    """

    root: Artifacts
    db: Database
    read: Callable[[str], bytes]
    secrets: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    by: str | None = None
    dataset: str | None = None
    dataset_id: str | None = None
    label_field: str = "ground_truth"
    extra_views: tuple[str, ...] = ()
    context: Context = field(default_factory=Context)
    base_sha256: str | None = None
    repeats: VersionRecord | None = None


@dataclass
class Outcome:
    """What came of a training run.

    Attributes:
        record: the published version, or None when the run was stopped first
        trained: what the trainer reports
        training_set: the rows, with what was used, what was not, and why
        metrics: by split
        predictions: rows of (dataset id, sample id, label, confidence) for val and test
        seconds: by stage
        card: the version's, as first written
    """

    record: VersionRecord | None
    trained: train.Trained | None
    training_set: data.TrainingSet
    metrics: dict[str, Any] = field(default_factory=dict)
    predictions: list[tuple[str, str, str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    card: Card | None = None


def run(rows: pa.Table, options: Options, where: Surroundings, monitor: Monitor | None = None) -> Outcome:
    """Trains on labelled rows and publishes the version.

    Args:
        rows: columns dataset, dataset_id, sample_id, source_id, filepath, label, label_id, split, group
        options: how to train
        where: what to read from and publish to
        monitor: progress, and whether to stop

    Returns:
        the outcome; its `record` is None if the run was stopped before there was a version

    Raises:
        InputError: nothing can be trained with these rows and options
        WeightsError: the base weights cannot be used
        StorageError: scratch disk or artifact root fail
    """
    monitor = monitor or Monitor()
    check_name(options.model_name)
    where.root.check()
    clock = _Clock()
    with scratch("train-") as folder:
        base = _base(options, where, folder)
        training_set = data.build(
            rows,
            folder / "data",
            where.read,
            imgsz=options.imgsz,
            framing=options.framing,
            min_per_class=options.min_per_class,
            classes=list(options.classes) or None,
            monitor=monitor,
        )
        clock.lap("framing")
        if training_set.stopped:
            return Outcome(None, None, training_set, seconds=clock.laps)
        digest = manifest.digest(training_set.rows)
        state = _State.open(_key(options, digest, base.sha256), options, where, folder)
        trained = train.train(
            training_set,
            base.path,
            folder / "run",
            epochs=options.epochs,
            batch=options.batch,
            augmentation=options.augmentation,
            balance=options.balance,
            patience=options.patience,
            seed=options.seed,
            device=options.device,
            monitor=monitor,
            checkpoint=state.save,
            resume_from=state.resume_from,
        )
        clock.lap("training")
        if trained.stopped:
            return Outcome(None, trained, training_set, seconds=clock.laps)

        version = publish(
            folder / "version", state.version_key, training_set, trained, options, base, where, monitor, clock.laps
        )
        clock.lap("evaluation and publishing")
        state.discard()
        said = version.metrics, version.predictions, clock.laps, version.card
        return Outcome(version.record, trained, training_set, *said)


def _base(options: Options, where: Surroundings, folder: Path) -> Base:
    """The base weights: a version of the registry (`ptvr@production`, `ptvr/<version>`) or what a URI names."""
    name, record = options.base_weights, None
    if is_registered(name):
        record = Registry(where.db).resolve(name)
        path = fetch_version(record, where.root, folder / "base") / "weights.pt"
    else:
        path = weights.resolve_base(name, folder / "base", where.secrets, weights.trusted_prefixes(where.secrets))
    sha256 = None if path.suffix == ".yaml" else weights.sha256(path)
    if where.base_sha256 is not None and sha256 != where.base_sha256:
        raise InputError(
            f"The weights {name!r} are not those that the version was trained from: their SHA-256 is {sha256}, not "
            f"{where.base_sha256}; name the right file."
        )
    return Base(path, sha256, record)


def _key(options: Options, digest: str, base_sha256: str | None) -> str:
    """Names a training by all that its outcome depends on, so that the same one is found again."""
    said = {k: v for k, v in asdict(options).items() if k not in ("resume", "device")}
    return hashlib.sha256(to_json([said, digest, base_sha256]).encode()).hexdigest()[:24]


@dataclass
class _State:
    """The unfinished training on the artifact root, from which another worker can go on.

    Attributes:
        key: of its checkpoint, below the artifact root
        model: the model's name
        version: the name that the version will have
        where: the surroundings
        folder: a local one, for the checkpoint
        resume_from: the checkpoint that an earlier run left, or None
    """

    key: str
    model: str
    version: str
    where: Surroundings
    folder: Path
    resume_from: Path | None

    @classmethod
    def open(cls, key: str, options: Options, where: Surroundings, folder: Path) -> _State:
        """Finds what an earlier run of the same training left, or begins anew.

        Raises:
            InputError: if the same training is under way right now
        """
        state = cls(f"checkpoints/{key}", options.model_name, new_version(), where, folder, None)
        if where.run_id is not None:
            claim(where.db, where.run_id, state.key)
        found = folder / "state.json"
        if options.resume and where.root.get(f"{state.key}/state.json", found):
            earlier = json.loads(found.read_text())
            state.version = earlier["version"]
            if where.root.published(state.version_key):
                # Killed between its files and its record: what is published never changes, and nobody sees it.
                state.version = new_version()
            last = folder / "last.pt"
            if where.root.get(f"{state.key}/last.pt", last):
                state.resume_from = last
        else:
            found.write_text(to_json({"version": state.version}))
            where.root.put(f"{state.key}/state.json", found)
        return state

    @property
    def version_key(self) -> str:
        """Where the version's files go, below the artifact root."""
        return f"versions/{self.model}/{self.version}"

    def save(self, last: Path, epoch: int, _csv: Path) -> None:
        """Stores an epoch's checkpoint; a root that is away for a moment costs a checkpoint, not the run.

        Credentials that have expired do end it: nothing that it does from here on could be kept.
        """
        try:
            self.where.root.put(f"{self.key}/last.pt", last)
        except AccessError:
            raise
        except StorageError as error:
            train.logger.warning("The checkpoint of epoch %d was not stored: %s", epoch, error)

    def discard(self) -> None:
        """Removes the checkpoints of a training whose version is published; what stays costs space, not the run."""
        try:
            for name in ("state.json", "last.pt"):
                self.where.root.delete(f"{self.key}/{name}")
        except StorageError as error:
            train.logger.warning("The checkpoint of a finished training was not removed: %s", error)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now
