"""Untrained networks for tests: a classifier of the classes of `rois`, and the smallest vision transformer."""

import json
from pathlib import Path
from typing import Any

from tests import rois

TINY = "test_vit"  # the smallest vision transformer of timm, 64 numbers a vector


def untrained(file: Path) -> Path:
    """Writes a YOLOv8n-cls checkpoint with random parameters to `file`."""
    import torch
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    network = ClassificationModel("yolov8n-cls.yaml", nc=3, verbose=False)
    with torch.no_grad():
        network.model[-1].linear.weight.mul_(100)  # else all images look the same to it
    network.names = dict(enumerate(rois.CLASSES))
    network.args, network.task = {"task": "classify", "imgsz": 64}, "classify"
    torch.save({"model": network, "train_args": network.args}, file)
    return file


def register(registry: Any, weights: Path, folder: Path, alias: str = "candidate") -> Any:
    """Publishes weights below `folder`/artifacts as a version of the model `m` that an alias points to."""
    from shared.artifacts import open_root
    from shared.lineage.registry import VersionRecord, new_version

    files = folder / f"version-{alias}"
    files.mkdir()
    (files / "weights.pt").write_bytes(weights.read_bytes())
    (files / "model.json").write_text(json.dumps({"classes": list(rois.CLASSES), "framing": "pad", "imgsz": 64}))
    name = new_version()
    root = open_root(str(folder / "artifacts"), {})
    record = VersionRecord(
        model="m",
        version=name,
        uri=root.uri(f"versions/m/{name}"),
        key=f"versions/m/{name}",
        files=root.publish(files, f"versions/m/{name}"),
        classes=list(rois.CLASSES),
        framing="pad",
        imgsz=64,
        manifest_digest="0" * 64,
        class_counts=dict.fromkeys(rois.CLASSES, 10),
    )
    registry.add(record)
    registry.set_alias("m", alias, name)
    return record


def tiny(file: Path, seed: int = 0) -> Path:
    """Writes random parameters of the network `TINY`, as timm saves them, to `file`."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    network = timm.create_model(TINY, num_classes=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # else all images look much the same to it
    save_file(network.state_dict(), file)
    return file
