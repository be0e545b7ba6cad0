"""Versions for tests, made in a moment: a random network whose last layer is fitted to drawn ROIs, and its files."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests import rois

IMGSZ = 32
# Two layers below the last one.
TINY = {
    "nc": 3,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[-1, 1, "Classify", ["nc"]]],
}


def hide_openvino(monkeypatch: Any) -> None:
    """Makes this a worker without OpenVINO: torch is ready at once, where OpenVINO takes a second a version."""
    monkeypatch.setitem(sys.modules, "openvino", None)


def fitted(
    file: Path, images: Sequence[str], labels: Sequence[str], seed: int = 0, classes: Sequence[str] = ()
) -> Path:
    """Writes a checkpoint that tells `labels` of `images` well: its last layer by least squares.

    Args:
        file: where to
        images: paths to fit to
        labels: of them; one that is not among the classes is left out
        seed: of the random layers below
        classes: those of `rois` by default
    """
    import torch
    from ultralytics.nn.tasks import ClassificationModel

    from shared.framing import frame
    from shared.images import decode

    classes = tuple(classes or rois.CLASSES)
    known = [(image, classes.index(label)) for image, label in zip(images, labels, strict=True) if label in classes]
    pixels = np.stack([frame(decode(Path(image).read_bytes()), IMGSZ, "pad") for image, _ in known])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    torch.manual_seed(seed)
    network = ClassificationModel(dict(TINY), nc=len(classes), verbose=False)
    features: list[torch.Tensor] = []
    linear = network.model[-1].linear
    with torch.no_grad():
        network.train()  # the statistics of batch normalisation, without which signals fade
        for _ in range(20):
            network(batch)
        network.eval()
        hook = linear.register_forward_hook(lambda module, given, out: features.append(given[0]))
        network(batch)
        hook.remove()
        own = torch.cat([features[0], torch.ones(len(batch), 1)], dim=1).double()
        wanted = torch.nn.functional.one_hot(torch.tensor([kind for _, kind in known]), len(classes)).double()
        solved = torch.linalg.solve(own.T @ own + 1e-2 * torch.eye(own.shape[1]), own.T @ wanted).float()
        linear.weight.copy_(20 * solved[:-1].T)
        linear.bias.copy_(20 * solved[-1])
    network.names = dict(enumerate(classes))
    network.args, network.task = {"task": "classify", "imgsz": IMGSZ}, "classify"
    torch.save({"model": network, "train_args": network.args}, file)
    return file


def row(sample_id: str, label: str, split: str, sha256: str, dataset_id: str = "d" * 24, used: bool = True) -> dict:
    """A row of a manifest."""
    named = {"dataset": "d", "source_id": None, "filepath": f"{sample_id}.png", "label_id": None, "group": None}
    identity = {"dataset_id": dataset_id, "sample_id": sample_id, "sha256": sha256, "label": label, "split": split}
    return {**named, **identity, "used": used, "why_left_out": None if used else "too few"}


def version(
    registry: Any,
    folder: Path,
    weights: Path | None = None,
    *,
    model: str = "m",
    rows: Sequence[Mapping[str, Any]] | None = (),
    classes: Sequence[str] = rois.CLASSES,
    more: Mapping[str, bytes] | None = None,
    **fields: Any,
) -> Any:
    """Publishes a version below `folder`/artifacts and registers it.

    Args:
        registry: where to
        folder: for the artifact root
        weights: a checkpoint; without one the version has some bytes of its own in its place
        model: its name
        rows: of the manifest; None for a version without one
        classes: of the weights
        more: further files
        **fields: of the record, such as `base_version`
    """
    import pyarrow as pa

    from shared.artifacts import open_root
    from shared.lineage import manifest
    from shared.lineage.registry import VersionRecord, new_version

    name = new_version()
    files = folder / f"files-{name}"
    files.mkdir(parents=True)
    (files / "weights.pt").write_bytes(weights.read_bytes() if weights else name.encode())
    (files / "model.json").write_text(json.dumps({"classes": list(classes), "framing": "pad", "imgsz": IMGSZ}))
    if rows is not None:
        table = pa.Table.from_pylist(list(rows), schema=pa.schema([(n, _kind(n)) for n in row("", "", "", "")]))
        manifest.write(table, files / "manifest.parquet")
    for path, data in (more or {}).items():
        (files / path).write_bytes(data)
    root = open_root(str(folder / "artifacts"), {})
    record = VersionRecord(
        model=model,
        version=name,
        uri=root.uri(f"versions/{model}/{name}"),
        key=f"versions/{model}/{name}",
        files=root.publish(files, f"versions/{model}/{name}"),
        classes=list(classes),
        framing="pad",
        imgsz=IMGSZ,
        manifest_digest="0" * 64 if rows is None else manifest.digest(table),
        **fields,
    )
    registry.add(record)
    return record


def _kind(column: str) -> Any:
    import pyarrow as pa

    return pa.bool_() if column == "used" else pa.string()
