"""Hugging Face image-classification folders, such as the lab's published vision transformers."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from .. import transformers_folder as hf
from ..disk import sha256
from ..errors import WeightsError
from .weights import Classifier


class _HuggingFaceLogits(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=images).logits


def load_folder(folder: Path, framing: str | None, imgsz: int | None) -> Classifier:
    """Loads a folder with `config.json`, `preprocessor_config.json` and weights.

    A processor that resizes by another filter than the bilinear one is followed in all but that.

    Args:
        folder: as `save_pretrained` of transformers writes it
        framing: for processors that do what none of our framings does
        imgsz: for processors that do not say a size, pixels

    Raises:
        WeightsError: if a piece is missing or damaged, or it is not an image classifier
    """
    config = _config(folder)
    names = tuple(str(config.id2label.get(i)) for i in range(config.num_labels))
    processor = hf.processor(folder)
    framing, imgsz = hf.geometry(folder, processor, framing, imgsz)
    mean, std = hf.normalisation(processor)
    files = hf.weight_files(folder)
    module = _HuggingFaceLogits(hf.model(folder, config, "AutoModelForImageClassification")).eval()
    try:
        with torch.inference_mode():
            outputs = module(torch.zeros(1, 3, imgsz, imgsz)).shape[1]
    except (RuntimeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"The network in {folder} does not take RGB images of {imgsz} pixels.") from error
    if outputs != len(names) or len(config.id2label) != outputs:
        raise WeightsError(f"{folder} names {len(config.id2label)} classes, but its network tells {outputs}.")
    return Classifier(names, framing, imgsz, mean, std, module, "huggingface", _digest(files))


def _config(folder: Path) -> Any:
    config = hf.config(folder)
    kinds = getattr(config, "architectures", None) or []
    if not any(str(kind).endswith("ForImageClassification") for kind in kinds):
        raise WeightsError(
            f"{folder} is not an image classifier but {', '.join(map(str, kinds)) or 'of no said kind'}."
        )
    return config


def _digest(files: list[Path]) -> str:
    """SHA-256 of the only file; of several, of their names and hashes."""
    hashes = [sha256(file) for file in files]
    if len(files) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(f"{f.name} {h}" for f, h in zip(files, hashes, strict=True)).encode()).hexdigest()
