"""Vectors of many ROIs: from a backbone's name to float32 rows, without FiftyOne."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from .. import runtimes
from ..classifier import weights as classifier_weights
from ..classifier.penultimate import penultimate
from ..embeddings import backbones
from ..embeddings.backbones import Backbone
from ..errors import InputError
from ..lineage.registry import Registry, is_registered
from ..pipeline import Outputs, Patch, stream
from ..runs import Monitor
from .applying import find as find_classifier

if TYPE_CHECKING:
    from pymongo.database import Database

Key = TypeVar("Key")

NOT_FINITE = "the backbone gave numbers that are not finite"


def find(
    name: str,
    folder: Path,
    db: Database,
    secrets: Mapping[str, str],
    *,
    weights: str | None = None,
    framing: str = "pad",
    imgsz: int = 224,
) -> Backbone:
    """Finds, fetches, verifies and loads what turns images into vectors.

    Args:
        name: a backbone (`dino_vits8`, any model of timm), or whatever `apply_model` takes: an alias or version of the
            registry, a `.pt` file, a Hugging Face folder or `hf://owner/name`, `s3://` URIs of these
        folder: where to put what is fetched
        db: the registry's database
        secrets: of the artifact root and of `s3://`
        weights: file or URI of a backbone's parameters, for workers without a way to the hub
        framing: for networks that do not say; registered versions do
        imgsz: for networks that do not say, pixels

    Raises:
        InputError: no such backbone or model
        WeightsError: the weights cannot be used
        StorageError: they cannot be fetched
    """
    trusted = classifier_weights.trusted_prefixes(secrets)
    if in_registry(name, Registry(db)):
        _refuse_weights(name, weights)
        found = find_classifier(name, folder, db, secrets)
        return _penultimate(found.name, found.classifier)
    if backbones.is_backbone(name) or not _is_place(name):
        file = classifier_weights.resolve_base(weights, folder / "weights", secrets, trusted) if weights else None
        return backbones.load(name, framing=framing, imgsz=imgsz, weights=file)
    _refuse_weights(name, weights)
    path = classifier_weights.resolve_base(name, folder / "model", secrets, trusted)
    if (path / "config.json").is_file():
        return backbones.load_folder(path, framing=framing, imgsz=imgsz)
    return _penultimate(path.name, classifier_weights.load(path, framing=framing, imgsz=imgsz))


def in_registry(name: str, registry: Registry) -> bool:
    """Whether a name means a model of the registry; a bare one may be a backbone's as well."""
    return is_registered(name) and ("@" in name or "/" in name or name in registry.models())


def _is_place(name: str) -> bool:
    """Whether a name means a file, a folder or a URI, and not one of timm's networks."""
    return "://" in name or "/" in name or name.endswith(".pt") or Path(name).expanduser().exists()


def _refuse_weights(name: str, weights: str | None) -> None:
    if weights:
        raise InputError(
            f"{name!r} brings its own weights: leave 'weights' empty, or name a backbone such as dino_vits8."
        )


def _penultimate(name: str, classifier: classifier_weights.Classifier) -> Backbone:
    module, outputs = penultimate(classifier)
    return Backbone(
        name=name,
        layer="penultimate layer",
        framing=classifier.framing,
        imgsz=classifier.imgsz,
        mean=classifier.mean,
        std=classifier.std,
        module=module,
        outputs=outputs,
        sha256=classifier.sha256,
    )


def info(backbone: Backbone) -> dict[str, Any]:
    """What a field of its vectors says of a backbone; two with equal ones may be compared, whatever the precision."""
    return {
        "backbone": backbone.name,
        "layer": backbone.layer,
        "weights_sha256": backbone.sha256,
        "framing": backbone.framing,
        "imgsz": backbone.imgsz,
        "dim": backbone.outputs,
    }


def runtime(backbone: Backbone, *, precision: str, device: str, batch_size: int | None) -> runtimes.Runtime:
    """A backbone on the hardware that there is; `runtimes.build` says what the arguments are and what is raised."""
    # Measured with ViT-S/8 at 224 on two Zen 5 cores, bfloat16: OpenVINO, one image a pass 19.5 images/s, four 14.7;
    # torch, one 9.7, 32 5.6. The 785 tokens of an image are work enough; those of more leave the processor's cache.
    token = backbone.layer == "CLS token"
    part = 1 if token else None
    # Measured on 64 plankton ROIs with the penultimate layer of YOLOv8n-cls, lowest cosine to full precision: bfloat16
    # 0.988, for a fifth more images/s; a GPU's float16 0.99997. The normalised token of ViT-S/8 keeps 0.9999 in either.
    if precision == "auto" and not token and not runtimes.on_gpu(device):
        precision = "full"
    return runtimes.build(backbone, precision=precision, device=device, batch_size=batch_size, settle=False, part=part)


@dataclass
class Embedded(Generic[Key]):
    """What came of embedding; all counts are ROIs.

    Attributes:
        written: ROIs that got a vector
        unreadable: (id, reason) of those that did not
        seconds: from the first image to the last write
        stopped: whether somebody asked for an end before all were done
    """

    written: int = 0
    unreadable: list[tuple[Key, str]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False


def embed(
    items: Iterable[tuple[Key, str | Patch]],
    total: int | None,
    backbone: Backbone,
    runtime: runtimes.Runtime,
    read: Callable[[str], bytes],
    write: Callable[[list[Key], np.ndarray, list[tuple[Key, str]]], None],
    *,
    monitor: Monitor | None = None,
) -> Embedded[Key]:
    """Computes vectors, each batch written while the next is computed.

    Args:
        items: (id, URI of the media or a patch of it) of each ROI
        total: how many there are, for progress
        backbone: what makes the vectors
        runtime: the same on some hardware
        read: bytes of a URI
        write: takes n ids, float32 (n, D), and the (id, reason) of ROIs without a vector; called from one thread
        monitor: progress, and whether to stop
    """
    done: Embedded[Key] = Embedded()

    def sink(batch: Outputs[Key]) -> None:
        finite = np.isfinite(batch.values).all(axis=1)
        bad = batch.unreadable + [(i, NOT_FINITE) for i, good in zip(batch.ids, finite, strict=True) if not good]
        ids = [i for i, good in zip(batch.ids, finite, strict=True) if good]
        write(ids, batch.values[finite], bad)
        done.written += len(ids)
        done.unreadable.extend(bad)

    totals = stream(
        items,
        read,
        runtime,
        sink,
        imgsz=backbone.imgsz,
        framing=backbone.framing,
        batch_size=runtime.batch_size,
        monitor=monitor,
        total=total,
        what="Computing embeddings",
    )
    done.stopped, done.seconds = totals.stopped, totals.seconds
    return done
