"""Versions side by side: really published ones with fitted weights, and figures against scikit-learn's."""

import hashlib
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from shared.artifacts import open_root
from shared.errors import ImageError, InputError, StorageError
from shared.lineage.registry import Registry
from shared.runs import Monitor
from shared.workflows import ancestry, comparing
from shared.workflows.comparing import Measured, Rows
from tests import rois
from tests.published import fitted, row, version

DATASET = "d" * 24


def read(uri: str) -> bytes:
    from shared.media import Media

    return Media().read(uri)


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Rows:
    """60 labelled images; the last one is a copy of the first."""
    folder, rng = tmp_path_factory.mktemp("rois"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(60)]
    for i, path in enumerate(paths):
        rois.draw(path, i % 3, rng)
    paths[-1].write_bytes(paths[0].read_bytes())
    labels = [rois.CLASSES[i % 3] for i in range(59)] + [rois.CLASSES[0]]
    return Rows(DATASET, [f"s{i}" for i in range(60)], list(map(str, paths)), labels)


@pytest.fixture(scope="module")
def weights(drawn, tmp_path_factory) -> list[Path]:
    """Of a model that tells all three classes, and of one that knows only the last two, in another order."""
    folder = tmp_path_factory.mktemp("weights")
    known = rois.CLASSES[:0:-1]
    return [
        fitted(folder / "three.pt", drawn.uris[:30], drawn.labels[:30]),
        fitted(folder / "two.pt", drawn.uris[:30], drawn.labels[:30], seed=1, classes=known),
    ]


@pytest.fixture
def registry(db) -> Registry:
    return Registry(db)


@pytest.fixture
def root(tmp_path):
    return open_root(str(tmp_path / "artifacts"), {})


# --- measuring ---


def test_a_version_is_measured_by_its_published_weights(registry, root, tmp_path, drawn, weights):
    record = version(registry, tmp_path, weights[0])
    uris = [*drawn.uris, str(tmp_path / "gone.png")]
    (tmp_path / "broken.png").write_bytes(b"not an image")
    uris.insert(3, str(tmp_path / "broken.png"))
    found = comparing.measure(record, uris, read, root, tmp_path / "fetched")
    readable = np.array([i not in (3, 61) for i in range(62)])
    right = np.array(found.labels(), object)[readable] == np.array(drawn.labels, object)
    assert right.mean() > 0.8
    assert found.labels()[3] is None
    assert found.predicted[[3, 61]].tolist() == [-1, -1]
    assert [i for i, _ in found.unreadable] == [3, 61]
    assert found.hashes == [*map(sha256, uris[:-1]), None]
    assert (found.confidence[readable] > 1 / 3).all()
    assert not list((tmp_path / "fetched").rglob("*.pt"))  # one version's weights are on the disk at a time
    assert found.rate == pytest.approx(60 / found.seconds)
    assert found.size == weights[0].stat().st_size
    assert (found.name, found.classes, found.imgsz, found.stopped) == (record.name, rois.CLASSES, 32, False)
    kept = found.take(np.arange(62) >= 3)
    assert kept.predicted.tolist() == found.predicted[3:].tolist()
    assert kept.hashes == found.hashes[3:]
    assert [i for i, _ in kept.unreadable] == [0, 58]


def test_a_version_without_weights_is_named(registry, root, tmp_path):
    record = version(registry, tmp_path)
    bare = record.model_copy(update={"files": {"weights.pt": record.files["weights.pt"]}})
    with pytest.raises(StorageError, match=rf"{record.name} was published without model\.json"):
        comparing.measure(bare, [], read, root, tmp_path / "fetched")


# --- the same samples for all ---


