"""The features of a trained classifier are what its last linear layer sees."""

import pytest
import torch

from shared.classifier import weights
from shared.classifier.penultimate import penultimate
from shared.errors import WeightsError


def seen_by(linear: torch.nn.Linear, module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What goes into a layer when images go into a network."""
    inputs = []
    handle = linear.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.inference_mode():
        module(images)
    handle.remove()
    return inputs[0]


def check(classifier: weights.Classifier, linear: torch.nn.Linear, outputs: int) -> None:
    module, length = penultimate(classifier)
    images = torch.randn(3, 3, classifier.imgsz, classifier.imgsz, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = classifier.module(images)
        features = module(images)
    assert features.shape == (3, length) == (3, outputs)
    torch.testing.assert_close(features, seen_by(linear, classifier.module, images), atol=1e-6, rtol=0)
    torch.testing.assert_close(linear(features), before, atol=1e-4, rtol=1e-5)
    assert not any(p.requires_grad for p in module.parameters())


def test_real_ultralytics_weights(leaf_weights):
    classifier = weights.load(leaf_weights)
    check(classifier, classifier.module.model.model[-1].linear, 1280)


def test_an_ultralytics_checkpoint(checkpoint):
    classifier = weights.load(checkpoint, imgsz=64)
    check(classifier, classifier.module.model.model[-1].linear, 1280)


def test_a_hugging_face_classifier(vit_folder):
    classifier = weights.load(vit_folder)
    check(classifier, classifier.module.model.classifier, 32)


def test_a_network_that_ends_otherwise_is_refused(checkpoint):
    classifier = weights.load(checkpoint, imgsz=64)
    classifier.module.model.model[-1].linear = torch.nn.Identity()
    with pytest.raises(WeightsError, match="does not end in a linear layer"):
        penultimate(classifier)
