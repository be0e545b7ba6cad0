"""Backbones: networks that make a vector of an image, by a name of timm or from a Hugging Face folder.

The vector is the CLS token where the network was trained to have one, as DINO's are; else its pooled features.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, StorageError, WeightsError
from ..framing import FRAMINGS
from . import checkpoints
from .names import SHORT_NAMES

MIN_IMGSZ, MAX_IMGSZ = 32, 2048

CLS_TOKEN = "CLS token"
POOLED = "pooled features"

_OTHERWISE = "give the weights as a file or s3:// URI in 'weights'"


@dataclass(frozen=True)
class Backbone:
    """A network that makes vectors of images, and how images must be given to it.

    Attributes:
        name: timm's, such as "vit_small_patch8_224.dino"; of other networks what whoever asked calls them
        layer: what the vectors are: "CLS token", "pooled features" or "penultimate layer"
        framing: how an image becomes a square, see `framing.frame`
        imgsz: side of that square, in pixels
        mean: per channel (RGB), subtracted from pixels that were scaled to 0..1
        std: per channel, what they are divided by after that
        module: float32, in eval mode, without gradients; from normalised images (N, 3, imgsz, imgsz) to (N, outputs)
        outputs: the length of a vector
        sha256: of the parameters as loaded, in hexadecimal digits; the same for all files that hold them, and for
            all image sizes
    """

    name: str
    layer: str
    framing: str
    imgsz: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    module: torch.nn.Module
    outputs: int
    sha256: str


def is_backbone(name: str) -> bool:
    """Whether `load` takes a name: a short one, or that of a network of timm."""
    import timm

    return name in SHORT_NAMES or timm.is_model(name)


def load(name: str, *, framing: str = "pad", imgsz: int = 224, weights: Path | None = None) -> Backbone:
    """Loads a backbone.

    Args:
        name: one of `SHORT_NAMES`, or any network of timm
        framing: `pad` or `crop`
        imgsz: side of the square, pixels; position embeddings of another size are resampled
        weights: a file (see `checkpoints.read`); None means timm's on the Hugging Face hub, or its local cache

    Raises:
        InputError: if there is no such network, or it cannot take such images
        WeightsError: if the file cannot be used, or holds another network
        StorageError: if the hub cannot be reached, or does not give the weights
    """
    if framing not in FRAMINGS:
        raise InputError(f"There is no framing '{framing}': choose {' or '.join(FRAMINGS)}.")
    name, config = _known(name)
    kind, layer = _pooling(name)
    outputs = _outputs(name, kind, imgsz)
    file = _from_hub(name, config) if weights is None else Path(weights)
    model = _filled(name, kind, file)
    sha256 = checkpoints.digest(model)
    _resize(model, imgsz)
    model = model.eval().requires_grad_(False)
    return Backbone(name, layer, framing, imgsz, config.mean, config.std, model, outputs, sha256)


# Networks of timm


def _known(name: str) -> tuple[str, Any]:
    """Timm's full name of a network, and what timm says of its weights."""
    import timm

    if not is_backbone(name):
        near = difflib.get_close_matches(name, [*SHORT_NAMES, *timm.list_models(pretrained=True)], 3)
        raise InputError(f"There is no backbone '{name}': choose such as {', '.join(near) or 'dino_vits8'}.")
    name = SHORT_NAMES.get(name, name)
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        bare = name.split(".")[0]
        tags = [known for known in timm.list_pretrained() if known.split(".")[0] == bare]
        raise InputError(
            f"There is no backbone '{name}': choose such as {', '.join(tags[:5]) or 'dino_vits8'}."
        ) from error
    if config is None or config.input_size[0] != 3:
        raise InputError(f"'{name}' does not take RGB images: choose another backbone, such as dino_vits8.")
    bare = config.architecture or name.split(".")[0]
    return (f"{bare}.{config.tag}" if config.tag else bare), config


def _blank(name: str, kind: Mapping[str, Any]) -> Any:
    """A network of timm without parameters: shapes alone, at once."""
    with torch.device("meta"):
        return _made(name, kind)


def _made(name: str, kind: Mapping[str, Any]) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=0, **kind).eval()


def _pooling(name: str) -> tuple[dict[str, str], str]:
    """How to ask timm for the vectors of a network, and what they are."""
    model = _blank(name, {})
    if getattr(model, "global_pool", None) == "token":
        return {}, CLS_TOKEN
    # One that normalises after pooling was trained (or tuned) to be pooled: its CLS token was not.
    pools = not isinstance(getattr(model, "fc_norm", None), torch.nn.Identity | None)
    if getattr(model, "cls_token", None) is None or pools:
        return {}, POOLED
    try:
        _blank(name, {"global_pool": "token"})
    except (AssertionError, TypeError, ValueError):
        return {}, POOLED
    return {"global_pool": "token"}, CLS_TOKEN


