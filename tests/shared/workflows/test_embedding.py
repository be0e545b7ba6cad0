"""Backbones on the hardware that there is: near full precision on real ROIs, and no remarks to whoever watches."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import runtimes
from shared.embeddings import backbones
from shared.framing import frame
from shared.images import decode
from shared.workflows import embedding
from tests.models import TINY, tiny


def vectors(backbone, images, precision):
    built = embedding.runtime(backbone, precision=precision, device="cpu", batch_size=None)
    return built(images)


def cosines(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_features_of_a_real_classifier_are_near_full_precision_on_real_rois(pwssc, leaf_weights, tmp_path, db):
    backbone = embedding.find(str(leaf_weights), tmp_path, db, {})
    assert backbone.layer == "penultimate layer"
    files = sorted(pwssc.glob("*/*.png"))[::72]
    images = np.stack([frame(decode(file.read_bytes()), backbone.imgsz, backbone.framing) for file in files])
    full, auto = (vectors(backbone, images, precision) for precision in ("full", "auto"))
    assert full.shape == auto.shape == (16, 1280)
    assert cosines(full[1:], full[:-1]).min() < 0.99, "the ROIs look alike to it, so this shows nothing"
    assert cosines(full, auto).min() >= 0.999


@pytest.mark.skipif(not runtimes._cpu_has_bfloat16(), reason="the processor has no bfloat16")
def test_a_token_is_computed_in_half_precision_and_near_full(rois, tmp_path):
    backbone = backbones.load(TINY, weights=tiny(tmp_path / "tiny.safetensors"), imgsz=64)
    images = np.stack([frame(decode(Path(path).read_bytes()), 64, "pad") for path in rois[:16]])
    full, half = (vectors(backbone, images, precision) for precision in ("full", "auto"))
    assert not np.allclose(full, half, rtol=1e-5, atol=1e-5), "nothing was computed in half precision"
    assert cosines(full, half).min() >= 0.999


def test_making_a_backbone_ready_says_nothing(tmp_path):
    backbone = backbones.load(TINY, weights=tiny(tmp_path / "tiny.safetensors"), imgsz=64)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        vectors(backbone, np.zeros((1, 64, 64, 3), np.uint8), "auto")
    assert [str(w.message) for w in said if w.category in (torch.jit.TracerWarning, FutureWarning)] == []
