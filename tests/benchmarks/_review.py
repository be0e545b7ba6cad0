"""Real images with known faults for the benchmark `review`; run as a program, it measures time and memory at size."""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import _clusters, _common

BLUR = 3.0  # standard deviation of the Gaussian, in pixels of a framed image of 224


def features() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], str]:
    """What a trained network sees in images, sharp and blurred (N, K), their classes (N,), these' names, and of what.

    Computed once and kept in build/bench.
    """
    files, what = _common.images()
    weights = _common.weights()
    kept = _common.ROOT / "build" / "bench" / f"review_{len(files)}_{weights.stem}_{BLUR}.npz"
    names = sorted({file.parent.name for file in files})
    labels = np.array([names.index(file.parent.name) for file in files])
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        sharp, blurred = _seen(files, weights)
        np.savez(kept, sharp=sharp, blurred=blurred)
    with np.load(kept) as seen:
        return seen["sharp"], seen["blurred"], labels, names, what


def _seen(files: list[Path], weights: Path) -> tuple[np.ndarray, np.ndarray]:
    import torch
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    from shared.classifier import weights as loading
    from shared.classifier.penultimate import penultimate
    from shared.framing import frame

    classifier = loading.load(weights, framing="pad", imgsz=224)
    network, _ = penultimate(classifier)
    mean, std = (np.array(values, np.float32) for values in (classifier.mean, classifier.std))
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for start in range(0, len(files), 64):
        framed = np.stack(
            [frame(np.array(Image.open(file).convert("RGB")), 224, "pad") for file in files[start : start + 64]]
        )
        for seen, images in zip(found, (framed, gaussian_filter(framed, (0, BLUR, BLUR, 0))), strict=True):
            pixels = ((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
            with torch.inference_mode():
                seen.append(network(torch.from_numpy(np.ascontiguousarray(pixels))).numpy())
    sharp, blurred = (np.concatenate(seen) for seen in found)
    return sharp, blurred


def main(rows: int, dims: int, classes: int) -> None:
    """Wrong labels, focus list and selection for so many generated predictions: seconds of each, and MB at most."""
    from shared.review import focus, novelty, select, spread, wrong_labels

    random = np.random.default_rng(0)
    vectors = _clusters.plankton(rows, dims)
    logits = vectors @ random.standard_normal((dims, classes), dtype=np.float32)
    logits += 0.5 * np.log(1 / np.arange(1, classes + 1, dtype=np.float32))  # unequal classes
    truth = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    predicted, names = probabilities.argmax(axis=1), [f"class {number:02d}" for number in range(classes)]
    columns = {f"field {i}": [f"value {v}" for v in random.integers(0, k, rows)] for i, k in enumerate((5, 12, 30))}
    wrong_labels.find(truth[:500], vectors[:500], None, classes)  # imports, and wakes the processors
    inputs = _memory("VmRSS")
    seconds = {}

    began = time.perf_counter()
    doubts = wrong_labels.find(truth, vectors, None, classes)
    assert doubts is not None
    seconds["wrong labels"] = time.perf_counter() - began

    began = time.perf_counter()
    confidence = probabilities[np.arange(rows), predicted]
    found = focus.Predictions(names, truth, predicted, confidence, np.zeros(rows, bool), columns)
    focus.rank(found, focus.Suspects(doubts.indices, doubts.suggested[doubts.indices]))
    seconds["focus list"] = time.perf_counter() - began

    began = time.perf_counter()
    unit = spread.unit_rows(vectors)
    counts = np.bincount(truth, minlength=classes)
    rare = np.argsort(counts)[:5]
    predictions = select.Predictions(names, predicted, rare=rare, **select.summarise(probabilities, predicted, rare))
    far = novelty.novelty(unit, unit[: rows // 2])
    chosen = select.choose(predictions, 500, examples=counts, novelty=far, vectors=unit)
    seconds["selection"] = time.perf_counter() - began
    assert len(chosen.rows) == 500
    mb = max(_memory("VmHWM") - inputs, 0.1)
    print(
        json.dumps({"seconds": {k: round(v, 1) for k, v in seconds.items()}, "mb": round(mb), "inputs": round(inputs)})
    )


def _memory(what: str) -> float:
    """VmRSS or VmHWM in MB."""
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
