"""Fine-tunes an image classifier with Ultralytics' own trainer on a folder that `data.build` made.

Early stop, learning rate schedule, averaged weights, checkpoints and the callbacks of W&B, MLflow and so on are
Ultralytics'. See `trainer` for the little that differs.
"""

import logging
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, StorageError
from ..runs import Monitor
from .data import TrainingSet

if TYPE_CHECKING:
    from .trainer import Trainer

logger = logging.getLogger(__name__)

AUGMENTATIONS = ("default", "rotations", "none")
BALANCES = ("none", "oversample")

# Kept for the life of the process, because Ultralytics remembers it.
_settings: tempfile.TemporaryDirectory | None = None

# On CPUs a larger batch is not faster, and a smaller one takes more steps of the optimizer in the same time.
_CPU_BATCH = 32

# Ultralytics collects the gradients of 64 images for a step, lets AdamW's rate fall with the number of classes, and
# warms up for three epochs: a thousand images leave a network half trained so. These reached more in the same time.
_SCHEDULE = {"optimizer": "AdamW", "lr0": 0.001, "momentum": 0.9, "cos_lr": True, "warmup_epochs": 1.0}


@dataclass
class Trained:
    """What a training left behind.

    Attributes:
        weights: the best epoch's weights, a plain Ultralytics checkpoint; does not exist if `epochs_done` is 0.
        csv: one row an epoch: losses, val top-1 and top-5, learning rates, seconds.
        args: every setting that was used, ready for JSON, without paths of this machine.
        epochs_done: whole epochs, those of the run that was resumed included.
        stopped: the monitor asked to stop before the end.
        seconds: wall time, those of the run that was resumed included.
        device: such as `cpu` or the name of a GPU.
        notes: what a person should know about it, such as a batch halved for want of memory.
    """

    weights: Path
    csv: Path
    args: dict[str, Any]
    epochs_done: int
    stopped: bool
    seconds: float
    device: str
    notes: list[str] = field(default_factory=list)


class _Stopped(Exception):
    """Ends Ultralytics' loop between two batches; never leaves this module."""


def train(
    training_set: TrainingSet,
    base: Path | str,
    out: Path,
    *,
    epochs: int = 50,
    batch: int = -1,
    augmentation: str = "default",
    balance: str = "none",
    patience: int = 10,
    seed: int = 51,
    device: str = "auto",
    monitor: Monitor | None = None,
    checkpoint: Callable[[Path, int, Path], None] | None = None,
    resume_from: Path | None = None,
) -> Trained:
    """Trains for `epochs` epochs, or until val top-1 has not risen for `patience` of them.

    Args:
        training_set: framed images, with at least one in train and in val.
        base: an Ultralytics `-cls` checkpoint, or an architecture to train from scratch such as `yolov8n-cls.yaml`.
        out: a folder for everything that is written.
        epochs: passes over the training images.
        batch: images in a step; -1 takes what suits the number of images and fits the memory.
        augmentation: `default` (Ultralytics' own), `rotations` (any rotation, flips, a little scale) or `none`.
        balance: `none`, or `oversample` to draw every class equally often.
        patience: epochs without a better val top-1 before an early stop; 0 for never.
        seed: of everything random. The same seed gives the same weights on the same kind of machine.
        device: `auto`, `cpu`, `cuda`, `cuda:<n>` or `mps`.
        monitor: told the progress at each batch, asked whether to stop.
        checkpoint: called after each epoch with the path of `last.pt`, the number of epochs done and the CSV file.
            That `last.pt` is all that another machine needs as `resume_from`.
        resume_from: `last.pt` of an earlier run with the same arguments.

    Raises:
        InputError: an argument that cannot be used, or too little memory for the smallest batch.
        WeightsError: base weights or a checkpoint that cannot be used.
        StorageError: the disk is full.
    """
    monitor = monitor or Monitor()
    number = _check(training_set, epochs, batch, augmentation, balance, patience, device)
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with _own_process_state(), _explaining_disk_errors(out):
        module = _trainer_module()
        on_gpu = number.isdigit()
        if batch == -1 and not on_gpu:
            batch = min(_CPU_BATCH, module.sensible_batch(training_set))
        trainer = module.Trainer(
            training_set,
            base.name if isinstance(base, Path) and base.suffix == ".yaml" else base,
            {
                "model": Path(base).name,
                "data": str(training_set.folder),
                "save_dir": str(out),
                "imgsz": training_set.imgsz,
                "epochs": epochs,
                "batch": batch,
                "nbs": max(batch, 1),
                **_SCHEDULE,
                "patience": patience,
                "seed": seed,
                "device": number,
                "workers": min(8, max(1, (os.cpu_count() or 2) - 1)) if on_gpu else 0,
                "deterministic": True,
                # Neither a trial of mixed precision nor plots, since both fetch files from the internet.
                "amp": "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else False,
                "plots": False,
            },
            augment=augmentation,
            oversample=balance == "oversample",
            resume_from=resume_from,
            cache_bytes=_cache_bytes(),
        )
        watch = _Watch(trainer, monitor, checkpoint)
        stopped = _run(trainer, watch)
    halved = 0 < trainer.batch_size < watch.batch
    return Trained(
        weights=trainer.best,
        csv=trainer.csv,
        args=_settings_used(trainer, augmentation, balance),
        epochs_done=watch.epochs_done,
        stopped=stopped,
        seconds=watch.seconds_before + time.monotonic() - started,
        device=torch.cuda.get_device_name(trainer.device) if on_gpu else number,
        notes=[f"The GPU's memory was too small for a batch of {watch.batch}; {trainer.batch_size} was used."] * halved,
    )


