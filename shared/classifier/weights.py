"""Classifiers from files: whatever their family, one `Classifier` that says how to be used.

Loading never runs code from a file: pickles are read by torch's restricted unpickler with
Ultralytics' list of known classes, and transformers loads without a model's own code.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..disk import sha256
from ..errors import InputError, WeightsError
from ..framing import FRAMINGS
from .bases import resolve_base, trusted_prefixes

__all__ = ["Classifier", "load", "load_names", "resolve_base", "sha256", "trusted_prefixes"]

# What Ultralytics' own predictor does with a bare checkpoint.
ULTRALYTICS_FRAMING = "crop"
ULTRALYTICS_IMGSZ = 224
MAX_IMGSZ = 2048


@dataclass(frozen=True)
class Classifier:
    """A network that tells classes of images, and how images must be given to it.

    Attributes:
        names: the classes, in the order of the logits
        framing: how an image becomes a square, see `framing.frame`
        imgsz: side of that square, in pixels
        mean: per channel (RGB), subtracted from pixels that were scaled to 0..1
        std: per channel, what they are divided by after that
        module: float32, in eval mode; from normalised images (N, 3, imgsz, imgsz) to logits (N, C)
        family: `ultralytics` or `huggingface`
        sha256: of the weights, in hexadecimal digits
    """

    names: tuple[str, ...]
    framing: str
    imgsz: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    module: torch.nn.Module
    family: str
    sha256: str

    @property
    def outputs(self) -> int:
        """C, the number of classes."""
        return len(self.names)


def load(path: Path, *, framing: str | None = None, imgsz: int | None = None) -> Classifier:
    """Loads a classifier.

    Args:
        path: an Ultralytics classification checkpoint (`.pt`), the folder of a model version (with
            `model.json`), or a Hugging Face image-classification folder (with `config.json`)
        framing: `pad` or `crop`, for weights that do not say
        imgsz: side of the square in pixels, for weights that do not say

    Raises:
        WeightsError: if there are none, or they are damaged, of another kind, or not safe to load
        InputError: if `framing` or `imgsz` is no valid choice
    """
    path = Path(path)
    if framing is not None and framing not in FRAMINGS:
        raise InputError(f"There is no framing '{framing}': choose {' or '.join(FRAMINGS)}.")
    if imgsz is not None and not _is_imgsz(imgsz):
        raise InputError(f"The image size is {imgsz}: choose a number of pixels from 32 to {MAX_IMGSZ:,}.")
    if not path.exists():
        raise WeightsError(f"There are no weights at {path}.")
    if path.is_file():
        return _load_checkpoint(path, framing or ULTRALYTICS_FRAMING, imgsz or ULTRALYTICS_IMGSZ)
    if (path / "model.json").is_file():
        return _load_version(path)
    if (path / "config.json").is_file():
        from .huggingface import load_folder

        return load_folder(path, framing, imgsz)
    raise WeightsError(
        f"The folder {path} is neither a model version (it has no model.json) nor a Hugging Face model "
        "(it has no config.json)."
    )


def load_names(path: Path) -> tuple[str, ...]:
    """The classes of weights, in the order of the logits.

    Raises:
        WeightsError: as `load` does
    """
    return load(path).names


def _is_imgsz(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 32 <= value <= MAX_IMGSZ


def _load_version(folder: Path) -> Classifier:
    try:
        said = json.loads((folder / "model.json").read_text())
        classes, framing, imgsz = tuple(said["classes"]), said["framing"], said["imgsz"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"The model.json of {folder} is damaged: fetch the version again.") from error
    usable = classes and all(isinstance(c, str) for c in classes) and framing in FRAMINGS and _is_imgsz(imgsz)
    if not usable:
        raise WeightsError(
            f"The model.json of {folder} does not say its classes, framing or size in a way that is known here: "
            "it was damaged, or written by a newer version of this plugin."
        )
    return _load_checkpoint(folder / "weights.pt", framing, imgsz, classes)


# Ultralytics checkpoints


class _UltralyticsLogits(torch.nn.Module):
    """Ultralytics' classifier, giving logits; in eval mode its head gives (probabilities, logits)."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)[1]