def test_samples_that_any_version_learned_from_are_left_out(registry, root, tmp_path, drawn, weights):
    """By id for an ancestor of the second version, by bytes for a copy of the first image elsewhere."""
    hashes = [sha256(uri) for uri in drawn.uris]
    first = version(registry, tmp_path, weights[0], rows=[row("elsewhere", "x", "val", hashes[0], "e" * 24)])
    trained_on = [row(drawn.ids[i], drawn.labels[i], "train", hashes[i]) for i in range(10, 20)]
    ancestor = version(registry, tmp_path, model="old", rows=trained_on)
    allowed = [row(drawn.ids[i], drawn.labels[i], "test", hashes[i]) for i in range(20, 30)]
    second = version(
        registry, tmp_path, weights[1], rows=allowed, base_version=ancestor.name, classes=rois.CLASSES[:0:-1]
    )
    known = ancestry.seen([first, second], registry, root, tmp_path / "fetched")
    said: list[str] = []

    class Heard(Monitor):
        def progress(self, done: int, total: int, what: str) -> None:
            said.append(what)

    uris = [str(tmp_path / "gone.png") if i == 5 else uri for i, uri in enumerate(drawn.uris)]
    rows = Rows(DATASET, drawn.ids, uris, drawn.labels, {"site": ["a", "b"] * 30})
    both = comparing.together([first, second], rows, known, read, root, tmp_path / "fetched", Heard())
    assert (both.by_id, both.by_bytes, [i for i, _ in both.unreadable]) == (10, 2, ["s5"])
    kept = [i for i in range(1, 59) if i not in (5, *range(10, 20))]
    assert both.rows.ids == [f"s{i}" for i in kept]
    assert both.rows.slices == {"site": ["ab"[i % 2] for i in kept]}
    assert [one.name for one in both.measured] == [first.name, second.name]
    assert all(len(one.predicted) == len(kept) and (one.predicted >= 0).all() for one in both.measured)
    assert both.measured[1].hashes == [hashes[i] for i in kept]
    assert both.left_out() == (
        "Left out: 10 that one of the versions was trained on, 2 with exactly the image of one that it was trained on, "
        "1 that could not be read."
    )
    assert {f"Applying {first.name}", f"Applying {second.name}"} == set(said)

    compared = comparing.compare(both.rows, both.measured)
    assert compared.unknown_labels == [0, sum(drawn.labels[i] == rois.CLASSES[0] for i in kept)]
    truth = [drawn.labels[i] for i in kept]
    for one, score in zip(both.measured, compared.scores, strict=True):
        present = sorted(set(truth))
        assert score["top1"] == pytest.approx(accuracy_score(truth, one.labels()))
        expected = f1_score(truth, one.labels(), labels=present, average="macro", zero_division=0)
        assert score["macro_f1"] == pytest.approx(expected)
    # Nobody is right about a class it does not know.
    wrong = ~compared.right[1]
    assert all(wrong[i] for i, label in enumerate(truth) if label == rois.CLASSES[0])
    assert compared.differences[0]["top1"][2] < 0


def test_an_image_that_is_lost_in_between_is_left_out_for_all(registry, root, tmp_path, drawn, weights):
    records = [version(registry, tmp_path, weights[0]) for _ in range(2)]
    rows, times = drawn.take(np.arange(60) < 9), Counter[str]()

    def failing(uri: str) -> bytes:
        times[uri] += 1
        if times[uri] == 2 and uri == rows.uris[4]:
            raise ImageError("It is gone.")
        return read(uri)

    known = ancestry.seen([], registry, root, tmp_path / "fetched")
    both = comparing.together(records, rows, known, failing, root, tmp_path / "fetched")
    assert both.unreadable == [("s4", "It is gone.")]
    assert len(both.rows) == 8
    first, second = both.measured
    assert first.labels() == second.labels()
    assert first.hashes == [sha256(uri) for uri in both.rows.uris]
    assert comparing.compare(both.rows, both.measured).differences[0]["top1"] == (0, 0, 0)


