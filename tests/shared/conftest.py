"""Classifiers with random parameters, and images that look a little like plankton."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

CLASSES = ("Pseudo-nitzschia", "fecal_pellet", "Detonula/Cerataulina", "käfer", "copepod")


def draw_roi(seed: int, height: int, width: int) -> np.ndarray:
    """A bright ellipse in noise on dark ground, RGB."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle, a, b = rng.uniform(0, np.pi), rng.uniform(0.2, 0.9), rng.uniform(0.05, 0.5)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    body = ((u / a) ** 2 + (v / b) ** 2 < 1)[..., None] * rng.uniform(60, 230, 3)
    return (body + rng.gamma(2, 6, (height, width, 1))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def rois(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of 60 generated images of many shapes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("rois")
    sizes = np.random.default_rng(0).integers(20, 400, (60, 2))
    for i, (height, width) in enumerate(sizes):
        Image.fromarray(draw_roi(i, height, width)).save(folder / f"{i:02}.png")
    return sorted(map(str, folder.glob("*.png")))


def random_network(architecture: str, classes: int) -> torch.nn.Module:
    """An untrained network whose logits differ from image to image as a trained one's do."""
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    model = ClassificationModel(architecture, nc=classes, verbose=False)
    images = np.stack([draw_roi(1000 + i, 64, 64) for i in range(32)])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        # The statistics of batch normalisation, without which signals fade from layer to layer.
        model.train()
        for _ in range(60):
            model(batch)
        model.eval()
        linear = model.model[-1].linear
        linear.weight *= 2 / model(batch)[1].std(0).mean()
        linear.bias -= model(batch)[1].mean(0)
    return model


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[..., Path]:
    """Writes a checkpoint of a random network as Ultralytics' trainer does (half precision, in a dictionary)."""

    def save(
        path: Path,
        architecture: str = "yolov8n-cls.yaml",
        classes: tuple[str, ...] = CLASSES,
        outputs: int | None = None,
    ) -> Path:
        model = random_network(architecture, outputs or len(classes))
        model.names = dict(enumerate(classes))
        model.task = "classify"
        args = {"task": "classify", "imgsz": 640}
        torch.save({"epoch": -1, "model": model.half(), "ema": None, "train_args": args, "version": "8.4.0"}, path)
        return path

    return save


@pytest.fixture(scope="session")
def checkpoint(save_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLOv8n-cls checkpoint with five classes."""
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "net.pt")


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random vision transformer as Hugging Face folder."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=48,
        patch_size=8,
        initializer_range=0.5,
        num_labels=len(CLASSES),
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )
    folder = tmp_path_factory.mktemp("vit")
    ViTForImageClassification(config).save_pretrained(folder)
    means = {"image_mean": [0.2, 0.25, 0.3], "image_std": [0.3, 0.25, 0.2]}
    ViTImageProcessor(size={"height": 48, "width": 48}, resample=2, **means).save_pretrained(folder)
    return folder


class Management(ModuleType):
    """FiftyOne Enterprise's management SDK as it is documented: what it is asked, and why it refuses, if it does."""

    def __init__(self) -> None:
        super().__init__("fiftyone.management")
        self.asked: list[tuple[str, str, str | None]] = []
        self.refuse: Exception | None = None

    def create_snapshot(self, dataset_name: str, snapshot_name: str, description: str | None = None) -> None:
        if self.refuse:
            raise self.refuse
        self.asked.append((dataset_name, snapshot_name, description))


@pytest.fixture
def management(monkeypatch: pytest.MonkeyPatch) -> Management:
    """A stand-in for the management SDK, which is not public."""
    import fiftyone

    module = Management()
    monkeypatch.setitem(sys.modules, "fiftyone.management", module)
    monkeypatch.setattr(fiftyone, "management", module, raising=False)
    return module


@pytest.fixture
def five_rois(dataset: Any) -> Any:
    """A dataset of five ROIs: two of one class, one without a label; one in two splits, one in none."""
    import fiftyone as fo

    labels = ["a", "b", None, "a", "c c/c"]
    dataset.add_samples(
        [
            fo.Sample(
                filepath=f"/images/{i}.png",
                ground_truth=None if label is None else fo.Classification(label=label),
                elemental_id=None if i == 1 else f"e{i}",
                day=i % 2,
                tags=["mine", *tags],
            )
            for i, (label, tags) in enumerate(
                zip(labels, [["train"], ["val"], ["train"], ["train", "val"], []], strict=True)
            )
        ]
    )
    return dataset
