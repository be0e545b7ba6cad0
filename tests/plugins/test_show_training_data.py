"""What a version was trained on, in FiftyOne: marks, views, figures and the verdict, whatever became of the data."""

import hashlib
from pathlib import Path

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.operators as foo
import pyarrow as pa
import pytest
from fiftyone.operators.executor import ExecutionError

from shared import labelled, training_data
from shared.artifacts import open_root
from shared.errors import StorageError
from shared.lineage import freshness, manifest
from shared.lineage.registry import VERSIONS, VersionRecord
from shared.media import Media
from shared.runs import Monitor
from tests.conftest import aws
from tests.worker import delegate, form, result

URI = "@mbari/lineage_card/show_training_data"
VERSION = "20260301T120000_ab12cd"
VIEW = f"training data m.x/{VERSION}"
FIELD = "data_m_x_ab12cd"
LABELS = ("Calanus", "fecal/pellet ü")


def grow(dataset: fo.Dataset, folder: Path, count: int, tag: bool = True) -> list[str]:
    """Adds labelled files, of every six four in train, one in val, one in test; returns the ids."""
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(count):
        path = folder / f"{dataset.name}-{len(dataset)}-{number}.png"
        path.write_bytes(path.name.encode())
        tags = [{4: "val", 5: "test"}.get(number % 6, "train")] if tag else []
        label = fo.Classification(label=LABELS[number % 2])
        made.append(fo.Sample(filepath=str(path), ground_truth=label, tags=tags))
    return dataset.add_samples(made, progress=False)


def publish(registry, folder: Path, *datasets: fo.Dataset, **more) -> VersionRecord:
    """A version without weights, said to be made of the tagged samples of these datasets."""
    tables = []
    for dataset in datasets:
        columns = labelled.rows(dataset.view(), "ground_truth", None)
        hashes = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in columns["filepath"]]
        used = [split is not None for split in columns["split"]]
        columns |= {"sha256": hashes, "used": used, "why_left_out": [None if u else "in no split" for u in used]}
        kinds = {name: pa.bool_() if name == "used" else pa.string() for name in columns}
        tables.append(pa.table(columns, schema=pa.schema(kinds)))
    rows = pa.concat_tables(tables)
    files = folder / "version"
    files.mkdir()
    manifest.write(rows, files / "manifest.parquet")
    root, key = open_root(str(folder / "artifacts"), {}), f"versions/m.x/{VERSION}"
    said = {
        "model": "m.x",
        "version": VERSION,
        "uri": root.uri(key),
        "key": key,
        "files": root.publish(files, key),
        "classes": list(LABELS),
        "framing": "pad",
        "imgsz": 64,
        "manifest_digest": manifest.digest(rows),
        "class_counts": dict.fromkeys(LABELS, 4),
        "metrics": {"val": {"n": 2}, "test": {"n": 2}},
        "dataset": datasets[0].name,
        "dataset_id": str(datasets[0]._doc.id),
    }
    record = VersionRecord(**{**said, **more})
    registry.add(record)
    registry.set_alias("m.x", "candidate", VERSION)
    return record


@pytest.fixture
def trained(dataset, registry, tmp_path, monkeypatch):
    """A dataset of 12 used samples, and the version that was made of them."""
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    grow(dataset, tmp_path / "rois", 12)
    yield dataset, publish(registry, tmp_path, dataset)
    odm.get_db_conn()[freshness.COLLECTION].drop()


def execute(dataset: fo.Dataset | None, **params):
    """The whole outcome of a run, with what it asks of the App."""
    given = {"params": {"model": "m.x", **params}}
    return foo.execute_operator(URI, given if dataset is None else {**given, "dataset": dataset})


def run(dataset: fo.Dataset | None, **params) -> dict:
    return execute(dataset, **params).result


def marks(dataset: fo.Dataset) -> list:
    dataset.reload()
    return dataset.values(FIELD)


def verdict(record: VersionRecord) -> freshness.Freshness | None:
    return freshness.read(odm.get_db_conn(), [record.name]).get(record.name)


