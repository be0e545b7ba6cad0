"""Ultralytics' own trainer, with the few things that it does not do.

Bfloat16 on CPUs that have it; ROIs that were framed beforehand and are kept in memory; class names from a table;
weights loaded without running code from them; a checkpoint from which any machine can go on. Nothing is downloaded and
nothing is sent anywhere.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from torch.utils.data import Dataset, WeightedRandomSampler
from ultralytics.data.augment import classify_augmentations, classify_transforms
from ultralytics.data.build import InfiniteDataLoader, seed_worker
from ultralytics.models.yolo.classify import ClassificationTrainer, ClassificationValidator
from ultralytics.nn.tasks import ClassificationModel, torch_safe_load
from ultralytics.utils.torch_utils import strip_optimizer

from ..errors import WeightsError
from .data import TrainingSet

# Architectures that can be trained from scratch, by the name of Ultralytics' own description.
ARCHITECTURE = re.compile(r"yolo(v8|11|26)[nsmlx]-cls\.yaml")

# Key, in our checkpoints, of the best weights so far: whoever goes on from the last epoch needs them as well.
_BEST = "best"


class Finished(Exception):
    """The checkpoint to go on from is that of a whole training; never leaves this package."""

    def __init__(self, epochs: int):
        super().__init__(f"{epochs} epochs are done")
        self.epochs = epochs


def load_checkpoint(path: Path) -> tuple[ClassificationModel, dict[str, Any]]:
    """Loads a classifier's checkpoint without running any code that it holds.

    Returns:
        The network in float32, and the whole checkpoint.

    Raises:
        WeightsError: missing, damaged, hostile, or no Ultralytics classifier.
    """
    if not path.is_file():
        raise WeightsError(f"There are no weights at {path}.")
    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=True)
        model = checkpoint.get("ema") or checkpoint.get("model")
    except Exception as error:
        # Whatever a damaged or hostile file makes the loader raise, it is the file that is wrong.
        raise WeightsError(f"{path.name} is no Ultralytics checkpoint, is damaged, or holds code.") from error
    if not isinstance(model, ClassificationModel):
        kind = type(model).__name__
        raise WeightsError(f"{path.name} holds a {kind}, not an image classifier; use weights whose name ends in -cls.")
    activation = model.yaml.get("activation")
    if activation and not re.fullmatch(r"(torch\.)?nn\.\w+\((inplace=(True|False))?\)", str(activation)):
        # Ultralytics evaluates this text when it builds the network anew.
        raise WeightsError(f"{path.name} names an activation that is not one of torch.nn.")
    return model.float(), checkpoint


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 natively, so that it is faster and not only smaller."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def augmentation(name: str, args: Any) -> T.Compose:
    """PIL image -> uint8 tensor (3, S, S), changed at random.

    `default` is Ultralytics' own for its arguments `args`; `rotations` suits animals that float in any direction;
    `none` leaves images alone. Pixels stay bytes until the whole batch is on the device: Ultralytics' classifiers take
    values from 0 to 1, so its normalisation by mean 0 and deviation 1 can be left out.
    """
    if name == "none":
        return T.Compose([T.PILToTensor()])
    if name == "rotations":
        turn = T.RandomAffine(180, scale=(0.9, 1.1), interpolation=T.InterpolationMode.BILINEAR)
        return T.Compose([turn, T.RandomHorizontalFlip(), T.RandomVerticalFlip(), T.PILToTensor()])
    steps = classify_augmentations(
        size=args.imgsz,
        scale=(1.0 - args.scale, 1.0),
        hflip=args.fliplr,
        vflip=args.flipud,
        erasing=args.erasing,
        auto_augment=args.auto_augment,
        hsv_h=args.hsv_h,
        hsv_s=args.hsv_s,
        hsv_v=args.hsv_v,
    ).transforms
    steps = [T.PILToTensor() if isinstance(step, T.ToTensor) else step for step in steps]
    return T.Compose([step for step in steps if not isinstance(step, T.Normalize)])


class FramedImages(Dataset):
    """The framed images of one split, decoded once where memory allows, else at each use.

    Attributes:
        samples: (path, class index) of each image, sorted by path.
        torch_transforms: PIL image -> tensor (3, S, S).
    """

    def __init__(self, folder: Path, transforms: T.Compose, cache_bytes: int):
        """Lists the images of `folder`, and decodes them all if they take at most `cache_bytes`."""
        groups = sorted(folder.iterdir())
        self.samples = [(path, int(group.name)) for group in groups for path in sorted(group.iterdir())]
        self.torch_transforms = transforms
        self.images: np.ndarray | None = None
        first = self._decode(self.samples[0][0])
        if len(self.samples) * first.nbytes <= cache_bytes:
            # One array, not a list: worker processes would copy a list page by page.
            self.images = np.empty((len(self.samples), *first.shape), np.uint8)
            with ThreadPoolExecutor() as pool:
                for i, image in enumerate(pool.map(self._decode, (path for path, _ in self.samples))):
                    self.images[i] = image

    @staticmethod
    def _decode(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> dict[str, Any]:
        path, label = self.samples[i]
        rgb = self._decode(path) if self.images is None else self.images[i]
        return {"img": self.torch_transforms(Image.fromarray(rgb)), "cls": label}


class AheadLoader(InfiniteDataLoader):
    """Ultralytics' loader, which prepares the next batch while the network works on this one.

    Ultralytics leaves one core to the loader and then, on CPUs, does not use it. One thread, so that random numbers are
    drawn in one order.
    """

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:  # type: ignore[override]
        """One epoch of batches."""
        batches = super().__iter__()
        if self.num_workers:  # processes are ahead already
            yield from batches
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = pool.submit(next, batches, None)
                yield batch


class _Autocast(torch.nn.Module):
    """Shows a network to Ultralytics' validator with its forward pass in bfloat16 on the CPU."""

    def __init__(self, model: ClassificationModel):
        super().__init__()
        self.model, self.names, self.loss = model, model.names, model.loss

    def forward(self, images: torch.Tensor, **options: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(images, **options)


class Validator(ClassificationValidator):
    """Ultralytics' validator, in bfloat16 where training is."""

    def get_model(self, model: Any, trainer: Any = None) -> Any:
        """The trainer's averaged weights."""
        model = super().get_model(model, trainer)
        return _Autocast(model) if trainer is not None and trainer.cpu_bfloat16 else model


class Trainer(ClassificationTrainer):
    """Trains Ultralytics' way on a TrainingSet.

    Ultralytics' own `resume` reads a checkpoint unsafely and insists on the folders of the first machine, so going on
    is done here: `resume_from` gives the weights, the optimizer's state and the rows of the CSV file.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        base: Path | str,
        overrides: dict[str, Any],
        *,
        augment: str = "default",
        oversample: bool = False,
        resume_from: Path | None = None,
        cache_bytes: int = 0,
    ):
        """Prepares; `train()` trains.

        Args:
            training_set: the framed images.
            base: a checkpoint, or an architecture such as `yolov8n-cls.yaml`.
            overrides: Ultralytics' training arguments.
            augment: one of `train.AUGMENTATIONS`.
            oversample: draw every class equally often; an epoch keeps its length.
            resume_from: `last.pt` of an earlier run with the same arguments.
            cache_bytes: memory for decoded images, for each split.
        """
        self.training_set, self.base, self.resume_from = training_set, base, resume_from
        self.augment, self.oversample, self.cache_bytes = augment, oversample, cache_bytes
        self.cpu_bfloat16 = False
        self.amp, self.threads = False, 0
        self.seconds_before = 0.0
        self._resumed: dict[str, Any] = {}
        super().__init__(overrides=overrides)
        self.threads = torch.get_num_threads()  # Ultralytics takes all cores but one on CPUs
        for event, functions in self.callbacks.items():
            # Usage statistics, sent to Google; the callbacks of W&B, MLflow and so on stay.
            self.callbacks[event] = [f for f in functions if f.__module__ != "ultralytics.utils.events"]

    @property
    def _network(self) -> ClassificationModel:
        """`model`, which is a name only until it is set up."""
        assert isinstance(self.model, ClassificationModel)
        return self.model

    def get_dataset(self) -> dict[str, Any]:
        """The folders of the training set, and its class names instead of the folders' numbers."""
        folder, names = self.training_set.folder, dict(enumerate(self.training_set.classes))
        return {"train": folder / "train", "val": folder / "val", "nc": len(names), "names": names, "channels": 3}

    def setup_model(self) -> dict[str, Any] | None:
        """Builds the network, and returns the checkpoint to go on from, where there is one."""
        if self.resume_from is None and ARCHITECTURE.fullmatch(str(self.base)):
            self.model = self.get_model(cfg=str(self.base), verbose=False)
            return None
        if self.resume_from is None and Path(self.base).suffix != ".pt":
            raise WeightsError(f"{self.base} is no .pt file, nor an architecture such as yolov8n-cls.yaml.")
        weights, checkpoint = load_checkpoint(Path(self.resume_from or self.base))
        self.model = self.get_model(cfg=weights.yaml, weights=weights, verbose=False)
        if self.resume_from is None:
            return None
        if list(weights.names.values()) != self.training_set.classes:
            raise WeightsError("The checkpoint to go on from has other classes; start the training anew.")
        self.seconds_before = restore(checkpoint, self.best, self.csv)
        done, best = checkpoint["epoch"] + 1, (checkpoint.get("stopper") or {}).get("best_epoch", 0)
        if done >= self.epochs or (self.args.patience and done - best >= self.args.patience):
            raise Finished(done)
        self.resume, self._resumed = True, checkpoint
        # Other random numbers than in the epochs that are done.
        torch.manual_seed(self.args.seed + 1 + checkpoint["epoch"])
        return checkpoint

    def get_dataloader(
        self, dataset_path: str | Path, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> InfiniteDataLoader:
        """Batches of one split; a last training batch of one image is left out."""
        train = mode == "train"
        transforms = augmentation(self.augment, self.args) if train else classify_transforms(self.args.imgsz)
        dataset = FramedImages(Path(dataset_path), transforms, self.cache_bytes)
        if not train:
            self._network.transforms = transforms
        batch_size = min(batch_size, len(dataset))
        generator = torch.Generator().manual_seed(torch.initial_seed())
        sampler = None
        if train and self.oversample:
            labels = np.array([label for _, label in dataset.samples])
            weights = 1 / np.bincount(labels, minlength=len(self.training_set.classes))[labels]
            sampler = WeightedRandomSampler(weights.tolist(), len(dataset), generator=generator)
        return AheadLoader(
            dataset=dataset,
            batch_size=batch_size,
            shuffle=train and sampler is None,
            sampler=sampler,
            num_workers=min(self.args.workers, -(-len(dataset) // batch_size)),
            pin_memory=self.device.type == "cuda",
            worker_init_fn=seed_worker,
            generator=generator,
            # BatchNorm has no variance in one value, which is what a batch of one leaves of a small image.
            drop_last=train and batch_size > 1 and len(dataset) % batch_size == 1,
        )

    def get_validator(self) -> Validator:
        """The validator of each epoch."""
        return Validator(self.test_loader, self.save_dir, args=copy(self.args), _callbacks=self.callbacks)

    def auto_batch(self, max_num_obj: int = 0, dataset_size: int = 0) -> int:
        """What fits the GPU, at most what leaves an epoch enough steps to learn from."""
        self.args.nbs = min(super().auto_batch(max_num_obj), sensible_batch(self.training_set))
        return self.args.nbs

    def _setup_train(self) -> None:
        super()._setup_train()
        # After Ultralytics' set-up, because that switches mixed precision on only after a trial with weights which it
        # would download, and never on CPUs.
        if self.device.type == "cpu" and has_bfloat16():
            self.amp = self.cpu_bfloat16 = True
            self._network.to(memory_format=torch.channels_last)
        elif self.device.type == "cuda" and self.args.amp is False and torch.cuda.get_device_capability() >= (7, 0):
            self.amp, self.scaler = True, torch.amp.GradScaler("cuda")
            if self._resumed.get("scaler"):
                self.scaler.load_state_dict(self._resumed["scaler"])
        self._resumed = {}

    def preprocess_batch(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Moves a batch to the device and makes its pixels floats from 0 to 1."""
        batch = super().preprocess_batch(batch)
        if batch["img"].dtype == torch.uint8:
            batch["img"] = batch["img"].float().div_(255)
        if self.cpu_bfloat16:
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def save_model(self) -> bool:
        """Writes `last.pt`, and `best.pt` after the best epoch; the last one holds the best weights too."""
        saved = super().save_model()
        if saved and self.fitness != self.best_fitness and self.best.exists():
            last, best = (torch_safe_load(str(path), safe_only=True)[0] for path in (self.last, self.best))
            torch.save(last | {_BEST: best | {"optimizer": None}}, self.last)
        return saved

    def final_eval(self) -> None:
        """Makes `best.pt` a plain model; the suite measures it with the code that will apply it."""
        if self.best.exists():
            strip_optimizer(self.best)


def sensible_batch(training_set: TrainingSet) -> int:
    """The largest batch, a power of two from 8 to 256, that leaves an epoch at least 32 steps."""
    images = sum(counts["train"] for counts in training_set.counts.values())
    return int(np.clip(2 ** int(np.log2(max(images, 32) / 32)), 8, 256))


def restore(checkpoint: dict[str, Any], best: Path, csv: Path) -> float:
    """Writes the best weights and the rows of the CSV file that a checkpoint of ours holds; returns its seconds."""
    torch.save(checkpoint.get(_BEST) or checkpoint, best)
    results = checkpoint.get("train_results") or {}
    rows = [",".join(f"{value:.6g}" for value in row) for row in zip(*results.values(), strict=True)]
    if rows:
        csv.write_text("\n".join([",".join(results), *rows]) + "\n")
    return float(results["time"][-1]) if rows else 0.0
