"""Patches through the pipeline; whole images are tested with the classifier that goes through it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.media import Media
from shared.pipeline import Outputs, Patch, stream


@pytest.fixture
def quarters(tmp_path: Path) -> str:
    """An image of 41 x 60 pixels whose quarters are grey 10, 20, 30 and 40."""
    pixels = np.zeros((41, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, :30], pixels[20:, 30:] = 10, 20, 30, 40
    Image.fromarray(pixels).save(tmp_path / "quarters.png")
    return str(tmp_path / "quarters.png")


def run(items, read=None, batch_size=3):
    read = read or Media().read
    batches: list[Outputs] = []

    def mean(images: np.ndarray) -> np.ndarray:
        return images.mean((1, 2), dtype=np.float32)

    totals = stream(items, read, mean, batches.append, imgsz=8, framing="crop", batch_size=batch_size, workers=2)
    ids = [i for batch in batches for i in batch.ids]
    values = [float(v[0]) for batch in batches for v in batch.values]
    return totals, dict(zip(ids, values, strict=True)), dict(bad for batch in batches for bad in batch.unreadable)


def test_a_patch_is_what_its_box_touches(quarters):
    boxes = {
        "upper left": (0, 0, 0.4, 0.4),
        "upper right": (0.6, 0.0, 0.4, 0.4),
        "lower left": (0, 0.6, 0.4, 0.4),
        "beyond the edge": (0.6, 0.6, 7, 7),
        "before the edge": (-3, -3, 3.2, 3.2),
        "less than a pixel": (0.9, 0.9, 1e-6, 1e-6),
    }
    _, seen, bad = run([(name, Patch(quarters, box)) for name, box in boxes.items()])
    assert seen == {
        "upper left": 10,
        "upper right": 20,
        "lower left": 30,
        "beyond the edge": 40,
        "before the edge": 10,
        "less than a pixel": 40,
    }
    assert not bad


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0.2, 0.2, 0.0, 0.0), "no pixel"),
        ((1.5, 0.2, 0.1, 0.1), "no pixel"),
        ((0.5, 0.5, -0.3, 0.2), "no pixel"),
        ((float("nan"), 0, 1, 1), "not made of numbers"),
        ((0, 0, float("inf"), 1), "not made of numbers"),
        (None, "not made of numbers"),
        ((0.1, 0.2), "not made of numbers"),
        (("a", "b", "c", "d"), "not made of numbers"),
    ],
)
def test_a_box_that_shows_nothing_is_reported_and_the_rest_goes_on(quarters, box, reason):
    totals, seen, bad = run([("bad", Patch(quarters, box)), ("good", Patch(quarters, (0, 0, 0.4, 0.4)))])
    assert seen["good"] == 10
    assert reason in bad["bad"]
    assert (totals.done, totals.unreadable) == (1, 1)


def test_the_patches_of_one_image_cost_one_decoding(quarters):
    opened: Counter[str] = Counter()

    def read(path: str) -> bytes:
        opened[path] += 1
        return Path(path).read_bytes()

    _, seen, _ = run([(n, Patch(quarters, (0, 0, 0.4, 0.4))) for n in range(8)], read, batch_size=8)
    assert len(seen) == 8
    assert opened == {quarters: 1}


def test_an_image_that_cannot_be_read_is_said_of_each_of_its_patches(tmp_path):
    missing = str(tmp_path / "gone.png")
    _, seen, bad = run([(n, Patch(missing, (0, 0, 1, 1))) for n in range(3)])
    assert not seen
    assert bad == dict.fromkeys(range(3), f"There is no file at {missing}.")


def test_a_whole_image_and_its_whole_patch_are_alike(quarters):
    _, seen, _ = run([("image", quarters), ("patch", Patch(quarters, (0, 0, 1, 1)))])
    assert seen["image"] == seen["patch"]
