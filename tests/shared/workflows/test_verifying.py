"""A stored version is found to be what its record says, and whatever is changed in it is found."""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone.core.odm as odm
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.surroundings import own_database
from shared.artifacts import Artifacts, open_root
from shared.errors import StorageError
from shared.lineage import manifest
from shared.lineage.registry import VersionRecord
from shared.workflows import verifying
from tests import published, rois
from tests.stored import Stored, publish

FILES = ("card.json", "card.md", "manifest.parquet", "metrics.json", "model.json", "predictions.parquet", "weights.pt")
SAID = {
    "list of the files",
    "hash of the weights",
    "classes and their order",
    "framing and image size",
    "digest of the manifest",
    "training images of each class",
    "images that were measured",
    "metrics",
    "figures of the card",
    "text of the card",
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """A version as training publishes it."""
    folder = tmp_path_factory.mktemp("verifying")
    own_database()
    database = odm.get_db_conn().client[f"mbari-test-{uuid.uuid4().hex[:12]}"]
    yield publish(folder, database)
    database.client.drop_database(database.name)


def verify(record: VersionRecord, root: Artifacts, folder: Path) -> dict[str, verifying.Check]:
    checks = verifying.verify(record, root, folder)
    assert len({check.what for check in checks}) == len(checks)
    assert all(bool(check.detail) == (check.state != verifying.REPRODUCED) for check in checks)
    return {check.what: check for check in checks}


def states(found: dict[str, verifying.Check], state: str) -> set[str]:
    return {what for what, check in found.items() if check.state == state}


@pytest.fixture
def copied(stored: Stored, tmp_path: Path) -> Stored:
    """The same version on an artifact root of the test's own, to be damaged."""
    shutil.copytree(stored.folder, tmp_path / "artifacts" / stored.record.key)
    root = open_root(str(tmp_path / "artifacts"), {})
    return Stored(stored.record, root, tmp_path / "artifacts" / stored.record.key)


def forged(stored: Stored, folder: Path, files: dict[str, bytes | None], **fields: Any) -> dict[str, verifying.Check]:
    """What is found of a version that was published with other files (None: without), and with a record that fits."""
    shutil.copytree(stored.folder, folder / "forged")
    (folder / "forged" / "files.json").unlink()
    for name, content in files.items():
        (folder / "forged" / name).unlink()
        if content is not None:
            (folder / "forged" / name).write_bytes(content)
    root = open_root(str(folder / "root"), {})
    there = root.publish(folder / "forged", stored.record.key)
    record = stored.record.model_copy(update={"files": there, **fields})
    return verify(record, root, folder / "fetched")


def test_what_is_as_it_was_is_reproduced(stored, tmp_path):
    found = verify(stored.record, stored.root, tmp_path)
    assert states(found, verifying.REPRODUCED) == set(found)
    assert set(found) == SAID | {f"file {name}" for name in stored.record.files}
    assert set(FILES) <= set(stored.record.files)
    assert 0.3 < stored.record.metrics["test"]["top1"] < 1  # so that there is something to get wrong


def test_one_byte_changed_in_any_file_is_found(copied, tmp_path):
    names = sorted(path.relative_to(copied.folder).as_posix() for path in copied.folder.rglob("*") if path.is_file())
    assert set(names) == {*copied.record.files, "files.json"}
    for name in names:
        path = copied.folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = verify(copied.record, copied.root, tmp_path / "fetched")
    assert states(found, verifying.REPRODUCED) == {"framing and image size"}  # of which nothing is left that speaks
    expected = {"list of the files", *(f"file {name}" for name in copied.record.files)}
    assert states(found, verifying.DIFFERS) == expected
    assert "weights.pt is not what it was" in found["hash of the weights"].detail


@pytest.mark.parametrize("name", ["weights.pt", "manifest.parquet", "model.json"])
def test_the_others_are_still_checked_when_one_file_is_damaged(copied, tmp_path, name):
    (copied.folder / name).write_bytes((copied.folder / name).read_bytes()[:-1])
    found = verify(copied.record, copied.root, tmp_path / "fetched")
    assert states(found, verifying.DIFFERS) == {f"file {name}"}
    unchecked = {
        "weights.pt": {"hash of the weights", "classes and their order"},
        "manifest.parquet": SAID - {"list of the files", "text of the card"} - {
            "hash of the weights", "classes and their order", "framing and image size"
        },
        "model.json": {"figures of the card"},
    }  # fmt: skip
    assert states(found, verifying.UNCHECKED) == unchecked[name]


def test_files_that_are_gone_or_too_many_are_found(copied, tmp_path):
    (copied.folder / "predictions.parquet").unlink()
    (copied.folder / "stranger.txt").write_text("hello")
    found = verify(copied.record, copied.root, tmp_path / "fetched")
    assert states(found, verifying.DIFFERS) == {"file predictions.parquet", "list of the files"}
    assert "stranger.txt" in found["list of the files"].detail
    assert "There is nothing at" in found["file predictions.parquet"].detail


def test_a_version_whose_folder_is_gone_differs_in_every_file(copied, tmp_path):
    shutil.copytree(copied.folder, copied.folder.with_name("another"))
    shutil.rmtree(copied.folder)
    found = verify(copied.record, copied.root, tmp_path / "fetched")
    assert {f"file {name}" for name in copied.record.files} | {"list of the files"} == states(found, verifying.DIFFERS)
    assert found["list of the files"].detail == "it is missing."


def test_an_artifact_root_that_is_away_is_no_difference(stored, tmp_path):
    with pytest.raises(StorageError, match="is it mounted"):
        verifying.verify(stored.record, open_root(str(tmp_path / "not mounted"), {}), tmp_path / "fetched")


def altered(path: Path, change: Any) -> bytes:
    """A JSON file with one change."""
    said = json.loads(path.read_text())
    change(said)
    return json.dumps(said).encode()


def test_metrics_that_the_predictions_do_not_give_are_found(stored, tmp_path):
    def flatter(said: dict) -> None:
        said["test"]["top1"] += 2e-9
        said["val"]["slices"][0]["n"] += 1

    content = altered(stored.folder / "metrics.json", flatter)
    found = forged(stored, tmp_path, {"metrics.json": content})
    assert states(found, verifying.DIFFERS) == {"metrics"}
    assert "metrics.json: test: top1 is" in found["metrics"].detail
    assert "metrics.json: val: slices[0]: n is" in found["metrics"].detail


def test_what_is_within_the_tolerance_is_the_same(stored, tmp_path):
    def shift(said: dict) -> None:
        said["test"]["top1"] += 5e-10

    found = forged(stored, tmp_path, {"metrics.json": altered(stored.folder / "metrics.json", shift)})
    assert states(found, verifying.DIFFERS) == set()


def test_a_record_with_other_figures_is_found(stored, tmp_path):
    metrics = {**stored.record.metrics, "test": {**stored.record.metrics["test"], "macro_f1": 0.999}}
    fields = {"metrics": metrics, "manifest_digest": "0" * 64, "imgsz": 224, "class_counts": {rois.CLASSES[0]: 1}}
    record = stored.record.model_copy(update={**fields, "classes": stored.record.classes[::-1]})
    found = verify(record, stored.root, tmp_path)
    assert states(found, verifying.DIFFERS) >= {
        "metrics",
        "digest of the manifest",
        "framing and image size",
        "training images of each class",
        "classes and their order",
    }
    assert "the record says 0000" in found["digest of the manifest"].detail


def test_predictions_that_were_edited_are_found(stored, tmp_path):
    rows = pq.read_table(stored.folder / "predictions.parquet")
    logits = rows["logits"].to_pylist()
    logits[0] = logits[0][::-1]
    column = pa.array(logits, pa.list_(pa.float32(), len(logits[0])))
    place = rows.column_names.index("logits")
    pq.write_table(rows.set_column(place, "logits", column), tmp_path / "other.parquet")
    found = forged(stored, tmp_path, {"predictions.parquet": (tmp_path / "other.parquet").read_bytes()})
    assert states(found, verifying.DIFFERS) == {"metrics", "figures of the card"}


def test_predictions_of_other_images_are_found(stored, tmp_path):
    rows = pq.read_table(stored.folder / "predictions.parquet")
    labels = rows["label"].to_pylist()
    labels[1] = next(label for label in rois.CLASSES if label != labels[1])
    ids = ["f" * 24, *rows["sample_id"].to_pylist()[1:]]
    for name, column in (("label", labels), ("sample_id", ids)):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(column))
    pq.write_table(pa.concat_tables([rows, rows.slice(2, 1)]), tmp_path / "other.parquet")
    found = forged(stored, tmp_path, {"predictions.parquet": (tmp_path / "other.parquet").read_bytes()})
    assert found["images that were measured"].detail == (
        "2 are not those, or not labelled so, in the manifest; 1 stand there more than once."
    )


