"""From a trained network to a published version: files, metrics by applying them, the card, and the record last."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, runtimes
from ..artifacts import Artifacts, scratch
from ..classifier import data, metrics, predict, train, weights
from ..errors import InputError, SuiteError
from ..lineage import card, manifest, plots, render
from ..lineage.registry import CANDIDATE, Registry, VersionRecord
from ..runs import Monitor

if TYPE_CHECKING:
    from .training import Options, Surroundings

EVALUATED = ("val", "test")
SLICE = "slice:"  # how the manifest's columns of slices begin
LIBRARIES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")


@dataclass(frozen=True)
class Base:
    """The weights that a training starts from.

    Attributes:
        path: the file
        sha256: of the file, None for an architecture
        record: the registry's record, where it is a registered version
    """

    path: Path
    sha256: str | None
    record: VersionRecord | None


@dataclass(frozen=True)
class Published:
    """A version that is there for everybody.

    Attributes:
        record: the registry's
        metrics: by split, in full
        predictions: rows of (dataset id, sample id, label, confidence) for val and test
        card: as first written
    """

    record: VersionRecord
    metrics: dict[str, Any]
    predictions: list[tuple[str, str, str, float]]
    card: card.Card


def fetch_version(record: VersionRecord, root: Artifacts, folder: Path, names: tuple[str, ...] | None = None) -> Path:
    """Fetches a version's files, verified by their hashes; by default those that applying it needs.

    Raises:
        InputError: the version is from before there were such files
    """
    names = names or ("weights.pt", "model.json")
    if missing := [name for name in names if name not in record.files]:
        raise InputError(f"The version {record.name} was published without {', '.join(missing)}.")
    return root.fetch(record.key, {name: record.files[name] for name in names}, folder)


def publish(
    folder: Path,
    key: str,
    training_set: data.TrainingSet,
    trained: train.Trained,
    options: Options,
    base: Base,
    where: Surroundings,
    monitor: Monitor,
    seconds: dict[str, float],
) -> Published:
    """Publishes what was trained as a version, and moves the alias `candidate` to it.

    Args:
        folder: a new local one, for the version's files
        key: where they go, below the artifact root: `versions/<model>/<version>`
        training_set: what it was trained on
        trained: what came of it
        options: how it was trained
        base: what it was trained from
        where: the surroundings
        monitor: progress
        seconds: by stage, so far

    Raises:
        StorageError: the artifact root fails; there is no version then
    """
    folder.mkdir()
    shutil.copyfile(trained.weights, folder / "weights.pt")
    if trained.csv.exists():
        shutil.copyfile(trained.csv, folder / "training.csv")
    manifest.write(training_set.rows, folder / "manifest.parquet")
    model = _model(folder, key.rpartition("/")[2], training_set, trained, options, base, where)
    (folder / "model.json").write_text(to_json(model))
    scores, predictions = _evaluate(folder, training_set, where, monitor)
    (folder / "metrics.json").write_text(to_json(scores))
    drawn = plots.write_plots(
        folder / "plots", scores.get("test") or scores["val"], folder / "training.csv", training_set.counts
    )
    made = card.build(model, scores, training_set.rows, _context(model, training_set, base, where))
    (folder / "card.json").write_text(made.model_dump_json(indent=1))
    (folder / "card.md").write_text(render.markdown(made, [], [f"plots/{path.name}" for path in drawn]))
    files = where.root.publish(folder, key, monitor=monitor)
    record = VersionRecord(
        **{name: model[name] for name in ("model", "version", "classes", "framing", "imgsz", "run_id")},
        **{name: model[name] for name in ("base_sha256", "base_version", "dataset", "dataset_id", "label_field")},
        **{name: model[name] for name in ("extra_views", "created_by", "created_at")},
        uri=where.root.uri(key),
        key=key,
        files=files,
        manifest_digest=model["manifest_digest"],
        class_counts={label: row["train"] for label, row in training_set.counts.items()},
        metrics={split: _headline(score) for split, score in scores.items()},
        training={**provenance(trained), "seconds": dict(seconds)},
        base=options.base_weights,
    )
    registry = Registry(where.db)
    registry.add(record)
    registry.set_alias(
        record.model, CANDIDATE, record.version, by=where.by, reason="newly trained", run_id=where.run_id
    )
    return Published(record, scores, predictions, made)


def provenance(trained: train.Trained) -> dict[str, Any]:
    """With what a network was trained."""
    return {
        "training_args": trained.args,
        "epochs_done": trained.epochs_done,
        "device": trained.device,
        "training_seconds": round(trained.seconds, 1),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def to_json(value: Any) -> str:
    """JSON as the suite writes it: sorted, so that the same value gives the same bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str)


