"""`train` on small generated images with a network of random weights: what it promises, not how good it gets."""

import os
import random
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from shared.classifier import data, train, trainer
from shared.errors import InputError, StorageError, WeightsError
from shared.runs import Monitor

NAMES = ("Copepod", "fecal pellet/ü.1")


def make_set(folder: Path, counts: dict[str, tuple[int, int]], imgsz: int = 64) -> data.TrainingSet:
    """Bars that lie (even classes) or stand (odd ones), `counts` images of each class in train and val."""
    rng = np.random.default_rng(0)
    rows = []
    for c, (label, numbers) in enumerate(counts.items()):
        for split, n in zip(("train", "val"), numbers, strict=True):
            for _ in range(n):
                image = rng.integers(0, 30, (40, 40, 3), np.uint8)
                at, half = rng.integers(10, 30, 2), np.array([12, 2])[:: 1 - 2 * (c % 2)]
                cv2.rectangle(image, (at - half).tolist(), (at + half).tolist(), (200, 220, 210), -1)
                path = folder / "in" / f"{len(rows)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image)
                rows.append((str(len(rows)), str(path), label, split))
    columns = ("sample_id", "filepath", "label", "split")
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(columns)})
    return data.build(
        table, folder / "data", lambda p: Path(p).read_bytes(), imgsz=imgsz, framing="pad", min_per_class=2
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> data.TrainingSet:
    return make_set(tmp_path_factory.mktemp("small"), dict.fromkeys(NAMES, (9, 4)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights and 7 classes of its own."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "random-cls.pt"
    model = YOLO("yolov8n-cls.yaml")
    model.model = ClassificationModel("yolov8n-cls.yaml", nc=7, verbose=False)
    model.save(str(path))
    return path


def run(training_set: data.TrainingSet, base: Path | str, out: Path, **options) -> train.Trained:
    return train.train(training_set, base, out, **{"epochs": 1, "batch": 8, "seed": 3, "device": "cpu", **options})


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    model, _ = trainer.load_checkpoint(path)
    return model.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows_of(csv: Path) -> list[int]:
    return [int(line.split(",")[0]) for line in csv.read_text().splitlines()[1:]]


def test_plain_ultralytics_loads_the_result_and_knows_the_real_names(
    small: data.TrainingSet, base: Path, tmp_path: Path
) -> None:
    from ultralytics import YOLO

    done = run(small, base, tmp_path, epochs=2)
    assert (done.epochs_done, done.stopped, rows_of(done.csv)) == (2, False, [1, 2])
    assert done.seconds > 0
    model = YOLO(str(done.weights))
    assert model.names == dict(enumerate(sorted(NAMES)))
    (result,) = model.predict(np.zeros((30, 50, 3), np.uint8), imgsz=64, verbose=False)
    assert result.probs.data.shape == (2,)
    assert done.args["epochs"] == 2
    assert done.args["augmentation"] == "default"
    assert (done.args["auto_augment"], done.args["erasing"]) == ("randaugment", 0.4)
    assert str(tmp_path) not in str(done.args)


def test_learns_what_can_be_learned(tmp_path: Path) -> None:
    bars = make_set(tmp_path, {"lying": (32, 8), "standing": (32, 8)}, imgsz=32)
    done = run(bars, "yolov8n-cls.yaml", tmp_path / "out", epochs=25, augmentation="none", patience=0)
    top1 = [float(line.split(",")[3]) for line in done.csv.read_text().splitlines()[1:]]
    assert done.csv.read_text().splitlines()[0].split(",")[3].strip() == "metrics/accuracy_top1"
    assert max(top1) >= 0.9


def test_the_same_seed_gives_the_same_weights(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    first, again, other = (
        weights_of(run(small, base, tmp_path / str(i), seed=seed).weights) for i, seed in enumerate((5, 5, 6))
    )
    assert same(first, again)
    assert not same(first, other)


def stop_after(batches: int) -> Monitor:
    class Stops(Monitor):
        seen = 0

        def progress(self, done: int, total: int, what: str) -> None:
            self.seen += 1

        def stopping(self) -> bool:
            return self.seen >= batches

    return Stops()


def test_a_stopped_run_goes_on_elsewhere(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.pt"
    epochs = []

    def store(last: Path, epoch: int, csv: Path) -> None:
        epochs.append((epoch, rows_of(csv)))
        shutil.copyfile(last, stored)

    # 18 training images in batches of 8 are 3 steps: the eighth is in the middle of the third epoch.
    first = run(small, base, tmp_path / "a", epochs=4, checkpoint=store, monitor=stop_after(8))
    assert (first.stopped, first.epochs_done) == (True, 2)
    assert epochs == [(1, [1]), (2, [1, 2])]
    assert first.weights.exists()
    shutil.rmtree(tmp_path / "a")

    elsewhere = make_set(tmp_path / "elsewhere", dict.fromkeys(NAMES, (9, 4)))
    second = run(elsewhere, base, tmp_path / "b", epochs=4, checkpoint=store, resume_from=stored)
    assert (second.stopped, second.epochs_done, rows_of(second.csv)) == (False, 4, [1, 2, 3, 4])
    assert epochs[2:] == [(3, [1, 2, 3]), (4, [1, 2, 3, 4])]
    assert second.weights.exists()

    # The worker died after the last epoch, before it could publish.
    third = run(elsewhere, base, tmp_path / "c", epochs=4, resume_from=stored)
    assert (third.stopped, third.epochs_done, rows_of(third.csv)) == (False, 4, [1, 2, 3, 4])
    assert same(weights_of(third.weights), weights_of(second.weights))


def test_every_checkpoint_holds_the_best_weights_so_far(tmp_path: Path) -> None:
    bars = make_set(tmp_path, {"lying": (32, 8), "standing": (32, 8), "lying too": (32, 8)}, imgsz=32)
    best_was_earlier = []

    def check(last: Path, epoch: int, csv: Path) -> None:
        restored = tmp_path / "restored.pt"
        _, checkpoint = trainer.load_checkpoint(last)
        trainer.restore(checkpoint, restored, tmp_path / "restored.csv")
        best = weights_of(last.parent / "best.pt")
        assert same(weights_of(restored), best)
        assert rows_of(tmp_path / "restored.csv") == rows_of(csv)
        best_was_earlier.append(not same(weights_of(last), best))

    run(bars, "yolov8n-cls.yaml", tmp_path / "out", epochs=16, augmentation="none", patience=0, checkpoint=check)
    assert any(best_was_earlier)


def test_stops_before_there_is_anything_to_keep(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    done = run(small, base, tmp_path, monitor=stop_after(1))
    assert (done.stopped, done.epochs_done, done.weights.exists()) == (True, 0, False)


def test_stops_early_without_progress_and_does_not_go_on(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.pt"
    done = run(
        small,
        base,
        tmp_path / "a",
        epochs=30,
        patience=1,
        checkpoint=lambda last, epoch, csv: shutil.copyfile(last, kept),
    )
    assert done.epochs_done < 30
    assert not done.stopped
    again = run(small, base, tmp_path / "b", epochs=30, patience=1, resume_from=kept)
    assert (again.epochs_done, again.stopped) == (done.epochs_done, False)


def test_reports_each_batch(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    seen = []

    class Listens(Monitor):
        def progress(self, done: int, total: int, what: str) -> None:
            seen.append((done, total, what))

    run(small, base, tmp_path, epochs=2, monitor=Listens())
    assert [(done, total) for done, total, _ in seen] == [(i, 6) for i in range(1, 7)]
    assert seen[0][2] == "Training, epoch 1 of 2, step"
    assert seen[-1][2].startswith("Training, epoch 2 of 2, val top-1 0.")


def test_two_images_a_class_and_a_last_batch_of_one(base: Path, tmp_path: Path) -> None:
    tiny = make_set(tmp_path / "tiny", {"a": (2, 1), "b": (2, 1)}, imgsz=32)
    assert run(tiny, base, tmp_path / "1", batch=-1).epochs_done == 1
    five = make_set(tmp_path / "five", {"a": (3, 1), "b": (2, 1)}, imgsz=32)
    assert run(five, base, tmp_path / "2", batch=4).epochs_done == 1


def drawn(training_set: data.TrainingSet, base: Path, out: Path, oversample: bool) -> np.ndarray:
    """Images per class in some epochs of the training loader."""
    made = trainer.Trainer(
        training_set,
        base,
        {"save_dir": str(out), "imgsz": 64, "device": "cpu", "model": "x", "data": "x", "seed": 0},
        oversample=oversample,
        cache_bytes=2**20,
    )
    made.setup_model()
    loader = made.get_dataloader(training_set.folder / "train", 16)
    return np.bincount(np.concatenate([batch["cls"].numpy() for _ in range(8) for batch in loader]))


def test_oversampling_draws_every_class_equally_often(base: Path, tmp_path: Path) -> None:
    uneven = make_set(tmp_path / "uneven", {"common": (36, 1), "rare": (4, 1)})
    np.testing.assert_array_equal(drawn(uneven, base, tmp_path / "a", False), [8 * 36, 8 * 4])
    common, rare = drawn(uneven, base, tmp_path / "b", True)
    assert common + rare == 8 * 40
    assert 0.4 < rare / (common + rare) < 0.6


def test_the_default_augmentation_is_ultralytics_own() -> None:
    from PIL import Image
    from ultralytics.data.augment import classify_augmentations
    from ultralytics.utils import DEFAULT_CFG

    args = SimpleNamespace(**{**vars(DEFAULT_CFG), "imgsz": 64})
    theirs = classify_augmentations(
        size=64, scale=(0.5, 1.0), hflip=0.5, vflip=0.0, erasing=0.4, auto_augment="randaugment"
    )
    ours = trainer.augmentation("default", args)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for seed in range(20):
        torch.manual_seed(seed)
        expected = theirs(image)
        torch.manual_seed(seed)
        torch.testing.assert_close(ours(image).float() / 255, expected)


@pytest.mark.parametrize("name", ["rotations", "none"])
def test_other_augmentations(small: data.TrainingSet, base: Path, tmp_path: Path, name: str) -> None:
    done = run(small, base, tmp_path, augmentation=name)
    assert done.epochs_done == 1
    assert done.args["augmentation"] == name


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"augmentation": "mosaic"}, "default, rotations, none"),
        ({"balance": "focal"}, "none, oversample"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"device": "tpu"}, "'tpu'"),
        ({"device": "cuda:99"}, "'cuda:99'"),
    ],
)
def test_refuses_bad_arguments(small: data.TrainingSet, base: Path, tmp_path: Path, options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(small, base, tmp_path, **options)


class Hostile:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (os.environ["HOSTILE"],)


def bad_weights(kind: str, base: Path, folder: Path) -> Path:
    from ultralytics.nn.tasks import DetectionModel

    path = folder / f"{kind}.pt"
    if kind == "truncated":
        path.write_bytes(base.read_bytes()[:5000])
    elif kind == "hostile":
        torch.save({"model": Hostile()}, path)
    elif kind == "detector":
        torch.save({"model": DetectionModel("yolov8n.yaml", verbose=False)}, path)
    elif kind == "activation":
        checkpoint = torch.load(base, weights_only=False)
        checkpoint["model"].yaml["activation"] = "__import__('os').mkdir(__import__('os').environ['HOSTILE'])"
        torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no weights at"),
        ("truncated", "damaged"),
        ("hostile", "holds code"),
        ("detector", "DetectionModel"),
        ("activation", "activation"),
    ],
)
def test_refuses_bad_weights_and_runs_no_code_of_theirs(
    small: data.TrainingSet, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: str
) -> None:
    monkeypatch.setenv("HOSTILE", str(tmp_path / "ran"))
    bad = bad_weights(kind, base, tmp_path)
    with pytest.raises(WeightsError, match=says):
        run(small, bad, tmp_path / "a")
    with pytest.raises(WeightsError, match=says):
        run(small, base, tmp_path / "b", resume_from=bad)
    assert not (tmp_path / "ran").exists()


def test_refuses_unknown_architectures_and_checkpoints_of_other_classes(
    small: data.TrainingSet, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"yolov8n-cls\.yaml"):
        run(small, tmp_path / "resnet.yaml", tmp_path / "a")
    with pytest.raises(WeightsError, match="other classes"):
        run(small, base, tmp_path / "b", resume_from=base)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_plainly(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"could not write to {tmp_path}: File too large"), largest_file(2**20):
        run(small, base, tmp_path)


def test_leaves_the_process_as_it_was_off_the_main_thread(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    def state() -> tuple:
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            dict(os.environ),
            Path.cwd(),
        )

    run(small, base, tmp_path / "first")  # what is imported now sets variables of its own

    before, threads, done = state(), set(threading.enumerate()), []
    worker = threading.Thread(target=lambda: done.append(run(small, base, tmp_path)))
    worker.start()
    worker.join()
    assert done[0].epochs_done == 1
    assert state() == before
    assert set(threading.enumerate()) <= threads


def test_asks_nobody_and_writes_only_to_its_folder(small: data.TrainingSet, base: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("home", "cwd", "tmp", "out")}
    for folder in folders.values():
        folder.mkdir()
    code = f"""
        import pickle, socket, sys
        asked = []
        def refuse(*args, **kwargs):
            asked.append(args)
            raise OSError("no network")
        socket.getaddrinfo = socket.socket.connect = refuse
        from pathlib import Path
        from shared.classifier import data, train
        small = data.TrainingSet(Path({str(small.folder)!r}), {small.classes!r}, None, 64, "pad", {small.counts!r})
        train.train(small, Path({str(base)!r}), Path({str(folders["out"])!r}), epochs=1, batch=8, device="cpu")
        assert not asked, asked
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO", "PYTEST", "XDG", "MPL"))}
    environment |= {
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "PYTHONPATH": str(Path(train.__file__).parents[2]),
    }
    before = sorted(small.folder.rglob("*"))
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=folders["cwd"], env=environment)
    assert (folders["out"] / "weights" / "best.pt").exists()
    assert [p for name in ("home", "cwd", "tmp") for p in folders[name].rglob("*") if p.is_file()] == []
    assert sorted(small.folder.rglob("*")) == before