def _outputs(name: str, kind: Mapping[str, Any], imgsz: int) -> int:
    """The length of a network's vectors, if it can take images of this size."""
    if isinstance(imgsz, bool) or not isinstance(imgsz, int) or not MIN_IMGSZ <= imgsz <= MAX_IMGSZ:
        raise InputError(f"The image size is {imgsz}: choose a number of pixels from {MIN_IMGSZ} to {MAX_IMGSZ:,}.")
    model = _blank(name, kind)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    patch = patch if isinstance(patch, int) else patch[0]
    if imgsz % patch:
        near = [n for n in (imgsz // patch * patch, (imgsz // patch + 1) * patch) if MIN_IMGSZ <= n <= MAX_IMGSZ]
        raise InputError(
            f"{name} cuts images into patches of {patch} pixels, so that {imgsz} pixels do not fit: choose the image "
            f"size {' or '.join(map(str, near))}."
        )
    try:
        with torch.device("meta"), torch.no_grad():
            _resize(model, imgsz)
            vectors = model(torch.zeros(1, 3, imgsz, imgsz))
    # Each network refuses in its own way: by an assertion, or somewhere inside of torch.
    except Exception as error:
        own = model.pretrained_cfg["input_size"][-1]
        raise InputError(
            f"{name} cannot take images of {imgsz} pixels: choose the image size {own}, for which it was made."
        ) from error
    if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2:
        raise InputError(f"{name} does not make one vector of an image: choose another backbone, such as dino_vits8.")
    return int(vectors.shape[1])


def _resize(model: Any, imgsz: int) -> None:
    """Makes a network take another size, where its parameters depend on that; timm resamples them."""
    if hasattr(model, "set_input_size"):
        model.set_input_size((imgsz, imgsz))


def _filled(name: str, kind: Mapping[str, Any], file: Path) -> Any:
    """A network with the parameters of a file, at the size that it was published for."""
    model = _made(name, kind)
    parameters, misfit = checkpoints.fit(checkpoints.read(file), model)
    if misfit:
        like = _looks_like(file)
        raise WeightsError(
            f"The weights in {file.name} do not fit {name}: of its {len(model.state_dict())} parameters, "
            f"{misfit.text(name)}{f'; it looks like {like}' if like else ''}."
        )
    try:
        model.load_state_dict(parameters)
    except RuntimeError as error:
        raise WeightsError(f"The weights in {file.name} could not be loaded into {name}.") from error
    return model


def _looks_like(file: Path) -> str | None:
    """The short name of the network that a file holds."""
    state = checkpoints.read(file)
    for short, name in SHORT_NAMES.items():
        if not checkpoints.fit(state, _blank(name, {}))[1]:
            return short
    return None


# The hub


def _from_hub(name: str, config: Any) -> Path:
    """The file of a network's weights, downloaded where it is not in the local cache."""
    from huggingface_hub import errors, hf_hub_download

    if not config.hf_hub_id:
        at = f"are at {config.url} only: download them and" if config.url else "do not exist:"
        raise StorageError(f"The weights of {name} {at} {_OTHERWISE}.")
    repo, _, revision = config.hf_hub_id.partition("@")
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for filename in names:
        try:
            return Path(hf_hub_download(repo, filename, revision=revision or None))
        except errors.LocalEntryNotFoundError as error:
            # For hf_hub_download, whatever it could not ask the hub about is "not in the cache".
            last: Exception = error
        except errors.EntryNotFoundError as error:
            last = error
            continue
        except errors.GatedRepoError as error:
            raise StorageError(
                f"The weights of {name} are gated: accept their licence at huggingface.co/{repo} and set HF_TOKEN, or "
                f"{_OTHERWISE}."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise StorageError(
                f"The Hugging Face hub has no public weights of {name} ({repo}): {_OTHERWISE}."
            ) from error
        # Of many kinds: of the network, the disk, the hub's own.
        except Exception as error:
            last = error
        raise StorageError(
            f"The weights of {name} could not be downloaded, there is no way to the Hugging Face hub: get {filename} "
            f"from huggingface.co/{repo} elsewhere, and {_OTHERWISE}."
        ) from last
    raise StorageError(f"The Hugging Face hub has no file of weights of {name} ({repo}): {_OTHERWISE}.") from last


# Hugging Face folders


class _ClsToken(torch.nn.Module):
    def __init__(self, model: torch.nn.Module, how: Mapping[str, bool]) -> None:
        super().__init__()
        self.model = model
        self.how = dict(how)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=images, **self.how).last_hidden_state[:, 0]


def load_folder(folder: Path, framing: str, imgsz: int) -> Backbone:
    """Loads a vision transformer from a Hugging Face folder; its vectors are the CLS token of the last hidden state.

    A classifier's folder does as well: what its classifier sees is left aside.

    Args:
        folder: with `config.json`, weights, and a `preprocessor_config.json`, which counts more than what follows;
            without it, images are normalised as ImageNet's, as for DINO
        framing: `pad` or `crop`, for folders that do not say
        imgsz: side of the square in pixels, for folders that do not say

    Raises:
        WeightsError: if a piece is missing or damaged, or it is no vision transformer with a CLS token
    """
    import inspect

    from .. import transformers_folder as hf

    folder = Path(folder)
    config = hf.config(folder)
    mean, std = hf.IMAGENET
    if (folder / hf.PROCESSOR).is_file():
        processor = hf.processor(folder)
        framing, imgsz = hf.geometry(folder, processor, framing, imgsz)
        mean, std = hf.normalisation(processor)
    # The pooler sits on top of the last hidden state and is often not there.
    model = hf.model(folder, config, "AutoModel", may_lack=("pooler.",))
    if not any(name.endswith("cls_token") for name, _ in model.named_parameters()):
        raise WeightsError(f"{folder} has no CLS token: choose a vision transformer that has one.")
    how = {}
    if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters and config.image_size != imgsz:
        how = {"interpolate_pos_encoding": True}
    module = _ClsToken(model, how).eval()
    try:
        with torch.inference_mode():
            outputs = module(torch.zeros(1, 3, imgsz, imgsz)).shape[1]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"The network in {folder} does not take RGB images of {imgsz} pixels.") from error
    sha256 = checkpoints.digest(model, without="pooler.")
    return Backbone(folder.name, CLS_TOKEN, framing, imgsz, mean, std, module, outputs, sha256)
