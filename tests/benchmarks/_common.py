"""What the benchmarks share: images, weights and datasets, real ones where they lie beside the checkout."""

import json
import os
import subprocess
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


_MEASURE = r"""
import json, re, sys, time
from pathlib import Path
import fiftyone as fo
import fiftyone.operators as foo
uri, dataset, params = sys.argv[1:]
began = time.perf_counter()
given = {"dataset": fo.load_dataset(dataset), "params": json.loads(params)}
def peak():
    # Not ru_maxrss: that of a new process begins with its parent's.
    return round(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024, 1)
before = peak()
result = foo.execute_operator(uri, given).result
spent = round(time.perf_counter() - began, 2)
print(json.dumps({"before": before, "mb": peak(), "seconds": spent, "result": result}, default=str))
"""


def measure(uri: str, dataset: str, params: dict[str, Any]) -> dict[str, Any]:
    """What an operator takes in a process of its own: MB `before` and at most (`mb`), `seconds`, its `result`.

    Needs Linux.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, uri, dataset, json.dumps(params)],
        cwd=ROOT,
        env=os.environ | {"FIFTYONE_PLUGINS_DIR": str(ROOT / "plugins")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
