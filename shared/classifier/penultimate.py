"""What a trained classifier has learnt to see: the features before its last linear layer."""

import copy

import torch

from ..errors import WeightsError
from .weights import Classifier


def penultimate(classifier: Classifier) -> tuple[torch.nn.Module, int]:
    """A network that gives what a classifier's last linear layer sees, and the length of that.

    Args:
        classifier: is not changed

    Returns:
        a module, in eval mode and without gradients, from normalised images (N, 3, imgsz, imgsz) to (N, K); and K

    Raises:
        WeightsError: if it does not end in a linear layer
    """
    module = copy.deepcopy(classifier.module).eval().requires_grad_(False)
    # Both families end so: Ultralytics' head in `linear`, transformers' image classifiers in `classifier`.
    last = [(name, part) for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)][-1:]
    name, linear = last[0] if last else ("", None)
    if linear is None or linear.out_features != classifier.outputs:
        raise WeightsError("This classifier does not end in a linear layer: choose another model as backbone.")
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, torch.nn.Identity())
    return module, linear.in_features
