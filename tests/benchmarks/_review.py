"""What a trained network sees in real images, sharp and blurred, for the benchmark `review`."""

from pathlib import Path

import numpy as np

from tests.benchmarks import _common

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


def held_out(names: list[str]) -> tuple[np.ndarray, np.ndarray, list[str], str] | None:
    """Features (N, K), classes (N,) and these' names of all classes but `names`, and of what; None where they are not.

    Rankings, slices and kinds of choice were settled without them. How many labels are named (`wrong_labels.LIKELY` and
    `CHANCE`) and the budget's shares (`select.SHARES`) were settled on all classes together.
    """
    file = _common.DATA / "features" / "pwssc_leaf36_5109x1280_float16.npz"
    if not file.exists():
        return None
    with np.load(file) as kept:
        labels = kept["label"].astype(str)
        rows = np.flatnonzero(~np.isin(labels, names))
        others, numbers = np.unique(labels[rows], return_inverse=True)
        what = f"{len(others)} other classes of pwssc, {len(rows):,} real ROIs"
        return kept["X"][rows].astype(np.float32), numbers, others.tolist(), what


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
