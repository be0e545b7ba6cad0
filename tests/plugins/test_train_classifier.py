"""Training from FiftyOne's operators to a published version, and what happens when something goes wrong."""

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from shared import runs, samples
from shared.artifacts import open_root, sha256
from shared.lineage.registry import Registry
from tests import rois
from tests.shared.sync.stores.tators import Troubled, element, uri
from tests.worker import code, delegate, error, form, operation, result, schedule, wait, worker

ASSIGN = "@mbari/train_classifier/assign_splits"
TRAIN = "@mbari/train_classifier/train_classifier"
STOP = "@mbari/train_classifier/stop_run"
# From scratch, small and short: a few seconds each.
QUICK = {"model_name": "m", "base_weights": "yolov8n-cls.yaml", "imgsz": 32, "epochs": 2, "batch": 8}


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "artifacts"
    monkeypatch.setenv("MBARI_ARTIFACTS", str(folder))
    return folder


@pytest.fixture
def plankton(dataset, tmp_path):
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 12))
    return dataset


def assign(dataset, **params):
    return foo.execute_operator(ASSIGN, {"dataset": dataset, "params": params}).result


def splits_of(dataset):
    dataset.reload()
    return {i: samples.split_of(tags) for i, tags in zip(*dataset.values(["id", "tags"]), strict=True)}


def tag_splits(dataset):
    """Four of five to train, in turn one to val or test."""
    ids = dataset.values("id")
    turn = ["train", "train", "val", "train", "train", "test"]
    samples.set_tags(dataset, ids, [turn[i % 6] for i in range(len(ids))], samples.SPLITS)


class TestAssignSplits:
    def test_no_group_is_cut_and_the_result_has_the_table(self, plankton):
        outcome = assign(plankton, group_field="day", train=0.5, val=0.25, test=0.25)
        split = splits_of(plankton)
        parts = {}
        for sample_id, day in zip(*plankton.values(["id", "day"]), strict=True):
            parts.setdefault(day, set()).add(split[sample_id])
        assert all(len(part) == 1 for part in parts.values())
        assert outcome["counts"] == {"train": 18, "val": 9, "test": 9, "without_label": 0}
        assert [row["class"] for row in outcome["splits"]] == sorted(rois.CLASSES)
        assert "36 labelled ROIs" in outcome["message"]

    def test_the_same_seed_gives_the_same_splits_and_another_one_others(self, plankton):
        assign(plankton)
        first = splits_of(plankton)
        assign(plankton, overwrite=True)
        assert splits_of(plankton) == first
        assign(plankton, overwrite=True, seed=1)
        assert splits_of(plankton) != first

    def test_existing_tags_stay_unless_told_otherwise(self, plankton):
        ids = plankton.values("id")
        samples.set_tags(plankton, ids[:5], ["test"] * 5, samples.SPLITS)
        assign(plankton, seed=3)
        assert [splits_of(plankton)[i] for i in ids[:5]] == ["test"] * 5

    def test_identical_images_stay_together_once_their_hashes_are_known(self, plankton):
        samples.write_values(plankton, "media_sha256", plankton.values("id"), [str(i % 6) for i in range(36)])
        assign(plankton)
        parts = {}
        for sample_id, digest in zip(*plankton.values(["id", "media_sha256"]), strict=True):
            parts.setdefault(digest, set()).add(splits_of(plankton)[sample_id])
        assert all(len(part) == 1 for part in parts.values())

    def test_a_class_too_small_is_named(self, plankton, tmp_path):
        rois.fill(plankton, tmp_path / "rare", {"rare": 1}, seed=9)
        assert "rare" in assign(plankton)["message"]

    @pytest.mark.parametrize(
        ("params", "said"),
        [
            ({"train": 0.9}, "must add up to 1; they add up to 1.2"),
            ({"train": "most"}, "The parameter 'train' cannot be 'most'"),
            ({"label_field": "nope"}, "no Classification field 'nope'"),
            ({"group_field": "dya"}, "no field 'dya'"),
            ({"gruop_field": "day"}, "did you mean 'group_field'"),
        ],
    )
    def test_what_cannot_be_is_refused(self, plankton, params, said):
        with pytest.raises(ExecutionError, match=said):
            assign(plankton, **params)

    def test_a_field_without_labels_is_refused(self, plankton):
        plankton.add_sample_field("blank", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
        with pytest.raises(ExecutionError, match="No ROI of this view has a label in 'blank'"):
            assign(plankton, label_field="blank")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"imgsz": 33}, "The parameter 'imgsz' cannot be 33"),
        ({"imgsz": "large"}, "The parameter 'imgsz' cannot be 'large'"),
        ({"epochs": "many"}, "The parameter 'epochs' cannot be 'many'"),
        ({"min_per_class": "few"}, "The parameter 'min_per_class' cannot be 'few'"),
        ({"extra_views": "a view"}, "The parameter 'extra_views' cannot be 'a view'"),
        ({"classes": ["Calanus", "Unicorn"]}, "No ROI of this view has the label Unicorn"),
        ({"extra_views": ["no such dataset"]}, "There is no dataset 'no such dataset'"),
        ({"base_weights": "nobody@production"}, 'There is no model "nobody"'),
        ({"framing": "stretch"}, "input should be 'pad' or 'crop'"),
    ],
)
def test_what_can_be_known_beforehand_is_never_scheduled(plankton, root, registry, params, said):
    tag_splits(plankton)
    with pytest.raises(ExecutionError, match=said):
        schedule(TRAIN, plankton, **{**QUICK, **params})


