"""Hugging Face folders, as `save_pretrained` of transformers writes them: read without a way out and without code.

What classifiers and backbones have in common: configuration, processor and parameters.
"""

from pathlib import Path
from typing import Any

import torch

from .errors import WeightsError

PROCESSOR = "preprocessor_config.json"

# Mean and standard deviation of ImageNet's images, by which most networks normalise.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def config(folder: Path) -> Any:
    """The folder's configuration.

    Raises:
        WeightsError: if it is missing, damaged, or of a network that transformers does not know
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise WeightsError(f"The config.json of {folder} is damaged, or needs code of its own.") from error


def processor(folder: Path) -> Any:
    """What made the folder's images ready.

    Raises:
        WeightsError: if it is missing or damaged
    """
    from transformers import AutoImageProcessor

    if not (folder / PROCESSOR).is_file():
        raise WeightsError(f"{folder} has no {PROCESSOR}: without it nobody knows how its images were normalised.")
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise WeightsError(f"The {PROCESSOR} of {folder} is damaged, or needs code of its own.") from error


def geometry(folder: Path, processor: Any, framing: str | None, imgsz: int | None) -> tuple[str, int]:
    """Framing and size that do what the folder's own processor does.

    Args:
        folder: for messages
        processor: the folder's
        framing: for processors that do what none of our framings does
        imgsz: for processors that do not say a size, pixels

    Raises:
        WeightsError: if neither says
    """
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


def normalisation(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation for pixels scaled to 0..1, whatever scale the processor has."""
    factor = 255 * float(processor.rescale_factor if processor.do_rescale else 1)
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    return tuple(m / factor for m in mean), tuple(s / factor for s in std)  # type: ignore[return-value]


def weight_files(folder: Path) -> list[Path]:
    """The files with the folder's parameters.

    Raises:
        WeightsError: if there are none, or one is empty
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise WeightsError(f"{folder} has no weights: model.safetensors is missing.")
    for file in files:
        if file.stat().st_size == 0:
            raise WeightsError(f"{file.name} in {folder} is empty: copy it again from its source.")
    return files


def model(folder: Path, config: Any, kind: str, may_lack: tuple[str, ...] = ()) -> torch.nn.Module:
    """The folder's network, float32, in eval mode and without gradients.

    Args:
        folder: with its weights
        config: the folder's
        kind: transformers' class that makes it, such as "AutoModelForImageClassification"
        may_lack: beginnings of names of parameters that do not matter

    Raises:
        WeightsError: if parameters are missing, damaged, or could run code
    """
    import transformers

    weight_files(folder)
    try:
        # Pickled weights (.bin) are read by torch's restricted unpickler, which runs no code.
        network, found = getattr(transformers, kind).from_pretrained(
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
    lacking = sorted(_name(key) for key in [*found["missing_keys"], *found["mismatched_keys"]])
    lacking = [name for name in lacking if not name.startswith(may_lack)] if may_lack else lacking
    if lacking:
        raise WeightsError(
            f"The weights in {folder} do not fit its config.json: {lacking[0]} is missing or of another size."
        )
    return network.eval().requires_grad_(False)


def _name(key: Any) -> str:
    """Of a parameter; transformers gives those of another shape with both shapes."""
    return str(key[0] if isinstance(key, tuple) else key)
