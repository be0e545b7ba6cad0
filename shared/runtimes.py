"""A network on some hardware: torch on a GPU or CPU, or OpenVINO on a CPU.

With `auto` precision the work is done in half precision; for a network, where the two leading classes come
out so close that rounding may have swapped them, that image is computed again in full precision: so
the top class is that of full precision, at a fraction of its cost.

Every batch that reaches a network has the same number of images (the last is filled up), and each
image's outputs depend on itself alone, so that results do not depend on how images were cut into
batches, and a run that goes on where another was killed ends with the same numbers.
"""

import copy
import importlib.util
import math
import os
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from . import quiet_openvino
from .errors import InputError

RUNTIMES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "full")

# A lead below this many units of rounding, times the root of the spread of an image's logits, is
# computed again. Measured with OpenVINO's bfloat16 (unit 1/128) on 1,144 plankton ROIs: classifiers that
# were trained on such ROIs agree with full precision in 96.3 to 98.3% of top classes without it, in all
# with it, for 12 to 25% computed again; one trained on tree leaves, in 92.6 to 94.1% without it, in
# more than 99.8% with it, for 33 to 38%. A bound relative to the spread itself needs more for the same.
CLOSE_UNITS = 24

# Images that one inference request or forward pass takes. Measured on two Zen 5 cores with YOLOv8n-cls,
# OpenVINO: 4 to 32 differ by less than the noise; torch gains up to 32. Close calls come in small
# numbers, of which a smaller part wastes less on filling.
_OPENVINO_PART = 8
_OPENVINO_PART_CLOSE = 1
_TORCH_PART_CPU = 32
_TORCH_PART_CLOSE = 8
_TORCH_PART_GPU = 256

# A CPU batch should not take longer: it is how soon a run can report and stop. Larger ones gain nothing.
_BATCH_SECONDS = 1.0
_BATCH_MAX = 64


class Network(Protocol):
    """What can be made ready to run: a network, or a backbone of embeddings."""

    @property
    def imgsz(self) -> int:
        """Side of the square images that it sees, in pixels."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Per channel (RGB), subtracted from pixels that were scaled to 0..1."""

    @property
    def std(self) -> tuple[float, float, float]:
        """Per channel, what they are divided by after that."""

    @property
    def module(self) -> torch.nn.Module:
        """From normalised images (N, 3, imgsz, imgsz) to outputs (N, K): logits, or vectors."""

    @property
    def outputs(self) -> int:
        """K."""


class _Pass(Protocol):
    """From any number of images, uint8 (N, S, S, 3), to float32 outputs (N, K)."""

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


