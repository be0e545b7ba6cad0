"""Training from a view to a published version, against an export of a folder tree and `yolo classify train`."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import _common

EPOCHS, SIZE, BATCH = 5, 224, 32
SPLITS = "@mbari/train_classifier/assign_splits"
TRAIN = "@mbari/train_classifier/train_classifier"


def run() -> dict[str, Any]:
    """Wall time of both, one after the other, on the same split and for the same number of epochs."""
    import fiftyone.operators as foo

    files, what = _common.images()
    weights = _common.weights()
    with _common.dataset(files) as dataset, _common.folder() as folder:
        shares = {"train": 0.8, "val": 0.2, "test": 0.0}
        foo.execute_operator(SPLITS, {"dataset": dataset, "params": shares})
        dataset.reload()
        os.environ["MBARI_ARTIFACTS"] = str(folder / "artifacts")
        began = time.perf_counter()
        ours = _ours(dataset, weights)
        ours_seconds = time.perf_counter() - began
        began = time.perf_counter()
        _peer(dataset, weights, folder)
        peer_seconds = time.perf_counter() - began
    return {
        "name": "train",
        "ours": round(ours_seconds, 1),
        "peer": round(peer_seconds, 1),
        "ratio": round(ours_seconds / peer_seconds, 3),
        "unit": f"seconds for {EPOCHS} epochs, from the view to the version",
        "goal": "<= 0.7",
        "stages": ours["seconds"],
        "device": ours["device"],
        "images": what,
    }


def _ours(dataset: Any, weights: Path) -> dict[str, Any]:
    import fiftyone.operators as foo
    from fiftyone.operators.delegated import DelegatedOperationService

    params = {
        "model_name": "bench",
        "base_weights": str(weights),
        "epochs": EPOCHS,
        "imgsz": SIZE,
        "batch": BATCH,
        "patience": 0,
        "resume": False,
    }
    scheduled = foo.execute_operator(TRAIN, {"dataset": dataset, "params": params, "request_delegation": True})
    service = DelegatedOperationService()
    outcome = service.execute_operation(service.get(scheduled.result["id"]))
    outcome.raise_exceptions()
    return outcome.result


def _peer(dataset: Any, weights: Path, folder: Path) -> None:
    """What a scientist does without the suite: a folder a class, then Ultralytics' own command."""
    for split in ("train", "val"):
        paths, labels = dataset.match_tags(split).values(["filepath", "ground_truth.label"])
        for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
            target = folder / "tree" / split / label / f"{number}{Path(path).suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    settings = {
        "data": folder / "tree",
        "model": weights,
        "epochs": EPOCHS,
        "imgsz": SIZE,
        "batch": BATCH,
        "patience": EPOCHS,
        "project": folder / "peer",
        "plots": False,
    }
    command = [str(Path(sys.executable).parent / "yolo"), "classify", "train"]
    subprocess.run(
        [*command, *(f"{name}={value}" for name, value in settings.items())],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