def test_nothing_left_and_an_early_end(registry, root, tmp_path, drawn, weights):
    rows = drawn.take(np.arange(60) < 12)
    learned = [
        row(i, label, "train", sha256(uri)) for i, label, uri in zip(rows.ids, rows.labels, rows.uris, strict=True)
    ]
    record = version(registry, tmp_path, weights[0], rows=learned)
    known = ancestry.seen([record], registry, root, tmp_path / "fetched")
    nothing = comparing.together([record], rows, known, read, root, tmp_path / "fetched")
    assert (nothing.by_id, len(nothing.rows), nothing.stopped) == (12, 0, False)
    with pytest.raises(InputError, match="nothing to compare on"):
        comparing.compare(nothing.rows, nothing.measured)

    class Impatient(Monitor):
        def stopping(self) -> bool:
            return True

    unknown = ancestry.seen([], registry, root, tmp_path / "fetched")
    stopped = comparing.together([record], rows, unknown, read, root, tmp_path / "fetched", Impatient())
    assert stopped.stopped


# --- comparing ---


def measured(name: str, labels: list[str], classes: tuple[str, ...] = ("a", "b", "c")) -> Measured:
    predicted = np.array([classes.index(label) for label in labels])
    return Measured(
        name=name,
        classes=classes,
        predicted=predicted,
        confidence=np.ones(len(labels), np.float32),
        hashes=[None] * len(labels),
        unreadable=[],
        seconds=2.0,
        runtime="none",
        size=1,
        framing="pad",
        imgsz=32,
        stopped=False,
    )


def labelled(*labels: str, **slices: list[str | None]) -> Rows:
    return Rows(DATASET, [f"s{i}" for i in range(len(labels))], ["x"] * len(labels), labels, slices)


def test_each_sample_says_who_is_right():
    rows = labelled("a", "b", "c", "a", "d")
    three = [measured("x", list("abbaa")), measured("y", list("aabbb")), measured("z", list("ababc"))]
    compared = comparing.compare(rows, three)
    apart = "all wrong, differently"
    assert compared.verdicts() == ["all right", "right: x, z", apart, "right: x", apart]
    assert compared.unknown_labels == [1, 1, 1]
    assert compared.names == ["x", "y", "z"]
    assert len(compared.differences) == 2
    alone = comparing.compare(rows, three[:1])
    assert alone.verdicts() == ["all right", "all right", "all wrong", "all right", "all wrong"]
    assert alone.differences == []


def test_versions_with_other_classes_are_scored_over_all_of_them():
    """Against scikit-learn on names, for orders of classes that differ."""
    pick = random.Random(0)
    rows = labelled(*pick.choices("abcd", k=200), site=pick.choices(["x", "y", None], k=200))
    first = measured("first", pick.choices("ab", k=200), ("b", "a"))
    second = measured("second", [label if pick.random() < 0.7 else "e" for label in rows.labels], tuple("edcba"))
    compared = comparing.compare(rows, [first, second])
    for one, score in zip([first, second], compared.scores, strict=True):
        per_class = {found["label"]: found for found in score["per_class"] if found["n"]}
        expected = f1_score(rows.labels, one.labels(), labels=list("abcd"), average=None, zero_division=0)
        assert [per_class[label]["f1"] for label in "abcd"] == pytest.approx(expected)
        by_value = {found["value"]: found for found in score["slices"]}
        for value in ("x", "y"):
            chosen = [i for i, site in enumerate(rows.slices["site"]) if site == value]
            assert by_value[value]["n"] == len(chosen)
            right = accuracy_score([rows.labels[i] for i in chosen], [one.labels()[i] for i in chosen])
            assert by_value[value]["top1"] == pytest.approx(right)
    value, low, high = compared.differences[0]["top1"]
    assert value == pytest.approx(compared.scores[1]["top1"] - compared.scores[0]["top1"])
    assert low < value < high
    assert compared.unknown_labels == [sum(label in "cd" for label in rows.labels), 0]