def _model(
    folder: Path,
    name: str,
    training_set: data.TrainingSet,
    trained: train.Trained,
    options: Options,
    base: Base,
    where: Surroundings,
) -> dict[str, Any]:
    """What `model.json` says."""
    return {
        "name": f"{options.model_name}/{name}",
        "model": options.model_name,
        "version": name,
        "classes": training_set.classes,
        "framing": options.framing,
        "imgsz": options.imgsz,
        "base_weights": options.base_weights,
        "base_sha256": base.sha256,
        "base_version": base.record.name if base.record else None,
        "weights_sha256": weights.sha256(folder / "weights.pt"),
        "manifest_digest": manifest.digest(training_set.rows),
        "options": asdict(options),
        "dataset": where.dataset,
        "dataset_id": where.dataset_id,
        "label_field": where.label_field,
        "extra_views": list(where.extra_views),
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "created_by": where.by,
        "run_id": where.run_id,
        "repeats": where.repeats.name if where.repeats else None,
        "licence": card.LICENCE,
        "suite": __version__,
        **provenance(trained),
    }


def _evaluate(
    folder: Path, training_set: data.TrainingSet, where: Surroundings, monitor: Monitor
) -> tuple[dict[str, Any], list[tuple[str, str, str, float]]]:
    """Applies the version to the val and test rows, from their original files, as it will be applied later."""
    classifier = weights.load(folder)
    runtime = runtimes.build(classifier)
    number = {label: i for i, label in enumerate(training_set.classes)}
    rows = [r for r in training_set.rows.to_pylist() if r["used"] and r["split"] in EVALUATED]
    found: dict[str, np.ndarray] = {}

    def keep(batch: predict.Predictions) -> None:
        found.update(zip(batch.ids, batch.logits, strict=True))

    items = ((str(i), row["filepath"]) for i, row in enumerate(rows))
    predict.predict(items, where.read, classifier, runtime, keep, monitor=_Unstoppable(monitor), total=len(rows))
    rows = [{**row, "logits": found[str(i)]} for i, row in enumerate(rows) if str(i) in found]
    _write_predictions(rows, folder / "predictions.parquet")
    sliced = [name for name in training_set.rows.column_names if name.startswith(SLICE)]
    scores: dict[str, Any] = {}
    predictions = []
    for split in EVALUATED:
        chosen = [row for row in rows if row["split"] == split]
        if not chosen:
            continue
        probabilities = predict.softmax(np.stack([row["logits"] for row in chosen]).astype(np.float64))
        truth = np.array([number[row["label"]] for row in chosen])
        slices = {name.removeprefix(SLICE): [row[name] for row in chosen] for name in sliced}
        scores[split] = {
            **metrics.evaluate(truth, probabilities, training_set.classes, slices),
            "runtime": runtime.description,
        }
        for row, p in zip(chosen, probabilities, strict=True):
            best = int(p.argmax())
            predictions.append((row["dataset_id"], row["sample_id"], training_set.classes[best], float(p[best])))
    return scores, predictions


def _write_predictions(rows: list[dict[str, Any]], path: Path) -> None:
    """Keeps what the network said of each evaluated image, so that anybody can compute the metrics again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("dataset_id", "sample_id", "split", "label")
    logits = np.stack([row["logits"] for row in rows]).astype(np.float32)
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    columns["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    pq.write_table(pa.table(columns), path, compression="zstd")


class _Unstoppable(Monitor):
    """Shows progress, but a version that is trained is finished: measuring it takes seconds."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def progress(self, done: int, total: int, what: str) -> None:
        self._monitor.progress(done, total, "Measuring the model on val and test")


def _headline(score: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in score.items() if not isinstance(v, (list, dict))}


def _context(model: Mapping[str, Any], training_set: data.TrainingSet, base: Base, where: Surroundings) -> card.Context:
    """What the card says beyond the version's own files."""
    previous, why_not = _previous(model["model"], where)
    return replace(
        where.context,
        class_counts=training_set.counts,
        left_out=training_set.left_out,
        identical_across_splits=len(training_set.leaks),
        identical_other_label=len(training_set.conflicts),
        base=_ancestors(model, base, where),
        previous=previous,
        why_no_previous=why_not,
    )


def _ancestors(model: Mapping[str, Any], base: Base, where: Surroundings) -> list[card.Ancestor]:
    """What it was trained from, what that was trained from, and so on; as far as the registry knows."""
    registry, record = Registry(where.db), base.record
    chain, known = [], set()
    name, sha256 = model["base_version"] or model["base_weights"], base.sha256
    while True:
        digest = record.manifest_digest if record else None
        chain.append(card.Ancestor(name=name, sha256=sha256, digest=digest, licence=card.LICENCE))
        known.add(name)
        if record is None or record.base is None:
            return chain
        name, sha256 = record.base_version or record.base, record.base_sha256
        if name in known:
            return chain
        try:
            record = registry.resolve(record.base_version) if record.base_version else None
        except SuiteError:
            record = None


def _previous(model: str, where: Surroundings) -> tuple[Any, str | None]:
    """Card, metrics and rows of the version before this one, or why they cannot be had."""
    records = Registry(where.db).versions(model)
    if not records:
        return None, None
    with scratch("previous-") as folder:
        try:
            fetch_version(records[0], where.root, folder, ("card.json", "metrics.json", "manifest.parquet"))
            found = card.Card.model_validate_json((folder / "card.json").read_text())
            scores = json.loads((folder / "metrics.json").read_text())
            return (found, scores, manifest.read(folder / "manifest.parquet")), None
        except (SuiteError, ValueError) as error:
            return None, f"The previous version {records[0].name} cannot be compared: {error}"
