"""What the benchmarks share: images, weights and datasets, real ones where they lie beside the checkout."""

import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def images() -> tuple[list[Path], str]:
    """Image files in class folders, and what they are."""
    real = sorted((DATA / "pwssc").glob("*/*.png"))
    if real:
        return real, "pwssc, 1,144 real ROIs"
    sys.path.insert(0, str(ROOT / "scripts"))
    import demo_images

    folder = ROOT / "build" / "bench" / "rois"
    return [folder / roi.file for roi in demo_images.generate(folder)], "drawn ROIs"


def weights() -> Path:
    """A YOLOv8n-cls checkpoint: a trained one beside the checkout, else one with random weights."""
    real = DATA / "weights" / "leaf36-yolov8n-cls.pt"
    if real.exists():
        return real
    from ultralytics import YOLO

    file = ROOT / "build" / "bench" / "random-yolov8n-cls.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    YOLO("yolov8n-cls.yaml", verbose=False).save(str(file))
    return file


@contextmanager
def dataset(files: list[Path], copies: int = 1, **fields: Any) -> Iterator[Any]:
    """A FiftyOne dataset of image files, each so many times, labelled by their folders; deleted afterwards."""
    import fiftyone as fo

    made = fo.Dataset(f"bench-{uuid.uuid4().hex[:8]}")
    made.add_samples(
        [
            fo.Sample(filepath=str(f), ground_truth=fo.Classification(label=f.parent.name), **fields)
            for _ in range(copies)
            for f in files
        ],
        progress=False,
    )
    yield made
    made.delete()


@contextmanager
def folder() -> Iterator[Path]:
    """A scratch folder, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)