@dataclass
class Runtime:
    """Callable: images, uint8 (N, S, S, 3) RGB, any N, to float32 outputs (N, K). For one thread at a time.

    Attributes:
        description: what it runs on, such as "openvino bfloat16, close calls in float32"
        batch_size: the number of images that suits it
    """

    description: str
    batch_size: int
    first: _Pass
    again: _Pass | None = None
    unit: float = 0.0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Outputs of images; see the class."""
        outputs = self.first(images)
        if self.again is not None and outputs.shape[0]:
            close = close_calls(outputs, CLOSE_UNITS * self.unit)
            if close.any():
                outputs[close] = self.again(images[close])
        return outputs


def close_calls(logits: np.ndarray, tolerance: float) -> np.ndarray:
    """Which images' two leading classes are nearer than `tolerance` times the root of their logits' spread.

    Args:
        logits: (N, C)
        tolerance: a factor; rounding errors grow with an image's logits (their standard deviation),
            but less than in proportion

    Returns:
        bool (N,)
    """
    if logits.shape[1] < 2:
        return np.zeros(len(logits), bool)
    top = np.partition(logits, -2, axis=1)[:, -2:]
    # Not ">=": what is not a number counts as close.
    clear = top[:, 1] - top[:, 0] > tolerance * np.sqrt(logits.std(axis=1))
    return ~clear


def build(
    network: Network,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    batch_size: int | None = None,
    settle: bool = True,
    part: int | None = None,
) -> Runtime:
    """Makes a network ready to run.

    Args:
        network: is not changed, and may be built several times
        runtime: `torch`, `openvino`, or `auto`: torch on a GPU, on a CPU OpenVINO where it is installed
        precision: `auto` (half precision where the hardware has it) or `full`
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:<n>`
        batch_size: images at a time; by default what fits the memory (GPU) or takes about a second (CPU)
        settle: whether close calls between an image's two largest outputs are computed again in full precision,
            as befits a classifier
        part: images that a CPU computes in one pass, where the usual number does not suit the network

    Raises:
        InputError: if there is no such choice here
    """
    if runtime not in RUNTIMES:
        raise InputError(f"There is no runtime '{runtime}': choose {', '.join(RUNTIMES)}.")
    if precision not in PRECISIONS:
        raise InputError(f"There is no precision '{precision}': choose {' or '.join(PRECISIONS)}.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"The batch size is {batch_size}: choose 1 or more.")
    place = _device(device)
    has_openvino = importlib.util.find_spec("openvino") is not None
    if place.type == "cuda":
        if runtime == "openvino":
            raise InputError("OpenVINO runs on the CPU: choose the runtime torch, or the device cpu.")
        return _build_cuda(network, place, precision, batch_size, settle)
    if runtime == "openvino" and not has_openvino:
        raise InputError("OpenVINO is not installed on this worker: choose the runtime torch.")
    if runtime == "torch" or not has_openvino:
        return _build_torch_cpu(network, precision, batch_size, settle, part or _TORCH_PART_CPU)
    return _build_openvino(network, precision, batch_size, settle, part or _OPENVINO_PART)


def cores() -> int:
    """The number of cores that this process may use, in a container its share."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:  # noqa: PTH123 - a kernel's file, not a path of ours
            quota, period = file.read().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # not Linux, an older kernel, or no limit ("max")
        return count


def on_gpu(device: str) -> bool:
    """Whether a `device`, as `build` takes it, is a GPU here.

    Raises:
        InputError: if there is no such device here
    """
    return _device(device).type == "cuda"


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(f"cuda:{device}" if device.isdigit() else device)
    except RuntimeError as error:
        raise InputError(f"There is no device '{device}': choose auto, cpu or cuda.") from error
    if place.type not in ("cpu", "cuda"):
        raise InputError(f"There is no device '{device}': choose auto, cpu or cuda.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(f"There is no GPU '{device}' on this worker: choose auto or cpu, or another worker.")
    return place


class _FromPixels(torch.nn.Module):
    """A network with its normalisation, which takes images as they are in memory: uint8 (N, S, S, 3)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Network, half: torch.dtype | None = None) -> None:
        super().__init__()
        self.module = copy.deepcopy(network.module)
        self.dtype = torch.float32
        if half is not None:
            self.module, self.dtype = self.module.to(half), half
        self.register_buffer("mean", 255 * torch.tensor(network.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(network.std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # (N, S, S, 3) in memory is (N, 3, S, S) with channels last: no copy.
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self.module(pixels.to(self.dtype))


def _in_parts(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int) -> np.ndarray:
    """Runs images `size` at a time, the last part filled up, so that all have one shape."""
    done = []
    for part, count in _parts(images, size):
        done.append(run(part)[:count])
    return np.concatenate(done)


def _parts(images: np.ndarray, size: int) -> list[tuple[np.ndarray, int]]:
    """Parts of exactly `size` images, each with the number of real ones; one part of none for no images."""
    parts = [images[i : i + size] for i in range(0, len(images), size)] or [images]
    last = len(parts[-1])
    sizes = [len(part) for part in parts]
    if last < size:
        filling = np.zeros((size - last, *images.shape[1:]), images.dtype)
        parts[-1] = np.concatenate([parts[-1], filling])
    return list(zip(parts, sizes, strict=True))


def _batch_that_takes(run: _Pass, network: Network, part: int) -> int:
    """A number of images, in whole parts, that `run` takes about `_BATCH_SECONDS` for."""
    images = np.zeros((part, network.imgsz, network.imgsz, 3), np.uint8)
    began = time.monotonic()
    run(images)
    if time.monotonic() - began < _BATCH_SECONDS:
        # The first run is slow: memory is taken and kernels are made.
        began = time.monotonic()
        run(images)
    parts = int(_BATCH_SECONDS / max(time.monotonic() - began, 1e-6))
    return part * max(1, min(parts, _BATCH_MAX // part))


# Torch


class _TorchPass:
    """A network in torch; takes fewer images at a time when a GPU's memory turns out too small."""

    def __init__(self, network: torch.nn.Module, place: torch.device, part: int, autocast: bool = False) -> None:
        self._network = network.eval().to(place).to(memory_format=torch.channels_last)
        self._place = place
        self._autocast = autocast
        self.part = part

    def __call__(self, images: np.ndarray) -> np.ndarray:
        while True:
            try:
                return _in_parts(self._run, images, self.part)
            except torch.OutOfMemoryError as error:
                if self.part == 1:
                    raise InputError(
                        "The GPU has too little free memory for one image: choose the device cpu."
                    ) from error
                self.part //= 2
            # Outside of the handler: the error holds on to what was computed so far.
            torch.cuda.empty_cache()

    def _run(self, images: np.ndarray) -> np.ndarray:
        # Restored at the end; TF32, which torch allows for convolutions, is not full precision.
        exact = (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if self._place.type == "cuda" else nullcontext()
        )
        half = torch.autocast("cpu", torch.bfloat16) if self._autocast else nullcontext()
        with torch.inference_mode(), exact, half:
            return self._network(torch.from_numpy(images).to(self._place)).float().cpu().numpy()


def _build_torch_cpu(network: Network, precision: str, batch_size: int | None, settle: bool, part: int) -> Runtime:
    place = torch.device("cpu")
    part = min(batch_size or part, part)
    if precision == "full" or not _cpu_has_bfloat16():
        full = _TorchPass(_FromPixels(network), place, part)
        return Runtime("torch float32", batch_size or _batch_that_takes(full, network, part), full)
    half = _TorchPass(_FromPixels(network), place, part, autocast=True)
    size = batch_size or _batch_that_takes(half, network, part)
    if not settle:
        return Runtime("torch bfloat16", size, half)
    full = _TorchPass(_FromPixels(network), place, min(_TORCH_PART_CLOSE, part))
    unit = torch.finfo(torch.bfloat16).eps
    return Runtime("torch bfloat16, close calls in float32", size, half, full, unit)


def _cpu_has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; where it only could by conversion, that is slower than float32."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def _build_cuda(network: Network, place: torch.device, precision: str, batch_size: int | None, settle: bool) -> Runtime:
    half = precision == "auto"
    first = _TorchPass(_FromPixels(network, torch.float16 if half else None), place, 1)
    first.part = size = batch_size or _batch_that_fits(first, network, place)
    name, on = "torch float16" if half else "torch float32", torch.cuda.get_device_name(place)
    if not (half and settle):
        return Runtime(f"{name} on {on}", size, first)
    # Close calls are few: small parts, so that little of them is filling.
    again = _TorchPass(_FromPixels(network), place, max(1, size // 8))
    return Runtime(f"{name}, close calls in float32 on {on}", size, first, again, torch.finfo(torch.float16).eps)


def _batch_that_fits(run: _TorchPass, network: Network, place: torch.device) -> int:
    """A power of two of images, up to `_TORCH_PART_GPU`, that takes at most half of the GPU's free memory."""
    run.part = 8
    images = np.zeros((8, network.imgsz, network.imgsz, 3), np.uint8)
    torch.cuda.reset_peak_memory_stats(place)
    before = torch.cuda.memory_allocated(place)
    run(images)
    each = max(1, (torch.cuda.max_memory_allocated(place) - before) // run.part)
    free, _ = torch.cuda.mem_get_info(place)
    fits = max(1, int(free / 2 / each))
    return min(_TORCH_PART_GPU, 2 ** (fits.bit_length() - 1))


# OpenVINO


class _OpenVinoPass:
    """A compiled model with as many requests under way as it has streams."""

    def __init__(self, compiled: Any, part: int, classes: int) -> None:
        openvino = quiet_openvino.load()
        self._queue = openvino.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._queue.set_callback(_keep)
        self._part = part
        self._classes = classes

    def __call__(self, images: np.ndarray) -> np.ndarray:
        logits = np.empty((len(images), self._classes), np.float32)
        start = 0
        for part, count in _parts(images, self._part) if len(images) else []:
            self._queue.start_async({0: part}, logits[start : start + count])
            start += count
        self._queue.wait_all()
        return logits


def _keep(request: Any, logits: np.ndarray) -> None:
    logits[:] = request.get_output_tensor().data[: len(logits)]


def _build_openvino(network: Network, precision: str, batch_size: int | None, settle: bool, part: int) -> Runtime:
    openvino = quiet_openvino.load()
    core = openvino.Core()
    from_pixels = _FromPixels(network).eval()
    streams = cores()
    if batch_size is not None:
        part = max(1, min(part, math.ceil(batch_size / streams)))

    def compiled(bits: str, part: int) -> _OpenVinoPass:
        # One thread a stream: with several, cores wait for each other, the more so beside decoding threads.
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "INFERENCE_PRECISION_HINT": bits,
        }
        model.reshape([part, network.imgsz, network.imgsz, 3])
        return _OpenVinoPass(core.compile_model(model, "CPU", options), part, network.outputs)

    example = torch.zeros(2, network.imgsz, network.imgsz, 3, dtype=torch.uint8)
    model = openvino.convert_model(_traced(from_pixels, example), example_input=example)
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "full" or not has_bfloat16:
        run = compiled("f32", part)
        size = batch_size or _batch_that_takes(run, network, part * streams)
        return Runtime("openvino float32", size, run)
    half = compiled("bf16", part)
    size = batch_size or _batch_that_takes(half, network, part * streams)
    if not settle:
        return Runtime("openvino bfloat16", size, half)
    unit = torch.finfo(torch.bfloat16).eps
    full = compiled("f32", _OPENVINO_PART_CLOSE)
    return Runtime("openvino bfloat16, close calls in float32", size, half, full, unit)


def _traced(network: torch.nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
    """A network as the operations that images take through it, which OpenVINO reads.

    OpenVINO would do this itself, and then run the network twice more to compare: half of the time it takes.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        # Timm's networks look, and assert in words, whether an image has their size; here all images have one size.
        said, module = "Converting a tensor to a Python (boolean|number)", r"timm\.|torch\Z|torch\._tensor\Z"
        warnings.filterwarnings("ignore", said, torch.jit.TracerWarning, module)
        # What OpenVINO reads is for OpenVINO to change; whoever embeds ROIs cannot.
        warnings.filterwarnings("ignore", r"`torch\.jit\.trace(_method)?` is deprecated", FutureWarning)
        return torch.jit.trace(network, example, strict=False, check_trace=False)
