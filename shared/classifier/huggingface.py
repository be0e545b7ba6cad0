"""Hugging Face image-classification folders, such as the lab's published vision transformers."""

import hashlib
from pathlib import Path
from typing import Any

import torch

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
    processor = _processor(folder)
    framing, imgsz = _geometry(folder, processor, framing, imgsz)
    mean, std = _normalisation(processor)
    files = _weight_files(folder)
    module = _HuggingFaceLogits(_model(folder, config)).eval()
    try:
        with torch.inference_mode():
            outputs = module(torch.zeros(1, 3, imgsz, imgsz)).shape[1]
    except (RuntimeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"The network in {folder} does not take RGB images of {imgsz} pixels.") from error
    if outputs != len(names) or len(config.id2label) != outputs:
        raise WeightsError(f"{folder} names {len(config.id2label)} classes, but its network tells {outputs}.")
    return Classifier(names, framing, imgsz, mean, std, module, "huggingface", _digest(files))


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise WeightsError(f"The config.json of {folder} is damaged, or needs code of its own.") from error
    kinds = getattr(config, "architectures", None) or []
    if not any(str(kind).endswith("ForImageClassification") for kind in kinds):
        raise WeightsError(
            f"{folder} is not an image classifier but {', '.join(map(str, kinds)) or 'of no said kind'}."
        )
    return config


def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    if not (folder / "preprocessor_config.json").is_file():
        raise WeightsError(
            f"{folder} has no preprocessor_config.json: without it nobody knows how its images were normalised."
        )
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise WeightsError(f"The preprocessor_config.json of {folder} is damaged, or needs code of its own.") from error


def _geometry(folder: Path, processor: Any, framing: str | None, imgsz: int | None) -> tuple[str, int]:
    """Framing and size that do what the folder's own processor does."""
    size, crop = _sides(processor, "size"), _sides(processor, "crop_size")
    crops = bool(getattr(processor, "do_center_crop", False))
    if getattr(processor, "do_resize", False) and not getattr(processor, "do_pad", False):
        height, edge = size.get("height"), size.get("shortest_edge")
        if height and height == size.get("width") and (not crops or crop.get("height") == height):
            return "stretch", height
        if edge and crops and crop.get("height") == crop.get("width") == edge and "longest_edge" not in size:
            return "crop", edge
    side = imgsz or crop.get("height") or size.get("height") or size.get("shortest_edge")
    if framing is None or not side:
        raise WeightsError(
            f"How the processor of {folder} makes images square is not supported: choose a framing and an image size."
        )
    return framing, side


def _sides(processor: Any, name: str) -> dict[str, int]:
    value = getattr(processor, name, None)
    return {key: int(side) for key, side in dict(value or {}).items() if side}


def _normalisation(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation for pixels scaled to 0..1, whatever scale the processor has."""
    factor = 255 * float(processor.rescale_factor if processor.do_rescale else 1)
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    return tuple(m / factor for m in mean), tuple(s / factor for s in std)  # type: ignore[return-value]


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise WeightsError(f"{folder} has no weights: model.safetensors is missing.")
    for file in files:
        if file.stat().st_size == 0:
            raise WeightsError(f"{file.name} in {folder} is empty: copy it again from its source.")
    return files


def _model(folder: Path, config: Any) -> torch.nn.Module:
    from transformers import AutoModelForImageClassification

    try:
        # Pickled weights (.bin) are read by torch's restricted unpickler, which runs no code.
        model, found = AutoModelForImageClassification.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        raise WeightsError(
            f"The weights in {folder} are damaged, do not fit its config.json, or are not safe to load "
            f"({type(error).__name__})."
        ) from error
    # transformers only warns, and goes on with random numbers in their place.
    lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if lacking:
        raise WeightsError(
            f"The weights in {folder} do not fit its config.json: {lacking[0]} is missing or of another size."
        )
    return model.eval().requires_grad_(False)


def _digest(files: list[Path]) -> str:
    """SHA-256 of the only file; of several, of their names and hashes."""
    hashes = [sha256(file) for file in files]
    if len(files) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(f"{f.name} {h}" for f, h in zip(files, hashes, strict=True)).encode()).hexdigest()