def opened(outcome) -> list:
    """The views that the App is asked to open."""
    asked = outcome.to_json()["executor"]["requests"]
    return [request["params"]["view"] for request in asked if request["operator_uri"].endswith("set_view")]


def test_right_after_training_all_is_fresh_and_shown(trained):
    dataset, record = trained
    outcome = execute(dataset)
    found = outcome.result
    assert found["verdict"] == "fresh"
    assert found["counts"][0] == {"what": "it was made of", "ROIs": 12}
    assert {row["ROIs"] for row in found["counts"][1:]} == {0}
    assert marks(dataset) == [["train"]] * 4 + [["val"], ["test"]] + [["train"]] * 4 + [["val"], ["test"]]
    assert found["saved_views"] == dataset.list_saved_views() == [VIEW]
    assert found["field"] == FIELD
    assert dataset.load_saved_view(VIEW).values("id") == dataset.values("id")
    assert len(opened(outcome)) == 1
    assert opened(outcome)[0][0]["_cls"].endswith("Match")
    assert "open_view" not in found
    kept = verdict(record)
    assert (kept.verdict, kept.counts) == ("fresh", {**dict.fromkeys(kept.counts, 0), "used": 12})
    assert list(kept.counts.values()) == [row["ROIs"] for row in found["counts"]]
    assert kept.rule in found["message"]


def test_the_chosen_splits_are_shown(trained):
    dataset, _ = trained
    run(dataset, splits=["val", "test"])
    shown = dataset.load_saved_view(VIEW)
    assert shown.values("tags") == [["val"], ["test"]] * 2
    run(dataset, splits=["train"])
    dataset.reload()
    assert dataset.load_saved_view(VIEW).count() == 8


def test_what_became_of_each_is_said_marked_and_shown(trained, tmp_path):
    dataset, record = trained
    one = list(dataset)
    dataset.delete_samples([one[0].id])
    one[1]["ground_truth"].label = "Metridia"
    one[2]["ground_truth"] = None
    one[3].tags = ["test", "mine"]
    Path(one[4].filepath).write_bytes(b"another image")
    Path(one[5].filepath).unlink()
    one[6].tags, one[6]["ground_truth"].label = ["val"], LABELS[1]
    for sample in one[1:]:
        sample.save()
    new = grow(dataset, tmp_path / "rois", 2, tag=False)
    strange = grow(dataset, tmp_path / "rois", 1)
    dataset[strange[0]].set_field("ground_truth", fo.Classification(label="no class of it"))
    sample = dataset[strange[0]]
    sample["ground_truth"] = fo.Classification(label="no class of it")
    sample.save()

    found = run(dataset)
    assert found["verdict"] == "stale"
    assert verdict(record).counts == {
        "used": 12,
        "changed": 5,
        "deleted": 1,
        "relabelled": 3,
        "unlabelled": 1,
        "moved": 2,
        "reimaged": 1,
        "unchecked": 0,
        "unreadable": 1,
        "new": 2,
    }
    assert {(r["old"], r["new"], r["ROIs"]) for r in found["relabelled"]} == {
        (LABELS[1], "Metridia", 1),
        (LABELS[0], "(no label)", 1),
        (LABELS[0], LABELS[1], 1),
    }
    assert marks(dataset) == [
        ["train", "relabelled"],
        ["train", "relabelled"],
        ["train", "moved"],
        ["val", "reimaged"],
        ["test"],
        ["train", "relabelled", "moved"],
        *[["train"]] * 3,
        ["val"],
        ["test"],
        ["new"],
        ["new"],
        None,
    ]
    shown = {name: dataset.load_saved_view(name).values("id") for name in dataset.list_saved_views()}
    assert {name.removeprefix(VIEW): len(ids) for name, ids in shown.items()} == {
        "": 11,
        ": relabelled": 3,
        ": moved": 2,
        ": re-imaged": 1,
        ": new": 2,
    }
    assert shown[f"{VIEW}: new"] == new
    assert shown[f"{VIEW}: re-imaged"] == [one[4].id]
    assert "1 images cannot be read any more" in found["message"]
    rows = {r["class"]: r for r in found["per_class"]}
    assert (rows[LABELS[1]]["relabelled from"], rows[LABELS[1]]["relabelled to"], rows[LABELS[1]]["new"]) == (1, 1, 1)