class _Watch:
    """Ultralytics' callbacks that report progress, keep checkpoints and end a stopped run."""

    def __init__(
        self,
        trainer: "Trainer",
        monitor: Monitor,
        checkpoint: Callable[[Path, int, Path], None] | None,
    ):
        self.monitor, self.checkpoint = monitor, checkpoint
        self.epochs_done, self.batch, self.step = 0, 0, 0
        self.seconds_before = 0.0
        trainer.add_callback("on_train_start", self.start)
        trainer.add_callback("on_train_epoch_start", self.epoch_start)
        trainer.add_callback("on_train_batch_end", self.batch_end)
        trainer.add_callback("on_val_batch_end", self.stop_if_asked)
        trainer.add_callback("on_model_save", self.saved)

    def start(self, trainer: "Trainer") -> None:
        self.batch, self.epochs_done = trainer.batch_size, trainer.start_epoch
        if trainer.start_epoch:
            self.seconds_before = trainer.seconds_before
            trainer.train_time_start -= self.seconds_before

    def epoch_start(self, trainer: "Trainer") -> None:
        self.step = 0

    def batch_end(self, trainer: "Trainer") -> None:
        self.step += 1
        assert trainer.metrics is not None
        steps = len(trainer.train_loader)
        what = f"Training, epoch {trainer.epoch + 1} of {trainer.epochs}"
        if trainer.epoch > trainer.start_epoch:
            what += f", val top-1 {trainer.metrics['metrics/accuracy_top1']:.3f}"
        self.monitor.progress(trainer.epoch * steps + self.step, trainer.epochs * steps, f"{what}, step")
        self.stop_if_asked(trainer)

    def stop_if_asked(self, _: Any) -> None:
        if self.monitor.stopping():
            raise _Stopped

    def saved(self, trainer: "Trainer") -> None:
        self.epochs_done = trainer.epoch + 1
        if self.checkpoint:
            self.checkpoint(trainer.last, self.epochs_done, trainer.csv)


def _run(trainer: "Trainer", watch: _Watch) -> bool:
    """Runs Ultralytics' loop to its end; returns whether it was stopped before."""
    from .trainer import Finished

    try:
        trainer.train()
        return False
    except Finished as finished:
        watch.epochs_done, watch.seconds_before = finished.epochs, trainer.seconds_before
        trainer.final_eval()
        return False
    except _Stopped:
        trainer.final_eval()
        if watch.epochs_done:
            trainer.run_callbacks("on_train_end")  # so that W&B, MLflow and so on close their runs
        return True
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            f"The GPU's memory is too small even for a batch of {trainer.batch_size}; "
            "choose a smaller imgsz or network."
        ) from error
    finally:
        for loader in (getattr(trainer, "train_loader", None), getattr(trainer, "test_loader", None)):
            if loader is not None:
                loader.close()