def test_another_manifest_is_found(stored, tmp_path):
    rows = manifest.read(stored.folder / "manifest.parquet")
    labels = rows["label"].to_pylist()
    labels[0] = next(label for label in rois.CLASSES if label != labels[0])
    manifest.write(rows.set_column(rows.column_names.index("label"), "label", pa.array(labels)), tmp_path / "m.parquet")
    found = forged(stored, tmp_path, {"manifest.parquet": (tmp_path / "m.parquet").read_bytes()})
    assert states(found, verifying.DIFFERS) == {"digest of the manifest", "training images of each class"}


def test_other_weights_are_found(stored, tmp_path):
    images = sorted(map(str, (stored.folder.parents[3] / "rois").glob("*.png")))
    labels = [rois.CLASSES[i % 3] for i in range(len(images))]
    other = published.fitted(tmp_path / "net.pt", images, labels, classes=rois.CLASSES[::-1])
    found = forged(stored, tmp_path, {"weights.pt": other.read_bytes()})
    assert states(found, verifying.DIFFERS) == {"hash of the weights", "classes and their order"}
    assert "model.json says" in found["hash of the weights"].detail
    assert "card.json says" in found["classes and their order"].detail


def test_a_card_that_flatters_is_found(stored, tmp_path):
    def flatter(said: dict) -> None:
        said["evaluation"][0]["per_class"][0]["f1"]["low"] = 0.99

    found = forged(stored, tmp_path, {"card.json": altered(stored.folder / "card.json", flatter)})
    assert states(found, verifying.DIFFERS) >= {"figures of the card"}
    assert "f1: low is 0.99" in found["figures of the card"].detail