def test_views_and_marks_of_an_earlier_time_go_when_they_no_longer_hold(trained, tmp_path):
    dataset, _ = trained
    new = grow(dataset, tmp_path / "rois", 2, tag=False)
    sample = dataset.first()
    sample["ground_truth"].label = "Metridia"
    sample.save()
    run(dataset)
    assert set(dataset.list_saved_views()) == {VIEW, f"{VIEW}: relabelled", f"{VIEW}: new"}
    sample["ground_truth"].label = LABELS[0]
    sample.save()
    for name in new:
        other = dataset[name]
        other["ground_truth"] = None
        other.save()
    run(dataset)
    dataset.reload()
    assert dataset.list_saved_views() == [VIEW]
    assert marks(dataset)[-2:] == [None, None]
    assert marks(dataset)[0] == ["train"]


def test_a_second_look_writes_nothing_anew(trained):
    dataset, _ = trained
    run(dataset)
    dataset.reload()
    before = dataset.values("last_modified_at")
    run(dataset)
    dataset.reload()
    assert dataset.values("last_modified_at") == before


def test_images_are_left_alone_when_asked_and_that_is_said(trained):
    dataset, record = trained
    Path(dataset.first().filepath).unlink()
    found = run(dataset, check_images=False)
    assert {"what": "with other bytes", "ROIs": "not checked"} in found["counts"]
    assert {"what": "images not looked at", "ROIs": 12} in found["counts"]
    assert "images not checked" in found["message"]
    assert verdict(record).counts["reimaged"] == "not checked"


def test_a_store_of_media_that_is_away_ends_the_look_at_images_alone():
    def read(path: str) -> bytes:
        if path.endswith("b"):
            raise StorageError("The disk is away.")
        return b"x"

    found, why_not = training_data.hashes(pa.chunked_array([["a", "a", "b", "a"]]), read, Monitor())
    assert found == [hashlib.sha256(b"x").hexdigest()] * 2
    assert why_not == "The disk is away."


def test_images_on_s3_are_read_anew_whatever_is_kept_of_them(s3, bucket):
    client, uri = aws("s3", s3), f"s3://{bucket}/roi.png"
    client.put_object(Bucket=bucket, Key="roi.png", Body=b"then")
    assert Media(s3).read(uri) == b"then"
    client.put_object(Bucket=bucket, Key="roi.png", Body=b"now")
    key = {"dataset_id": ["d"], "sample_id": ["s"]}
    used, now = pa.table({**key, "sha256": ["h"]}), pa.table({**key, "filepath": [uri]})
    found, why_not = training_data.with_images(used, now, s3, Monitor())
    assert found["sha256"].to_pylist() == [hashlib.sha256(b"now").hexdigest()]
    assert why_not is None


def test_a_renamed_dataset_is_found_and_a_deleted_one_is_said(trained, registry, tmp_path, monkeypatch):
    dataset, record = trained
    other = fo.Dataset(f"{dataset.name}-other")
    grow(other, tmp_path / "rois", 6)
    odm.get_db_conn()[VERSIONS].drop()
    (tmp_path / "two").mkdir()
    publish(registry, tmp_path / "two", dataset, other)
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "two" / "artifacts"))
    then = dataset.name
    dataset.name = f"{then}-new"
    found = run(other)
    assert found["datasets"] == [
        {"dataset": f"{then}-new", "ROIs": 12, "state": f"was called {then}"},
        {"dataset": f"{then}-other", "ROIs": 6, "state": "there"},
    ]
    assert found["verdict"] == "fresh"
    assert VIEW in other.list_saved_views()
    assert VIEW in dataset.list_saved_views()
    other.delete()
    found = run(dataset)
    assert found["datasets"][1]["state"] == "deleted"
    assert {"what": "deleted", "ROIs": 6} in found["counts"]
    assert found["verdict"] == "stale"
    assert f"The dataset '{then}-other' is gone." in found["message"]
    assert record.name in found["message"]


