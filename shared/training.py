"""From labelled rows to a published model version: the whole of a training run, without FiftyOne.

Data are framed once, a network is fine-tuned, what was trained is measured by the same `predict`
that will apply it, and everything that says where it comes from is published with it: files
first, the record last, so that no half of a version is ever visible.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import __version__, runtimes
from .artifacts import Artifacts, scratch
from .classifier import data, metrics, predict, train, weights
from .errors import StorageError
from .lineage import manifest, plots
from .lineage.registry import CANDIDATE, Registry, VersionRecord, check_name, is_registered, new_version
from .runs import Monitor, claim

if TYPE_CHECKING:
    import pyarrow as pa
    from pymongo.database import Database

EVALUATED = ("val", "test")


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
        extra_views: names of the further datasets and views trained on
    """

    root: Artifacts
    db: Database
    read: Callable[[str], bytes]
    secrets: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    by: str | None = None
    dataset: str | None = None
    extra_views: tuple[str, ...] = ()


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
    """

    record: VersionRecord | None
    trained: train.Trained | None
    training_set: data.TrainingSet
    metrics: dict[str, Any] = field(default_factory=dict)
    predictions: list[tuple[str, str, str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


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
        base_sha256 = None if base.suffix == ".yaml" else weights.sha256(base)
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
        state = _State.open(_key(options, digest, base_sha256), options, where, folder)
        trained = train.train(
            training_set,
            base,
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

        version = folder / "version"
        _describe(version, training_set, trained, options, where, base_sha256)
        scores, predictions = _evaluate(version, training_set, where.read, monitor)
        (version / "metrics.json").write_text(_json(scores))
        plots.write_plots(version / "plots", scores.get("test") or scores["val"], version / "training.csv")
        clock.lap("evaluation")
        files = where.root.publish(version, state.version_key, monitor=monitor)
        clock.lap("publishing")
        record = VersionRecord(
            model=options.model_name,
            version=state.version,
            uri=where.root.uri(state.version_key),
            key=state.version_key,
            files=files,
            classes=training_set.classes,
            framing=options.framing,
            imgsz=options.imgsz,
            manifest_digest=digest,
            class_counts={label: row["train"] for label, row in training_set.counts.items()},
            metrics={split: _headline(score) for split, score in scores.items()},
            training={**_provenance(trained), "seconds": clock.laps},
            base=options.base_weights,
            base_sha256=base_sha256,
            dataset=where.dataset,
            extra_views=list(where.extra_views),
            created_by=where.by,
            run_id=where.run_id,
        )
        _register(record, where)
        state.discard()
        return Outcome(record, trained, training_set, scores, predictions, clock.laps)


def _register(record: VersionRecord, where: Surroundings) -> None:
    """Makes a published version visible: the record, then the alias `candidate`."""
    registry = Registry(where.db)
    registry.add(record)
    registry.set_alias(
        record.model, CANDIDATE, record.version, by=where.by, reason="newly trained", run_id=where.run_id
    )


def fetch_version(record: VersionRecord, root: Artifacts, folder: Path, names: tuple[str, ...] | None = None) -> Path:
    """Fetches a version's files, verified by their hashes; by default those that applying it needs."""
    names = names or ("weights.pt", "model.json")
    return root.fetch(record.key, {name: record.files[name] for name in names}, folder)


def _base(options: Options, where: Surroundings, folder: Path) -> Path:
    """The file of base weights: a version of the registry (`ptvr@production`, `ptvr/<version>`) or what a URI names."""
    name = options.base_weights
    if is_registered(name):
        record = Registry(where.db).resolve(name)
        return fetch_version(record, where.root, folder / "base") / "weights.pt"
    trusted = weights.trusted_prefixes(where.secrets)
    return weights.resolve_base(name, folder / "base", where.secrets, trusted)