def _load_checkpoint(path: Path, framing: str, imgsz: int, names: tuple[str, ...] | None = None) -> Classifier:
    from ultralytics.nn.tasks import ClassificationModel

    checkpoint = _read_checkpoint(path)
    # As Ultralytics does: the average over the last steps, where training has left one.
    model = checkpoint.get("ema") or checkpoint.get("model")
    if isinstance(model, Mapping):
        raise WeightsError(
            f"{path.name} holds bare parameters without their network: save it with Ultralytics' `model.save(...)`."
        )
    if not isinstance(model, ClassificationModel):
        kind = "of no known kind" if model is None else f"a {type(model).__name__}"
        raise WeightsError(f"{path.name} is not a classifier but {kind}: choose weights of a `-cls` model.")
    try:
        own_names, mean, std = _describe(model)
        model = model.float().eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model.model[-1].export = False
        model = model.fuse(verbose=False)
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            raise WeightsError(f"{path.name} has parameters that are not numbers: its training failed.")
        module = _UltralyticsLogits(model).eval()
        with torch.inference_mode():
            outputs = module(torch.zeros(1, 3, imgsz, imgsz)).shape[1]
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, RuntimeError, AssertionError) as error:
        raise WeightsError(
            f"The network in {path.name} does not work ({type(error).__name__}): it is damaged, or of a version "
            "of Ultralytics that is not supported."
        ) from error
    names = names or own_names
    if len(names) != outputs:
        raise WeightsError(f"{path.name} names {len(names)} classes, but its network tells {outputs}.")
    return Classifier(names, framing, imgsz, mean, std, module, "ultralytics", sha256(path))


def _describe(model: Any) -> tuple[tuple[str, ...], tuple[float, float, float], tuple[float, float, float]]:
    """Class names, mean and standard deviation of an Ultralytics classifier."""
    named = model.names if isinstance(model.names, Mapping) else dict(enumerate(model.names))
    names = tuple(str(named[i]) for i in range(len(named)))
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    for step in getattr(getattr(model, "transforms", None), "transforms", ()):
        if type(step).__name__ == "Normalize":
            mean, std = _triple(step.mean), _triple(step.std)
    return names, mean, std


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def _read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Reads a checkpoint without running code from it.

    Raises:
        WeightsError: with the reason
    """
    import ultralytics.utils
    from ultralytics.nn import tasks

    if not path.is_file():
        raise WeightsError(f"There are no weights at {path}.")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path.name} is empty: copy it again from its source.")
    if path.suffix != ".pt":
        raise WeightsError(f"{path.name} is not an Ultralytics checkpoint: its name must end in .pt.")
    if not hasattr(ultralytics.utils, "SAFE_LOAD") or not hasattr(torch.serialization, "add_safe_globals"):
        raise WeightsError("The installed Ultralytics or torch cannot load weights safely: update them.")
    try:
        checkpoint, _ = tasks.torch_safe_load(path.resolve(), safe_only=True)
    # The bytes decide what is raised; whatever it is, these weights are of no use.
    except Exception as error:
        raise WeightsError(_why_unreadable(path, error)) from error
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(f"{path.name} is not an Ultralytics checkpoint.")
    return checkpoint


def _why_unreadable(path: Path, error: BaseException) -> str:
    said = f"{error} {error.__cause__ or ''}"
    if "TorchScript" in said:
        return f"{path.name} is an exported TorchScript file: give the .pt checkpoint that it was made from."
    foreign = re.search(r"unsupported (?:global|class)\W*(?:global )?([\w.]+)", said, re.IGNORECASE)
    if foreign:
        return (
            f"{path.name} was not loaded because it asks for '{foreign[1]}', which has no place in an "
            "Ultralytics checkpoint and could run code: use weights from a source that you trust."
        )
    if isinstance(error, ModuleNotFoundError | TypeError) and "YOLOv5" in said:
        return f"{path.name} is a YOLOv5 model, which is not supported: train with YOLOv8, 11 or 26."
    if not zipfile.is_zipfile(path) or "PytorchStreamReader" in said:
        return f"{path.name} is truncated, damaged or not a checkpoint: copy it again from its source."
    return f"{path.name} could not be loaded as an Ultralytics checkpoint ({type(error).__name__})."