def _check(
    training_set: TrainingSet, epochs: int, batch: int, augmentation: str, balance: str, patience: int, device: str
) -> str:
    """Refuses arguments that cannot be used; returns the device in Ultralytics' words."""
    for name, value, choices in (
        ("augmentation", augmentation, AUGMENTATIONS),
        ("balance", balance, BALANCES),
    ):
        if value not in choices:
            raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
    if epochs < 1 or patience < 0 or not (batch == -1 or batch >= 1):
        raise InputError("epochs must be at least 1, patience at least 0, and batch at least 1 or -1 for automatic.")
    if training_set.stopped or not training_set.classes:
        raise InputError("The training set is incomplete, because reading it was stopped; start the run again.")
    if device == "auto":
        return "0" if torch.cuda.is_available() else "cpu"
    if device == "cpu" or (device == "mps" and torch.backends.mps.is_available()):
        return device
    number = device.removeprefix("cuda").removeprefix(":") or "0"
    if number.isdigit() and int(number) < (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        return number
    raise InputError(f"There is no device {device!r} on this machine; choose auto or cpu.")


def _settings_used(trainer: "Trainer", augmentation: str, balance: str) -> dict[str, Any]:
    """Ultralytics' arguments as they were in the end, and ours; JSON-ready, without paths of this machine."""
    local = ("data", "save_dir", "project", "name", "model", "resume", "mode", "task")
    precision = (
        ("bfloat16" if trainer.cpu_bfloat16 or trainer.args.amp == "bf16" else "float16") if trainer.amp else None
    )
    return {
        **{k: v if isinstance(v, int | float | str | None) else str(v) for k, v in vars(trainer.args).items()},
        **dict.fromkeys(local),
        "model": trainer.args.model,
        "batch": trainer.batch_size,
        "augmentation": augmentation,
        "balance": balance,
        "precision": precision or "float32",
        "threads": trainer.threads,
    }


def _cache_bytes() -> int:
    """Memory for the decoded images of one split: an eighth of what is free, because two runs share a worker."""
    import psutil

    return psutil.virtual_memory().available // 8


def _trainer_module() -> ModuleType:
    """The module `trainer`; Ultralytics is set up where this imports it first.

    Ultralytics looks for the internet and writes a settings file when it is imported. A person's own settings, which
    switch on W&B and the like, are used where there are any.
    """
    global _settings
    wanted = {"YOLO_OFFLINE": "true", "ULTRALYTICS_SAFE_LOAD": "1"}
    own = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "Ultralytics" / "settings.json"
    if "YOLO_CONFIG_DIR" not in os.environ and not own.is_file():
        _settings = _settings or tempfile.TemporaryDirectory(prefix="ultralytics-")
        wanted["YOLO_CONFIG_DIR"] = _settings.name
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        from . import trainer
    finally:
        _put_back(before)
    return trainer


@contextmanager
def _own_process_state() -> Iterator[None]:
    """Puts back what seeding and Ultralytics change for the whole process: random states, threads, flags, variables."""
    names = ("CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED")
    environment = {name: os.environ.get(name) for name in names}
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.current_device() if torch.cuda.is_available() else None
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic
    cudnn, fill = torch.backends.cudnn.deterministic, deterministic.fill_uninitialized_memory
    try:
        yield
    finally:
        _put_back(environment)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        torch.backends.cudnn.deterministic = cudnn
        deterministic.fill_uninitialized_memory = fill
        if cuda is not None:
            torch.cuda.set_device(cuda)


@contextmanager
def _explaining_disk_errors(out: Path) -> Iterator[None]:
    """Turns what a full or read-only disk raises into one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save says it with a RuntimeError of its file writer
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or "the disk is full"
        raise StorageError(
            f"Training could not write to {out}: {reason}. Free some space and start it again."
        ) from error


def _put_back(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
