"""Applying a model to many images: from its name to labels, without FiftyOne."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import runtimes
from ..artifacts import open_root
from ..classifier import predict, weights
from ..lineage.registry import Registry, VersionRecord, is_registered
from ..runs import Monitor

if TYPE_CHECKING:
    from pymongo.database import Database


@dataclass(frozen=True)
class Model:
    """A model that was found by its name.

    Attributes:
        name: `<model>/<version>` of a registered one, else the URI
        field: the sample field that its predictions go to unless another is named, such as `pred_ptvr_1a2b3c`
        classifier: the loaded network
        record: the registry's record, or None for weights by URI
    """

    name: str
    field: str
    classifier: weights.Classifier
    record: VersionRecord | None


def find(
    name: str,
    folder: Path,
    db: Database,
    secrets: Mapping[str, str],
    framing: str | None = None,
    imgsz: int | None = None,
) -> Model:
    """Finds, fetches, verifies and loads a model.

    Args:
        name: alias, version, file or folder, `s3://` URI, or a Hugging Face hub name as `hf://owner/name`
        folder: where to put what is fetched
        db: the registry's database
        secrets: of the artifact root and of `s3://`
        framing: for weights that do not say
        imgsz: for weights that do not say, pixels

    Raises:
        InputError: no such model
        WeightsError: the weights cannot be used
        StorageError: they cannot be fetched
    """
    if is_registered(name):
        record = Registry(db).resolve(name)
        root = open_root(secrets.get("MBARI_ARTIFACTS", ""), secrets)
        names = {n: record.files[n] for n in ("weights.pt", "model.json")}
        classifier = weights.load(root.fetch(record.key, names, folder / "model"))
        return Model(record.name, record.prediction_field, classifier, record)
    path = weights.resolve_base(name, folder / "model", secrets, weights.trusted_prefixes(secrets))
    classifier = weights.load(path, framing=framing, imgsz=imgsz)
    return Model(name, f"pred_{_slug(Path(name).stem)}_{classifier.sha256[:6]}", classifier, None)


@dataclass
class Applied:
    """What came of applying a model; all counts are images.

    Attributes:
        written: images that got a label
        below: images under the confidence threshold, by their top class
        mix: images by top class, those under the threshold included
        unreadable: (id, reason) of images that could not be read
        seconds: from the first image to the last write
        stopped: whether somebody asked for an end before all were done
    """

    written: int = 0
    below: Counter[str] = field(default_factory=Counter)
    mix: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False


Write = Callable[[list[str], list[str | None], np.ndarray, np.ndarray, list[tuple[str, str]]], None]


def apply(
    items: Iterable[tuple[str, str]],
    total: int,
    model: Model,
    runtime: runtimes.Runtime,
    read: Callable[[str], bytes],
    write: Write,
    *,
    threshold: float = 0.0,
    monitor: Monitor | None = None,
) -> Applied:
    """Labels images with a model, each batch written while the next is computed.

    Args:
        items: (id, URI of the media) of each image
        total: how many there are, for progress
        model: the model
        runtime: its network on some hardware
        read: bytes of a URI
        write: takes n ids, n labels (None below the threshold), n confidences, (n, C) logits, and the
            (id, reason) of unreadable images; called from one thread
        threshold: confidence below which nothing is labelled
        monitor: progress, and whether to stop
    """
    names = model.classifier.names
    done = Applied()
    began = time.monotonic()

    def sink(batch: predict.Predictions) -> None:
        probabilities = predict.softmax(batch.logits)
        best = probabilities.argmax(axis=1) if len(batch.ids) else np.zeros(0, int)
        confidence = probabilities[np.arange(len(best)), best]
        labels: list[str | None] = [names[b] if c >= threshold else None for b, c in zip(best, confidence, strict=True)]
        write(batch.ids, labels, confidence, batch.logits, batch.unreadable)
        done.mix.update(names[b] for b in best)
        done.below.update(names[b] for b, label in zip(best, labels, strict=True) if label is None)
        done.written += sum(label is not None for label in labels)
        done.unreadable.extend(batch.unreadable)

    totals = predict.predict(items, read, model.classifier, runtime, sink, monitor=monitor or Monitor(), total=total)
    done.stopped = totals.stopped
    done.seconds = time.monotonic() - began
    return done


def mix_table(mixes: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Class mixes side by side: a row a class, for each mix its share in percent, largest first.

    Args:
        mixes: counts by class, by the name of the column
    """
    totals = {name: sum(mix.values()) or 1 for name, mix in mixes.items()}
    first = next(iter(mixes.values()))
    classes = sorted({c for mix in mixes.values() for c in mix}, key=lambda c: (-first.get(c, 0), c))
    return [
        {"class": c, "images": first.get(c, 0)}
        | {name: f"{100 * mix.get(c, 0) / totals[name]:.1f} %" for name, mix in mixes.items()}
        for c in classes
    ]


def _slug(name: str) -> str:
    """The part of a field name that a file's name gives: letters, digits and underscores."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name).strip("_") or "model"