def test_it_needs_no_open_dataset_and_opens_a_view_only_of_the_one_that_is(trained):
    dataset, _ = trained
    outcome = execute(None)
    assert outcome.result["verdict"] == "fresh"
    assert VIEW in dataset.list_saved_views()
    assert opened(outcome) == []


def test_the_view_opens_in_the_app_where_each_load_of_a_dataset_is_another_object(trained, monkeypatch):
    dataset, _ = trained
    monkeypatch.setattr(fo.config, "singleton_cache", False)  # as FiftyOne's server has it
    assert len(opened(execute(dataset))) == 1


def test_a_worker_does_the_same(trained):
    dataset, _ = trained
    found = result(delegate(URI, dataset, model=f"m.x/{VERSION}"))
    assert found["verdict"] == "fresh"
    assert marks(dataset)[0] == ["train"]


def refused(dataset, text, **params):
    with pytest.raises(ExecutionError, match=text):
        run(dataset, **params).get("x")
    return form(URI, dataset, **{"model": "m.x", **params})


def test_what_is_not_the_suites_is_left_alone(trained):
    dataset, _ = trained
    mine = dataset.limit(1)
    dataset.save_view(f"{VIEW}: new", mine, description="my own")
    assert any("of its own: rename it first" in text for text in refused(dataset, "of its own: rename it first"))
    assert not dataset.has_sample_field(FIELD)
    dataset.delete_saved_view(f"{VIEW}: new")
    dataset.add_sample_field(FIELD, fo.StringField)
    refused(dataset, "that is not the suite's")


def test_what_cannot_be_shown_is_refused_plainly(trained, registry, tmp_path, monkeypatch):
    dataset, record = trained
    refused(dataset, "has no alias", model="m.x@production")
    refused(dataset, "cannot be", splits=["train", "rest"])
    (tmp_path / "artifacts" / record.key / "manifest.parquet").unlink()
    refused(dataset, "There is nothing at")
    dataset.rename_sample_field("ground_truth", "other")
    assert any("no Classification field" in text for text in refused(dataset, "give the field its old name again"))
    monkeypatch.delenv("MBARI_ARTIFACTS")
    dataset.rename_sample_field("other", "ground_truth")
    assert any("MBARI_ARTIFACTS is not set" in text for text in refused(dataset, "There is no artifact root"))
    assert verdict(record) is None


def test_an_altered_manifest_is_not_believed(trained, tmp_path):
    dataset, record = trained
    path = tmp_path / "artifacts" / record.key / "manifest.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(dataset, "is damaged")


def test_an_older_version_without_its_manifest_says_so(dataset, registry, tmp_path, monkeypatch):
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    grow(dataset, tmp_path / "rois", 2)
    publish(registry, tmp_path, dataset, files={})
    said = refused(dataset, "published without its manifest")
    assert any("published without its manifest" in text for text in said)


def test_the_form_says_how_many_images_and_what_was_found_before(trained, registry, tmp_path):
    dataset, record = trained
    assert "About 12 images are read." in form(URI, dataset, model="m.x")
    assert not [text for text in form(URI, dataset, model="m.x", check_images=False) if "images are read" in text]
    odm.get_db_conn()[VERSIONS].update_one({"_id": record.name}, {"$set": {"class_counts": {LABELS[0]: 9_000}}})
    assert [text for text in form(URI, dataset, model="m.x") if "About 9,004 images are read: better schedule" in text]
    run(dataset)
    assert [text for text in form(URI, dataset, model="m.x") if "it was found fresh. Fresh: of the 12 ROIs" in text]


def test_long_names_of_models_still_make_names_of_views(trained):
    _, record = trained
    long = record.model_copy(update={"model": "x" * 100})
    names = [training_data.view_name(long, what) for what in (None, *training_data.VIEWS.values())]
    assert all(len(name) <= 100 and VERSION in name for name in names)
    assert len(set(names)) == 5
