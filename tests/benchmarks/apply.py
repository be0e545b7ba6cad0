"""`apply_model` against FiftyOne's own `dataset.apply_model`, and against what decoding and the network allow.

Ours is the operator from FiftyOne's executor to the last label in the database, loading and compiling the model
included. The peer is FiftyOne's Ultralytics wrapper on the same dataset, at the same image size.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import _common

OPERATOR = "@mbari/apply_model/apply_model"
SIZE = 224
COPIES = 4  # for the peer: some thousand images, so that loading a model does not decide
BOUND_COPIES = 16
ROUNDS = 2  # the better of these, in turn, since neighbours on the machine only ever slow things down


def run() -> list[dict[str, Any]]:
    """The benchmarks `apply_cpu`, `apply_fp32` and `apply_bound`."""
    files, what = _common.images()
    weights = _common.weights()
    with _common.dataset(files, COPIES) as dataset:
        count = dataset.count()
        ways: dict[str, Callable[[], Any]] = {
            "auto": lambda: _ours(dataset, weights, "auto"),
            "full": lambda: _ours(dataset, weights, "full"),
            "peer": lambda: _peer(dataset, weights),
        }
        rates = dict.fromkeys(ways, 0.0)
        said: dict[str, Any] = {}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.perf_counter()
                said[name] = way()
                rates[name] = max(rates[name], count / (time.perf_counter() - began))
    results = [
        {
            "name": name,
            "ours": round(rates[key], 1),
            "peer": round(rates["peer"], 1),
            "ratio": round(rates[key] / rates["peer"], 2),
            "unit": "images/s, end to end",
            "goal": goal,
            "runtime": said[key]["runtime"],
            "images": f"{what}, {COPIES} times",
        }
        for name, key, goal in (("apply_cpu", "auto", ">= 5"), ("apply_fp32", "full", ">= 1.2"))
    ]
    return [*results, _bound(files, weights, what)]


def _ours(dataset: Any, weights: Path, precision: str) -> dict[str, Any]:
    import fiftyone.operators as foo

    params = {"model": str(weights), "imgsz": SIZE, "precision": precision, "prediction_field": f"ours_{precision}"}
    return foo.execute_operator(OPERATOR, {"dataset": dataset, "params": params}).result


def _peer(dataset: Any, weights: Path) -> None:
    from ultralytics import YOLO

    model = YOLO(weights)
    # A checkpoint may carry another size, such as 640, which would flatter us.
    model.overrides["imgsz"] = SIZE
    dataset.apply_model(model, label_field="peer", batch_size=64, progress=False)


def _bound(files: list[Path], weights: Path, what: str) -> dict[str, Any]:
    """End to end on many images, over what decoding and the network by themselves would allow."""
    import numpy as np

    from shared import runtimes
    from shared.classifier import weights as loader
    from shared.framing import frame
    from shared.media import Media, decode, map_threads

    classifier = loader.load(weights, imgsz=SIZE)
    runtime = runtimes.build(classifier)
    cores, media = os.cpu_count() or 1, Media()

    def read(file: Path) -> np.ndarray:
        return frame(decode(media.read(str(file))), SIZE, classifier.framing)

    rates = {"decode": 0.0, "runtime": 0.0, "ours": 0.0}
    with _common.dataset(files, BOUND_COPIES) as dataset:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            framed = list(map_threads(read, files, cores, 4 * cores))
            rates["decode"] = max(rates["decode"], len(files) / (time.perf_counter() - began))
            size = runtime.batch_size
            batches = [np.stack(framed[i : i + size]) for i in range(0, len(framed) - size + 1, size)]
            runtime(batches[0])
            began = time.perf_counter()
            for batch in batches:
                runtime(batch)
            rates["runtime"] = max(rates["runtime"], len(batches) * size / (time.perf_counter() - began))
            began = time.perf_counter()
            _ours(dataset, weights, "auto")
            rates["ours"] = max(rates["ours"], dataset.count() / (time.perf_counter() - began))
    on_gpu = "cuda" in runtime.description
    bound = min(rates["decode"], rates["runtime"]) if on_gpu else 1 / (1 / rates["decode"] + 1 / rates["runtime"])
    return {
        "name": "apply_bound",
        "ours": round(rates["ours"], 1),
        "peer": round(bound, 1),
        "ratio": round(rates["ours"] / bound, 3),
        "unit": "images/s, end to end, over the bound",
        "goal": ">= 0.85",
        "decode": round(rates["decode"], 1),
        "network": round(rates["runtime"], 1),
        "runtime": runtime.description,
        "images": f"{what}, {BOUND_COPIES} times",
    }
