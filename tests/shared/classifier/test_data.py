"""`data.build` on images drawn here: what is used, what is left out and why, and how it lies on disk."""

import hashlib
import resource
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from shared.classifier import data
from shared.errors import ImageError, InputError, StorageError
from shared.framing import frame
from shared.media import decode
from shared.runs import Monitor


def draw(path: Path, seed: int) -> str:
    """A bright blob on noise, 40 x 24 pixels, different for each seed; returns the path."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 40, (40, 24, 3), np.uint8)
    cv2.circle(image, (12, 20), 3 + seed % 8, (90 + seed % 160, 200, 180), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return str(path)


def read(uri: str) -> bytes:
    path = Path(uri)
    if not path.exists():
        raise ImageError("the file is missing")
    return path.read_bytes()


def table(rows: list[tuple[str, str | None, str | None]]) -> pa.Table:
    """Rows of (path, label, split); the sample ids count up."""
    columns = ("filepath", "label", "split")
    return pa.table(
        {
            "sample_id": [f"s{i}" for i in range(len(rows))],
            **{name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(columns)},
        }
    )


def two_classes(tmp_path: Path, labels: tuple[str, str] = ("a", "b"), train: int = 4, val: int = 2) -> list:
    splits = ["train"] * train + ["val"] * val
    return [
        (draw(tmp_path / "in" / f"{c}_{i}.png", 100 * c + i), label, split)
        for c, label in enumerate(labels)
        for i, split in enumerate(splits)
    ]


def build(rows: list, folder: Path, **options) -> data.TrainingSet:
    options = {"imgsz": 32, "framing": "pad", "min_per_class": 2, **options}
    return data.build(table(rows), folder, read, **options)


def why(result: data.TrainingSet) -> list[str | None]:
    return result.rows["why_left_out"].to_pylist()


def test_lays_out_framed_images_in_numbered_folders(tmp_path: Path) -> None:
    labels = ("copepod/calanoid ü.1", "Copepod")
    rows = two_classes(tmp_path, labels)
    result = build(rows, tmp_path / "out")
    assert result.classes == ["Copepod", "copepod/calanoid ü.1"]
    assert {str(p.parent.relative_to(result.folder)) for p in result.folder.rglob("*.png")} == {
        f"{split}/{number}" for split in ("train", "val") for number in ("0000", "0001")
    }
    assert result.counts == {label: {"train": 4, "val": 2, "test": 0} for label in result.classes}
    assert result.rows["used"].to_pylist() == [True] * 12
    assert result.rows["sha256"].to_pylist() == [hashlib.sha256(read(path)).hexdigest() for path, _, _ in rows]
    written = cv2.cvtColor(cv2.imread(str(result.folder / "train" / "0001" / "0000000.png")), cv2.COLOR_BGR2RGB)
    expected = frame(decode(read(rows[0][0])), 32, "pad")
    np.testing.assert_array_equal(written, expected)


def test_every_row_left_out_says_why(tmp_path: Path) -> None:
    rows = two_classes(tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(read(rows[0][0])[:60])
    rows += [
        (rows[0][0], None, "train"),
        (rows[0][0], "a", None),
        (rows[0][0], "a", "holdout"),
        (draw(tmp_path / "rare.png", 900), "rare", "train"),
        (draw(tmp_path / "v1.png", 901), "only val", "val"),
        (draw(tmp_path / "v2.png", 902), "only val", "val"),
        (str(broken), "a", "train"),
        (str(tmp_path / "gone.png"), "b", "train"),
    ]
    result = build(rows, tmp_path / "out")
    assert result.classes == ["a", "b"]
    reasons = why(result)
    assert reasons[:12] == [None] * 12
    assert reasons[12:15] == ["no label", "in no split", "unknown split 'holdout'"]
    assert reasons[15] == "class left out: only 1 usable image, fewer than 2"
    assert reasons[16] == reasons[17] == "class left out: none of its images is in train"
    assert reasons[18].startswith("unreadable: ")
    assert reasons[19] == "unreadable: the file is missing"
    assert set(result.skipped_classes) == {"rare", "only val"}
    assert [sample for sample, _ in result.unreadable] == ["s18", "s19"]
    assert sum(result.left_out.values()) == 8
    assert len(list(result.folder.rglob("*.png"))) == 12


def test_a_class_that_reading_empties_leaves_no_gap_in_the_numbers(tmp_path: Path) -> None:
    rows = two_classes(tmp_path, ("b", "c"))
    rows += [(str(tmp_path / f"gone{i}.png"), "a", split) for i, split in enumerate(["train", "train", "val"])]
    rows.append((draw(tmp_path / "a.png", 77), "a", "train"))
    result = build(rows, tmp_path / "out")
    assert result.classes == ["b", "c"]
    assert result.skipped_classes == {"a": "only 1 usable image, fewer than 2"}
    assert sorted(p.name for p in (result.folder / "train").iterdir()) == ["0000", "0001"]
    assert [p.name for p in sorted((result.folder / "train" / "0000").iterdir())] == [f"{i:07d}.png" for i in range(4)]


def test_an_image_of_val_is_not_trained_on(tmp_path: Path) -> None:
    rows = two_classes(tmp_path)
    rows.append((rows[4][0], "a", "train"))  # a copy of a's first val image
    result = build(rows, tmp_path / "out")
    assert result.leaks == [["s4", "s12"]]
    assert why(result)[12] == "the same image is in val or test"
    assert why(result)[4] is None
    assert result.counts["a"]["train"] == 4
    assert not (result.folder / "train" / "0000" / "0000012.png").exists()


def test_one_image_with_two_labels_is_reported_and_kept(tmp_path: Path) -> None:
    rows = two_classes(tmp_path)
    rows.append((rows[0][0], "b", "train"))
    result = build(rows, tmp_path / "out")
    assert result.conflicts == [["s0", "s12"]]
    assert result.leaks == []
    assert why(result)[12] is None


def test_real_images_conflict_where_their_readme_says(pwssc: Path, tmp_path: Path) -> None:
    files = sorted((pwssc / "Filament").glob("*.png")) + sorted((pwssc / "Siphonophora").glob("*.png"))
    rows = [(str(path), path.parent.name, "val" if i % 5 == 0 else "train") for i, path in enumerate(files)]
    result = build(rows, tmp_path / "out", imgsz=64)
    (pair,) = result.conflicts
    assert {files[int(sample[1:])].parent.name for sample in pair} == {"Filament", "Siphonophora"}
    assert result.unreadable == []
    assert sum(sum(counts.values()) for counts in result.counts.values()) in (len(files), len(files) - 1)


@pytest.mark.parametrize(
    ("splits", "labels", "says"),
    [
        (["val", "val"], ("a", "b"), "train split"),
        (["train", "train"], ("a", "b"), "val split"),
        (["train", "val"], ("a", "a"), "at least two classes"),
        ([None, None], ("a", "b"), "assign_splits"),
    ],
)
def test_refuses_what_cannot_be_trained(tmp_path: Path, splits: list, labels: tuple, says: str) -> None:
    rows = [
        (draw(tmp_path / f"{c}{i}.png", 10 * c + i), label, split)
        for c, label in enumerate(labels)
        for i, split in enumerate(splits)
    ]
    with pytest.raises(InputError, match=says):
        build(rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("imgsz", [0, 16, 100])
def test_refuses_sizes_that_ultralytics_would_change(tmp_path: Path, imgsz: int) -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        build(two_classes(tmp_path), tmp_path / "out", imgsz=imgsz)


def test_refuses_when_nothing_can_be_read(tmp_path: Path) -> None:
    rows = [(str(tmp_path / f"{i}.png"), "ab"[i % 2], ("train", "val")[i // 4]) for i in range(8)]
    with pytest.raises(InputError, match="8 images cannot be read, the first because unreadable: the file is missing"):
        build(rows, tmp_path / "out")


def test_only_chosen_classes(tmp_path: Path) -> None:
    rows = two_classes(tmp_path) + [(draw(tmp_path / f"c{i}.png", 500 + i), "c", "train") for i in range(3)]
    result = build(rows, tmp_path / "out", classes=["b", "a"])
    assert result.classes == ["a", "b"]
    assert result.left_out == {"its class was not chosen": 3}
    with pytest.raises(InputError, match="'copepod'"):
        build(rows, tmp_path / "out2", classes=["a", "copepod"])


def test_a_store_that_is_away_ends_the_pass(tmp_path: Path) -> None:
    def away(uri: str) -> bytes:
        raise StorageError("the bucket cannot be reached")

    with pytest.raises(StorageError, match="bucket"):
        data.build(table(two_classes(tmp_path)), tmp_path / "out", away, imgsz=32, framing="pad", min_per_class=2)


def test_stops_between_images(tmp_path: Path) -> None:
    class Impatient(Monitor):
        done = 0

        def progress(self, done: int, total: int, what: str) -> None:
            assert total == 12
            self.done = done

        def stopping(self) -> bool:
            return self.done == 3

    threads = set(threading.enumerate())
    result = build(two_classes(tmp_path), tmp_path / "out", workers=2, monitor=Impatient())
    assert result.stopped
    assert result.rows["used"].to_pylist() == [True] * 3 + [False] * 9
    assert result.left_out == {"the run was stopped": 9}
    assert set(threading.enumerate()) <= threads  # those of other tests' database clients may have ended


def test_a_disk_that_fills_up_is_said_plainly(tmp_path: Path) -> None:
    rows = two_classes(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # every image is larger
    try:
        with pytest.raises(StorageError, match="could not be written"):
            build(rows, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


Disk = namedtuple("Disk", "total used free")


@pytest.mark.parametrize(("free_mib", "encoding"), [(100_000, "png"), (1024, "jpeg95"), (650, "jpeg90")])
def test_sixty_thousand_rois_fit_a_small_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, encoding: str
) -> None:
    path = tmp_path / "roi.png"
    noise = np.random.default_rng(0).normal(0, 3, (90, 70, 3))
    image = np.full((90, 70, 3), 20.0) + noise
    cv2.ellipse(image, (35, 45), (30, 12), 40, 0, 360, (150, 170, 160), -1)
    cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(0, 0, free_mib * 2**20))
    assert data._choose_encoding([str(path)] * 60_000, tmp_path, read, 224, "pad") == encoding


def test_more_than_fits_is_refused_with_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(0, 0, data._RESERVE + 20_000))
    with pytest.raises(StorageError, match=r"12 ROIs framed to 32 pixels need about \d+ MiB .* 64 MiB free"):
        build(two_classes(tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize(("encoding", "worst"), [("png", 0), ("jpeg95", 6), ("jpeg90", 12)])
def test_encodings_keep_the_picture(encoding: str, worst: float) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 90, np.uint8)], -1)
    back = cv2.imdecode(np.frombuffer(data.encode(image, encoding), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(back.astype(int) - image).max() <= worst