def test_a_card_text_that_was_edited_is_found(stored, tmp_path):
    text = (stored.folder / "card.md").read_text()
    found = forged(stored, tmp_path, {"card.md": text.replace("m, version", "M, version", 1).encode()})
    assert states(found, verifying.DIFFERS) == {"text of the card"}


def test_a_card_text_of_another_version_of_the_suite_is_not_called_wrong(stored, tmp_path):
    def older(said: dict) -> None:
        said["training"]["suite"] = "0.0.1"

    files = {"card.json": altered(stored.folder / "card.json", older), "card.md": b"as it was rendered then"}
    found = forged(stored, tmp_path, files)
    assert states(found, verifying.UNCHECKED) == {"text of the card"}
    assert "rendered by version 0.0.1 of the suite" in found["text of the card"].detail


def test_versions_from_before_there_were_cards_are_checked_as_far_as_they_go(stored, tmp_path):
    gone = dict.fromkeys(("card.json", "card.md", "predictions.parquet"))
    found = forged(stored, tmp_path, gone)
    assert states(found, verifying.DIFFERS) == set()
    unchecked = {"images that were measured", "metrics", "figures of the card", "text of the card"}
    assert states(found, verifying.UNCHECKED) == unchecked
    assert found["metrics"].detail == "it was published without predictions.parquet."


def test_metrics_from_before_there_were_intervals_are_still_compared(stored, tmp_path):
    def older(said: dict) -> None:
        for score in said.values():
            del score["intervals"], score["slices"], score["runtime"]
            for row in score["per_class"]:
                del row["recall_interval"], row["f1_interval"]

    found = forged(stored, tmp_path, {"metrics.json": altered(stored.folder / "metrics.json", older)})
    assert states(found, verifying.DIFFERS) == set()


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"test": 3}'])
@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_something_else_are_said_and_raise_nothing(stored, tmp_path, name, content):
    found = forged(stored, tmp_path, {name: content})
    assert found[f"file {name}"].state == verifying.REPRODUCED  # it is what was published
    assert len(states(found, verifying.REPRODUCED)) < len(found)
