"""Parameters from files that others wrote, read without running code, and whether they fit a network.

Whatever the container (safetensors, torch's pickles), and whether a training run kept its state around
them: what comes out is a plain table of tensors by name.
"""

import argparse
import hashlib
import pickle
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError

# Under which a training run keeps the parameters; an average of them, or DINO's teacher, comes first.
_WRAPPERS = ("state_dict_ema", "model_ema", "teacher", "student", "state_dict", "model")
# What wrappers put before the names: data parallel, torch.compile, DINO's trainer (whose heads lie outside of it).
_PREFIXES = ("module.", "_orig_mod.", "backbone.")
# Parts that training alone needs, by the first piece of their names.
_TRAINING_PARTS = {"head", "head_dist", "last_layer", "dino_head", "ibot_head", "mask_token", "masked_embed"}

_SHOWN = 3

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Misfit:
    """How parameters differ from those of a network.

    Attributes:
        missing: names that only the network has
        unexpected: names that only the file has
        shapes: by name, the shapes in the file and in the network where they differ
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: dict[str, tuple[Shape, Shape]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def text(self, network: str) -> str:
        """What differs, with the first few names, as part of a sentence."""
        said = []
        if self.missing:
            said.append(f"{len(self.missing)} missing in the file ({_first(self.missing)})")
        if self.unexpected:
            said.append(f"{len(self.unexpected)} that the network has not ({_first(self.unexpected)})")
        if self.shapes:
            pairs = [f"{k} is {here} in the file, {there} in {network}" for k, (here, there) in self.shapes.items()]
            said.append(f"{len(self.shapes)} of another shape ({_first(pairs, '; ')})")
        return ", ".join(said)


def _first(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    return between.join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])


def read(path: Path) -> dict[str, torch.Tensor]:
    """The parameters in a file, by their names in the network.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote: the parameters alone, or a checkpoint of a
            training run such as DINO's, of which the teacher is taken

    Raises:
        WeightsError: if it is missing, damaged, of another kind, or could run code
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no file of weights at {path}.")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path.name} is empty: copy it again from its source.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = _without_prefixes({str(k): v for k, v in _unwrapped(content).items() if isinstance(v, torch.Tensor)})
    if not state:
        raise WeightsError(f"{path.name} holds no parameters of a network.")
    odd = [name for name, tensor in state.items() if tensor.layout != torch.strided or tensor.is_quantized]
    if odd:
        raise WeightsError(f"{path.name} has quantised or sparse parameters, such as {odd[0]}: save plain ones.")
    return state


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsError(
            f"{path.name} is truncated, damaged or no safetensors file: copy it again from its source."
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        # Only the wanted part of a long checkpoint (with an optimizer's state) is then read from disk. DINO's own
        # trainer keeps its arguments as a Namespace, which holds values and does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    # The bytes decide what is raised; whatever it is, this file is of no use.
    except Exception as error:
        raise WeightsError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: Exception) -> str:
    said = str(error)
    if "TorchScript" in said:
        return f"{path.name} is an exported TorchScript file: give the parameters (state_dict) that it was made from."
    foreign = re.search(r"unsupported (?:global|class)\W*(?:global )?([\w.]+)", said, re.IGNORECASE)
    if foreign:
        return (
            f"{path.name} was not loaded because it asks for '{foreign[1]}', which is no parameter and could run "
            "code: save the parameters alone (state_dict), or use weights from a source that you trust."
        )
    if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
        return f"{path.name} was not loaded because it holds more than parameters: save them alone (state_dict)."
    return f"{path.name} is truncated, damaged or no file of weights: copy it again from its source."


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            return content
        content = inner
    return {}


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    while prefix := next((p for p in _PREFIXES if any(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state


def fit(state: Mapping[str, torch.Tensor], model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], Misfit]:
    """Parameters under the names and in the layout of a network of timm, and what then still differs.

    The renaming is timm's own, which knows the original releases of what it has; it also resamples position
    embeddings of another image size. Patches of another size are not resampled: that is another network.

    Args:
        state: see `read`
        model: of timm, without classifier; may be on the meta device
    """
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    renamed = _renamed(state, model)
    parts = _TRAINING_PARTS | {name.split(".")[0] for name in _classifiers(model)}
    renamed = {name: v for name, v in renamed.items() if name in own or name.split(".")[0] not in parts}
    shapes = {k: (tuple(v.shape), own[k]) for k, v in renamed.items() if k in own and tuple(v.shape) != own[k]}
    patches = state.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4 and tuple(patches.shape) != own.get("patch_embed.proj.weight"):
        shapes["patch_embed.proj.weight"] = tuple(patches.shape), own.get("patch_embed.proj.weight", ())
    missing = tuple(name for name in own if name not in renamed)
    unexpected = tuple(name for name in renamed if name not in own)
    return renamed, Misfit(missing, unexpected, shapes)


def _renamed(state: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    import timm

    entry = timm.models.model_entrypoint(model.pretrained_cfg["architecture"])
    # By timm's convention, the module of a family of networks has it where there is something to rename.
    rename = getattr(sys.modules[entry.__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return dict(state)
    try:
        return dict(rename(dict(state), model))
    # Made for what its authors published; what it cannot take is compared as it is.
    except Exception:
        return dict(state)


def _classifiers(model: Any) -> tuple[str, ...]:
    said = model.pretrained_cfg.get("classifier") or ()
    return (said,) if isinstance(said, str) else tuple(said)


def digest(model: torch.nn.Module, without: str | None = None) -> str:
    """SHA-256 of a network's parameters: their names, shapes and values, whatever file they came from.

    Args:
        model: on the CPU
        without: a part that does not count, by the beginning of its names

    Raises:
        WeightsError: if one is not finite
    """
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if without is not None and name.startswith(without):
            continue
        if not bool(value.isfinite().all()):
            raise WeightsError(f"The weights have numbers that are not finite, in {name}: their training failed.")
        total.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        total.update(value.contiguous().numpy().data)
    return total.hexdigest()
