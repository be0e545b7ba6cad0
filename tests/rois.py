"""Small images of clearly different classes, drawn for tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLASSES = ("Calanus", "Pseudo-nitzschia", "fecal/pellet ü")


def draw(path: Path, kind: int, rng: np.random.Generator) -> None:
    """One noisy shape on a dark ground: a bar across (0), a bar down (1), a disc (2)."""
    height, width = int(rng.integers(30, 60)), int(rng.integers(30, 60))
    image = rng.integers(0, 30, (height, width, 3), dtype=np.uint8)
    centre = (width // 2, height // 2)
    if kind == 0:
        cv2.rectangle(image, (3, centre[1] - 4), (width - 4, centre[1] + 4), (200, 200, 200), -1)
    elif kind == 1:
        cv2.rectangle(image, (centre[0] - 4, 3), (centre[0] + 4, height - 4), (200, 200, 200), -1)
    else:
        cv2.circle(image, centre, min(centre) - 4, (200, 200, 200), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def fill(dataset: Any, folder: Path, counts: Mapping[str, int], seed: int = 0, **fields: Any) -> None:
    """Adds drawn and labelled samples to a dataset: so many of each class of `CLASSES`, every third one a group."""
    import fiftyone as fo

    rng = np.random.default_rng(seed)
    made = []
    for label, count in counts.items():
        kind = CLASSES.index(label) if label in CLASSES else 0
        for number in range(count):
            path = folder / f"{kind}-{seed}-{len(made)}.png"
            draw(path, kind, rng)
            made.append(
                fo.Sample(
                    filepath=str(path),
                    ground_truth=fo.Classification(label=label),
                    elemental_id=f"e{seed}-{len(made)}",
                    day=f"day {number // 3}",
                    **fields,
                )
            )
    dataset.add_samples(made)
