"""What versions have learned from, read from the manifests of really published ones."""

import pytest

from shared.artifacts import open_root
from shared.lineage.registry import VERSIONS, Registry
from shared.workflows import ancestry
from tests.published import row, version

DATASET = "d" * 24


@pytest.fixture
def registry(db) -> Registry:
    return Registry(db)


@pytest.fixture
def look(registry, tmp_path):
    root = open_root(str(tmp_path / "artifacts"), {})
    return lambda *records: ancestry.seen(records, registry, root, tmp_path / "fetched")


def test_train_and_val_count_and_test_and_unused_rows_do_not(registry, tmp_path, look):
    rows = [
        row("s1", "a", "train", "h1"),
        row("s2", "a", "val", "h2"),
        row("s3", "a", "test", "h3"),
        row("s4", "a", "train", "h4", used=False),
    ]
    seen = look(version(registry, tmp_path, rows=rows))
    assert seen.by_id(DATASET, ["s1", "s2", "s3", "s4", "s5"]).tolist() == [True, True, False, False, False]
    assert seen.by_bytes(["h1", "h2", "h3", "h4", None]).tolist() == [True, True, False, False, False]
    assert seen.unknown == seen.outside == ()


def test_a_sample_of_another_dataset_is_another_sample_but_its_bytes_are_the_same(registry, tmp_path, look):
    seen = look(version(registry, tmp_path, rows=[row("s1", "a", "train", "h1")]))
    assert not seen.by_id("e" * 24, ["s1"]).any()
    assert seen.by_bytes(["h1"]).all()


def test_all_ancestors_count(registry, tmp_path, look):
    first = version(registry, tmp_path, model="old", rows=[row("s1", "a", "train", "h1")])
    second = version(registry, tmp_path, rows=[row("s2", "a", "train", "h2")], base_version=first.name)
    third = version(registry, tmp_path, rows=[row("s3", "a", "train", "h3")], base_version=second.name)
    seen = look(third)
    assert seen.by_id(DATASET, ["s1", "s2", "s3", "s4"]).tolist() == [True, True, True, False]
    assert seen.versions == (third.name, second.name, first.name)
    assert look(first).by_id(DATASET, ["s1", "s2"]).tolist() == [True, False]
    assert look(second, third, second).versions == (second.name, third.name, first.name)


def test_an_ancestor_is_found_by_the_bytes_of_its_weights(registry, tmp_path, look):
    first = version(registry, tmp_path, rows=[row("s1", "a", "train", "h1")])
    weights = first.files["weights.pt"].sha256
    copied = version(registry, tmp_path, rows=[], base="s3://lab/copy.pt", base_sha256=weights)
    seen = look(copied)
    assert seen.by_id(DATASET, ["s1"]).all()
    assert seen.outside == ()


def test_base_weights_of_no_version_are_named_and_those_that_everybody_has_are_not(registry, tmp_path, look):
    foreign = version(registry, tmp_path, base="s3://lab/leaf.pt", base_sha256="0" * 64)
    public = version(registry, tmp_path, base="yolov8n-cls.pt", base_sha256="1" * 64)
    seen = look(foreign, public)
    assert seen.outside == ("s3://lab/leaf.pt",)
    assert seen.unknown == ()


def test_what_is_not_known_is_said_and_the_rest_still_counts(registry, db, tmp_path, look):
    without = version(registry, tmp_path, rows=None)
    orphan = version(registry, tmp_path, rows=[row("s1", "a", "val", "h1")], base_version="gone/20200101T000000_aaaaaa")
    vague = version(registry, tmp_path, base="m@candidate", base_sha256="2" * 64)
    broken = version(registry, tmp_path)
    heir = version(registry, tmp_path, base_version=broken.name)
    lost = version(registry, tmp_path, rows=[row("s2", "a", "val", "h2")])
    (tmp_path / "artifacts" / lost.key / "manifest.parquet").unlink()
    db[VERSIONS].update_one({"_id": broken.name}, {"$unset": {"classes": ""}})
    seen = look(without, orphan, vague, heir, lost)
    assert seen.by_id(DATASET, ["s1"]).all()
    said = "\n".join(seen.unknown)
    assert f"What {without.name} was trained on is not known: it was published without a manifest." in said
    assert f'What {orphan.name} was fine-tuned from is not known: There is no model "gone"' in said
    assert f"What {vague.name} was fine-tuned from is not known: which version 'm@candidate' stood for" in said
    assert f"What {heir.name} was fine-tuned from is not known: The registry's record" in said
    assert f"What {lost.name} was trained on is not known: There is nothing at" in said
    assert len(seen.unknown) == 5


def test_two_can_be_put_together(registry, tmp_path, look):
    first = version(registry, tmp_path, rows=[row("s1", "a", "train", "h1")], base="s3://lab/leaf.pt")
    second = version(registry, tmp_path, rows=[row("s2", "a", "train", "h2")], base_version=first.name)
    both = look(first).with_(look(second))
    assert both.by_id(DATASET, ["s1", "s2", "s3"]).tolist() == [True, True, False]
    assert both.by_bytes(["h1", "h2", "h3"]).tolist() == [True, True, False]
    assert both.versions == (first.name, second.name)


def test_of_nothing_nothing_is_known(look):
    seen = look()
    assert not seen.by_id(DATASET, ["s1"]).any()
    assert not seen.by_bytes([None]).any()
    assert seen.by_id(DATASET, []).shape == (0,)