def test_training_ends_in_a_version_that_is_what_it_says(plankton, root, registry):
    assign(plankton, group_field="day", train=0.5, val=0.25, test=0.25)
    outcome = result(delegate(TRAIN, plankton, **QUICK))
    record = registry.resolve("m@candidate")
    assert outcome["version"] == record.name
    assert record.classes == sorted(rois.CLASSES)
    assert (record.framing, record.imgsz, record.dataset) == ("pad", 32, plankton.name)
    assert sum(record.class_counts.values()) == list(splits_of(plankton).values()).count("train")

    folder = Path(record.uri)
    assert set(record.files) >= {"weights.pt", "model.json", "metrics.json", "manifest.parquet", "training.csv"}
    assert sum(name.startswith("plots/") for name in record.files) >= 4
    for name, info in record.files.items():
        assert sha256(folder / name) == info.sha256
    model = json.loads((folder / "model.json").read_text())
    assert model["classes"] == record.classes
    assert model["libraries"]["ultralytics"]
    assert len((folder / "training.csv").read_text().splitlines()) == 1 + QUICK["epochs"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["top1"] == outcome["top1"]
    assert metrics["test"]["macro_f1"] == outcome["macro_f1"]
    # What only a run that was killed needs is gone.
    assert open_root(str(root), {}).list("checkpoints") == []


def test_predictions_and_hashes_are_kept_on_the_samples(plankton, root, registry):
    tag_splits(plankton)
    result(delegate(TRAIN, plankton, **QUICK))
    record = registry.resolve("m")
    plankton.reload()
    field = f"pred_m_{record.version[-6:]}"
    assert plankton.get_field(field).info["mbari_model"] == record.name
    predicted = plankton.exists(field)
    assert set(predicted.values("id")) == {i for i, s in splits_of(plankton).items() if s in ("val", "test")}
    pairs = predicted.match_tags("test").values([f"{field}.label", "ground_truth.label"])
    right = sum(a == b for a, b in zip(*pairs, strict=True))
    assert right / predicted.match_tags("test").count() == pytest.approx(record.metrics["test"]["top1"])
    path, digest = plankton.first().filepath, plankton.first().media_sha256
    assert sha256(Path(path)) == digest


def test_a_version_is_fine_tuned_further(plankton, root, registry):
    tag_splits(plankton)
    result(delegate(TRAIN, plankton, **QUICK))
    first = registry.resolve("m")
    result(delegate(TRAIN, plankton, **{**QUICK, "base_weights": "m@candidate", "seed": 1}))
    second = registry.resolve("m")
    assert second.name != first.name
    assert second.base == "m@candidate"
    assert second.base_sha256 == first.files["weights.pt"].sha256


def test_several_datasets_are_trained_on_together(plankton, root, registry, tmp_path):
    from shared.lineage import manifest

    other = fo.Dataset()
    rois.fill(other, tmp_path / "others", dict.fromkeys(rois.CLASSES[:2], 6), seed=7)
    tag_splits(plankton)
    tag_splits(other)
    other.save_view("some", other.limit(6))
    result(delegate(TRAIN, plankton, **QUICK, extra_views=[f"{other.name}/some"]))
    record = registry.resolve("m")
    rows = manifest.read(Path(record.uri) / "manifest.parquet")
    assert sorted(set(rows["dataset"].to_pylist())) == sorted({plankton.name, other.name})
    assert rows.num_rows == 36 + 6
    assert record.extra_views == [f"{other.name}/some"]
    other.reload()
    assert len(other.exists("media_sha256")) == 6
    other.delete()


def test_an_s3_artifact_root(plankton, s3, bucket, registry, monkeypatch):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MBARI_ARTIFACTS", f"s3://{bucket}/models")
    tag_splits(plankton)
    result(delegate(TRAIN, plankton, **QUICK))
    record = registry.resolve("m")
    assert record.uri.startswith(f"s3://{bucket}/models/")
    assert open_root(f"s3://{bucket}/models", s3).published(record.key) == record.files


def test_bad_images_are_left_out_and_named(plankton, root, registry):
    tag_splits(plankton)
    bad = plankton.match_tags("train").limit(2).values(["id", "filepath"])
    Path(bad[1][0]).write_bytes(b"not an image")
    Path(bad[1][1]).unlink()
    outcome = result(delegate(TRAIN, plankton, **QUICK))
    plankton.reload()
    assert set(plankton.match_tags("unreadable").values("id")) == set(bad[0])
    assert any("2 images could not be read" in note["note"] for note in outcome["notes"])
    assert sum(row["ROIs"] for row in outcome["left_out"]) == 2


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"base_weights": "/nowhere/weights.pt"}, "/nowhere/weights.pt"),
        ({"base_weights": "nobody@production"}, 'There is no model "nobody"'),
        ({"classes": ["Calanus"]}, "A classifier needs two classes"),
        ({"min_per_class": 1000}, "A classifier needs two classes"),
        ({"model_name": "a b"}, "model_name"),
        ({"extra_views": ["no such dataset"]}, "There is no dataset 'no such dataset'"),
        ({"device": "cuda:77"}, "no device 'cuda:77'"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(plankton, root, registry, params, said):
    tag_splits(plankton)
    try:
        failed = error(delegate(TRAIN, plankton, **{**QUICK, **params}))
    except ExecutionError as refused:  # the form knows it before anything is scheduled
        failed = str(refused)
    assert said in failed.splitlines()[0]
    assert registry.versions() == []


def test_without_splits_nothing_is_scheduled(plankton, root, registry):
    with pytest.raises(ExecutionError, match="run 'Assign train, val and test' first"):
        schedule(TRAIN, plankton, **QUICK)


def test_without_an_artifact_root_the_run_says_what_to_set(plankton, registry, monkeypatch):
    monkeypatch.delenv("MBARI_ARTIFACTS", raising=False)
    tag_splits(plankton)
    assert "MBARI_ARTIFACTS" in error(delegate(TRAIN, plankton, **QUICK)).splitlines()[0]


def running(dataset):
    query = {"dataset": dataset.name, "state": "running"}
    return odm.get_db_conn()[runs.COLLECTION].find_one(query, sort=[("started_at", -1)])


def test_a_killed_training_goes_on_elsewhere_and_ends_whole(plankton, root, registry, tmp_path):
    tag_splits(plankton)
    params = {**QUICK, "epochs": 6, "patience": 0}
    with worker(tmp_path / "first.log") as process:
        scheduled = schedule(TRAIN, plankton, **params)
        wait(scheduled, until=lambda _: len(list(root.glob("checkpoints/*/last.pt"))) > 0)
        process.kill()
        process.wait()
    assert registry.versions() == []
    assert not list(root.glob("versions/*"))
    with worker(tmp_path / "second.log"):
        outcome = result(wait(schedule(TRAIN, plankton, **params)))
    assert outcome["epochs_done"] == 6
    record = registry.resolve("m")
    lines = (Path(record.uri) / "training.csv").read_text().splitlines()
    assert [int(float(line.split(",")[0])) for line in lines[1:]] == [1, 2, 3, 4, 5, 6]
    for name, info in record.files.items():
        assert sha256(Path(record.uri) / name) == info.sha256
    assert open_root(str(root), {}).list("checkpoints") == []


def test_a_training_that_ended_between_files_and_record_is_finished_by_the_next(plankton, root, registry, monkeypatch):
    tag_splits(plankton)

    def database_away(self, record):
        raise ConnectionError("the database is away")

    module = code("train_classifier", "shared.lineage.registry")
    monkeypatch.setattr(module.Registry, "add", database_away)
    assert "the database is away" in error(delegate(TRAIN, plankton, **QUICK))
    monkeypatch.setattr(module.Registry, "add", Registry.add)
    assert registry.versions() == []
    orphans = list(root.glob("versions/m/*"))
    outcome = result(delegate(TRAIN, plankton, **QUICK))
    assert outcome["epochs_done"] == QUICK["epochs"]
    record = registry.resolve("m")
    assert Path(record.uri) not in orphans
    assert open_root(str(root), {}).published(record.key) == record.files


def test_a_stopped_training_keeps_its_checkpoint_and_goes_on(plankton, root, registry, tmp_path):
    tag_splits(plankton)
    params = {**QUICK, "epochs": 300, "patience": 0}
    with worker(tmp_path / "log"):
        scheduled = schedule(TRAIN, plankton, **params)
        wait(scheduled, until=lambda _: len(list(root.glob("checkpoints/*/last.pt"))) > 0)
        run = running(plankton)
        foo.execute_operator(STOP, {"params": {"run": str(run["_id"])}})
        outcome = result(wait(scheduled, seconds=60))
    assert "no version was made" in outcome["message"]
    assert "Schedule the same training again" in outcome["message"]
    assert registry.versions() == []
    assert list(root.glob("checkpoints/*/last.pt"))
    assert operation(scheduled).run_state == "completed"


def test_marking_the_operation_failed_ends_a_training_and_keeps_its_checkpoint(plankton, root, registry, tmp_path):
    tag_splits(plankton)
    with worker(tmp_path / "log"):
        scheduled = schedule(TRAIN, plankton, **{**QUICK, "epochs": 300, "patience": 0})
        wait(scheduled, until=lambda _: len(list(root.glob("checkpoints/*/last.pt"))) > 0)
        run = running(plankton)["_id"]
        fiftyone = Path(sys.executable).parent / "fiftyone"
        subprocess.run([fiftyone, "delegated", "fail", str(scheduled)], check=True, capture_output=True)
        until = time.monotonic() + 60
        while (record := odm.get_db_conn()[runs.COLLECTION].find_one({"_id": run}))["state"] == "running":
            assert time.monotonic() < until
            time.sleep(0.2)
    assert record["state"] == "stopped"
    assert "marked as failed" in record["result"]["stopped"]
    assert registry.versions() == []
    assert list(root.glob("checkpoints/*/last.pt"))


def test_the_same_training_is_not_run_twice_at_once(plankton, root, registry, tmp_path):
    tag_splits(plankton)
    params = {**QUICK, "epochs": 300, "patience": 0}
    with worker(tmp_path / "log"):
        scheduled = schedule(TRAIN, plankton, **params)
        wait(scheduled, until=lambda _: len(list(root.glob("checkpoints/*/last.pt"))) > 0)
        second = error(delegate(TRAIN, plankton, **params))
        assert "is being done already by the run 'Train m on 36 ROIs'" in second.splitlines()[0]
        foo.execute_operator(STOP, {"params": {"run": str(running(plankton)["_id"])}})
        wait(scheduled, seconds=60)


def test_the_form_says_what_a_careful_person_would_look_at_first(plankton, root, registry):
    from tests.worker import form

    tag_splits(plankton)
    samples.remember(plankton, "group_field", "day")
    plankton.limit(1).tag_samples("Calanus")  # which it is
    plankton.limit(2).tag_samples("Pseudo-nitzschia")
    plankton.skip(1).limit(2).tag_labels(rois.CLASSES[2], "ground_truth")
    said = form(TRAIN, plankton, model_name="m")
    assert any("groups of 'day' are on both sides" in text for text in said)
    assert any("3 ROIs have a correction that is not applied" in text for text in said)
    assert any("Few images to learn from: Calanus (8)" in text for text in said)
    assert any("24 ROIs to learn from" in text for text in said)


def test_the_form_says_where_there_is_no_file_to_start_from(plankton, root, registry, tmp_path):
    from tests.worker import form

    (tmp_path / "own.pt").touch()
    for base, there in (
        ("yolov8s-cls.pt", True),
        (str(tmp_path / "own.pt"), True),
        ("s3://bucket/own.pt", True),
        ("yolo8s-cls.pt", False),
    ):
        said = form(TRAIN, plankton, model_name="m", base_weights=base)
        assert any(f"There is no file {base!r} here" in text for text in said) != there


def test_the_form_estimates_time_and_cost_from_earlier_runs(plankton, root, registry, monkeypatch):
    from tests.worker import form

    monkeypatch.setenv("MBARI_PRICE_PER_HOUR", "36")
    tag_splits(plankton)
    for images, seconds in ((10_000, 0.05), (100, 9.0)):  # the second one was too short to tell
        outcome = {"images_learned": images, "seconds_per_image_epoch": seconds, "device": "cpu"}
        record = {"operator": TRAIN, "params": {"imgsz": 224}, "result": outcome}
        odm.get_db_conn()[runs.COLLECTION].insert_one(record)
    said = form(TRAIN, plankton, model_name="m", epochs=100)
    assert any("100 epochs take about 2 min on cpu (costs about 1.20)" in text for text in said)
    said = form(TRAIN, plankton, model_name="m", epochs=100, imgsz=448)
    assert any("100 epochs take about 8 min on cpu (costs about 4.80)" in text for text in said)


def test_the_setup_check_reads_the_vocabulary(dataset, root, tmp_path, monkeypatch):
    path = tmp_path / "names.txt"
    monkeypatch.setenv("MBARI_VOCABULARY", str(path))

    def vocabulary() -> tuple[str, str]:
        outcome = foo.execute_operator("@mbari/train_classifier/check_setup", {"params": {}}).result
        return next((row["state"], row["detail"]) for row in outcome["checks"] if row["item"] == "vocabulary")

    assert vocabulary() == ("failed", f"There is nothing at '{path}': check the name.")
    path.write_text("# ours\nCalanus\nOithona\n")
    assert vocabulary() == ("ok", f"{path}: 2 names")
    path.write_text("Calanus\nOithona\nCalanus\n")
    assert vocabulary() == ("failed", f"The vocabulary {path} has 'Calanus' twice: remove one of them.")


def test_the_setup_check_shows_which_labels_of_tator_are_meant_and_writes_nothing(dataset, root, monkeypatch):
    with Troubled() as tator:
        tator.project()
        tator.put([(element(0), "Calanus"), (element(1), None)])
        monkeypatch.setenv("MBARI_LABEL_STORE", uri(tator))
        monkeypatch.setenv("MBARI_LABEL_STORE_TOKEN", tator.token())
        outcome = foo.execute_operator("@mbari/train_classifier/check_setup", {"params": {}}).result
        assert tator.requests
        assert not [asked for asked in tator.requests if not asked.startswith(("GET ", "PUT "))]
        assert tator.token() not in json.dumps(outcome)
    (detail,) = [row["detail"] for row in outcome["checks"] if row["item"] == "label store"]
    assert "project 'Planktivore lab' (7), version 'Baseline' (31), type 'Boxes' (21), attribute 'Label'" in detail
    assert "2 localizations; of the first 2, 1 have a label; the token may write (permission 'Can Edit')" in detail


def test_the_setup_is_checked_without_showing_a_secret(dataset, root, monkeypatch):
    monkeypatch.setenv("MBARI_LABEL_STORE", "mongodb://user:hunter2@127.0.0.1:1/lab")
    monkeypatch.setenv("MBARI_WEBHOOK_URL", "http://127.0.0.1:1/T000/hunter2")
    monkeypatch.setenv("MBARI_PRICE_PER_HOUR", "cheap")
    root.mkdir()
    outcome = foo.execute_operator("@mbari/train_classifier/check_setup", {"params": {}}).result
    states = {row["item"]: row["state"] for row in outcome["checks"]}
    assert states["versions"] == states["artifact root"] == states["database"] == "ok"
    assert states["label store"] == states["webhook"] == states["price per hour"] == "failed"
    assert states["vocabulary"] == "not set"
    assert "hunter2" not in json.dumps(outcome)
    assert "label store" in outcome["message"]
    assert list(root.iterdir()) == []
    monkeypatch.delenv("MBARI_ARTIFACTS")
    outcome = foo.execute_operator("@mbari/train_classifier/check_setup", {"params": {}}).result
    assert "Training cannot work yet" in outcome["message"]


def test_a_version_is_repeated_from_the_form_and_by_the_worker(plankton, root, registry):
    tag_splits(plankton)
    first = result(delegate(TRAIN, plankton, **QUICK))
    plankton.untag_samples(list(samples.SPLITS))
    said = form(TRAIN, plankton, model_name="m", repeat=first["version"])
    assert any(f"Trains again what {first['version']} was trained on" in text for text in said)
    again = result(delegate(TRAIN, plankton, model_name="m", repeat=first["version"]))
    assert registry.resolve(again["version"]).manifest_digest == registry.resolve(first["version"]).manifest_digest
    assert again["metrics"] == first["metrics"]
    assert f"It repeats {first['version']} on exactly the same data." in again["message"]

    rois.draw(Path(plankton.first().filepath), 2, np.random.default_rng(99))
    other = result(delegate(TRAIN, plankton, model_name="m", repeat=first["version"]))
    assert "no longer on the same data" in other["message"]
    assert f"| Repeats | `{first['version']}` |" in (Path(other["files"]) / "card.md").read_text()


def test_a_run_whose_worker_died_is_not_said_to_stop_within_seconds(registry):
    then = datetime(2020, 1, 2, 3, 4)
    record = {"name": "Sync", "dataset": "gone", "state": "running", "started_at": then, "alive_at": then}
    records = registry._versions.database[runs.COLLECTION]
    identity = records.insert_one(record).inserted_id
    try:
        said = foo.execute_operator(STOP, {"params": {"run": str(identity)}}).result["message"]
    finally:
        records.delete_one({"_id": identity})
    assert said.startswith("'Sync' has given no sign of life since 2020-01-02 03:04 UTC")
    assert "within seconds" not in said