def _key(options: Options, digest: str, base_sha256: str | None) -> str:
    """Names a training by all that its outcome depends on, so that the same one is found again."""
    said = {k: v for k, v in asdict(options).items() if k not in ("resume", "device")}
    return hashlib.sha256(_json([said, digest, base_sha256]).encode()).hexdigest()[:24]


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
            found.write_text(_json({"version": state.version}))
            where.root.put(f"{state.key}/state.json", found)
        return state

    @property
    def version_key(self) -> str:
        """Where the version's files go, below the artifact root."""
        return f"versions/{self.model}/{self.version}"

    def save(self, last: Path, epoch: int, _csv: Path) -> None:
        """Stores an epoch's checkpoint; a root that is away for a moment costs a checkpoint, not the run."""
        try:
            self.where.root.put(f"{self.key}/last.pt", last)
        except StorageError as error:
            train.logger.warning("The checkpoint of epoch %d was not stored: %s", epoch, error)

    def discard(self) -> None:
        """Removes the checkpoints of a training whose version is published."""
        for name in ("last.pt", "state.json"):
            self.where.root.delete(f"{self.key}/{name}")


def _describe(
    version: Path,
    training_set: data.TrainingSet,
    trained: train.Trained,
    options: Options,
    where: Surroundings,
    base_sha256: str | None,
) -> None:
    """Writes the version's files but for metrics and plots, which come from applying these."""
    version.mkdir()
    shutil.copyfile(trained.weights, version / "weights.pt")
    if trained.csv.exists():
        shutil.copyfile(trained.csv, version / "training.csv")
    manifest.write(training_set.rows, version / "manifest.parquet")
    model = {
        "classes": training_set.classes,
        "framing": options.framing,
        "imgsz": options.imgsz,
        "base_weights": options.base_weights,
        "base_sha256": base_sha256,
        "weights_sha256": weights.sha256(version / "weights.pt"),
        "options": asdict(options),
        "dataset": where.dataset,
        "extra_views": list(where.extra_views),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "created_by": where.by,
        "suite": __version__,
        **_provenance(trained),
    }
    (version / "model.json").write_text(_json(model))


def _provenance(trained: train.Trained) -> dict[str, Any]:
    from importlib.metadata import version

    libraries = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")
    return {
        "training_args": trained.args,
        "epochs_done": trained.epochs_done,
        "device": trained.device,
        "training_seconds": round(trained.seconds, 1),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in libraries},
    }


def _evaluate(
    version: Path, training_set: data.TrainingSet, read: Callable[[str], bytes], monitor: Monitor
) -> tuple[dict[str, Any], list[tuple[str, str, str, float]]]:
    """Applies the version to the val and test rows, from their original files, as it will be applied later."""
    classifier = weights.load(version)
    runtime = runtimes.build(classifier)
    number = {label: i for i, label in enumerate(training_set.classes)}
    rows = [r for r in training_set.rows.to_pylist() if r["used"] and r["split"] in EVALUATED]
    logits: dict[str, np.ndarray] = {}

    def keep(batch: predict.Predictions) -> None:
        logits.update(zip(batch.ids, batch.logits, strict=True))

    items = ((str(i), row["filepath"]) for i, row in enumerate(rows))
    predict.predict(items, read, classifier, runtime, keep, monitor=_Unstoppable(monitor), total=len(rows))
    scores: dict[str, Any] = {}
    predictions = []
    for split in EVALUATED:
        chosen = [i for i, row in enumerate(rows) if row["split"] == split and str(i) in logits]
        if not chosen:
            continue
        probabilities = predict.softmax(np.stack([logits[str(i)] for i in chosen]))
        truth = np.array([number[rows[i]["label"]] for i in chosen])
        scores[split] = {
            **metrics.evaluate(truth, probabilities, training_set.classes),
            "runtime": runtime.description,
        }
        for i, p in zip(chosen, probabilities, strict=True):
            best = int(p.argmax())
            predictions.append(
                (rows[i]["dataset_id"], rows[i]["sample_id"], training_set.classes[best], float(p[best]))
            )
    return scores, predictions


class _Unstoppable(Monitor):
    """Shows progress, but a version that is trained is finished: measuring it takes seconds."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def progress(self, done: int, total: int, what: str) -> None:
        self._monitor.progress(done, total, "Measuring the model on val and test")


def _headline(score: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in score.items() if not isinstance(v, (list, dict))}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now
