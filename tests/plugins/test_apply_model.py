"""Applying models through FiftyOne's operator: what is written, what is refused, what a kill leaves."""

from pathlib import Path

import fiftyone.core.odm as odm
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from tests import rois
from tests.models import register, untrained
from tests.worker import delegate, error, result, schedule, wait, worker

APPLY = "@mbari/apply_model/apply_model"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("weights") / "three.pt")


@pytest.fixture
def plankton(dataset, tmp_path):
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 8))
    return dataset


@pytest.fixture
def version(weights, tmp_path, registry, monkeypatch):
    """A registered version `m@candidate` made of the untrained weights."""
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    return register(registry, weights, tmp_path)


def apply(dataset, view=None, **params):
    target = {"view": view} if view is not None else {"dataset": dataset}
    outcome = foo.execute_operator(APPLY, {**target, "params": params}).result
    dataset.reload()
    return outcome


def test_every_sample_gets_the_top_class_and_its_confidence(plankton, weights):
    outcome = apply(plankton, model=str(weights), prediction_field="pred", imgsz=64, framing="pad")
    assert outcome["counts"] == {"samples": 24, "written": 24, "below_threshold": 0, "unreadable": 0}
    labels, confidences = plankton.values(["pred.label", "pred.confidence"])
    assert set(labels) <= set(rois.CLASSES)
    assert all(1 / 3 <= c <= 1 for c in confidences)
    info = plankton.get_field("pred").info
    assert info["mbari_model"] == str(weights)
    assert (info["framing"], info["imgsz"]) == ("pad", 64)
    assert info["runtime"] == outcome["runtime"]
    assert sum(row["images"] for row in outcome["class_mix"]) == 24


def test_full_precision_equals_ultralytics(plankton, weights):
    from ultralytics import YOLO

    apply(plankton, model=str(weights), prediction_field="pred", imgsz=64, framing="crop", precision="full")
    paths, confidences = plankton.values(["filepath", "pred.confidence"])
    theirs = [float(r.probs.top1conf) for r in YOLO(weights).predict(paths, imgsz=64, verbose=False)]
    assert np.allclose(confidences, theirs, atol=1e-4)


def test_logits_are_kept_for_fiftyone_s_brain(plankton, weights):
    import fiftyone.brain as fob

    apply(plankton, model=str(weights), prediction_field="pred", imgsz=64, store_logits=True)
    logits = np.stack(plankton.values("pred.logits"))
    assert logits.shape == (24, 3)
    assert plankton.classes["pred"] == plankton.get_field("pred").info["classes"] == list(rois.CLASSES)
    assert [rois.CLASSES[i] for i in logits.argmax(1)] == plankton.values("pred.label")
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(probabilities.max(1), plankton.values("pred.confidence"), atol=1e-5)
    fob.compute_hardness(plankton, "pred")
    assert all(h is not None for h in plankton.values("hardness"))


def test_below_the_threshold_nothing_is_written_and_it_is_counted_by_class(plankton, weights):
    apply(plankton, model=str(weights), prediction_field="pred", imgsz=64)
    middle = float(np.median(plankton.values("pred.confidence")))
    outcome = apply(plankton, model=str(weights), prediction_field="pred", imgsz=64, confidence_threshold=middle)
    kept = [c for c in plankton.values("pred.confidence") if c is not None]
    assert len(kept) == outcome["counts"]["written"] < 24
    assert min(kept) >= middle
    assert sum(row["images"] for row in outcome["below_threshold"]) == outcome["counts"]["below_threshold"] > 0


def test_parts_in_any_order_and_twice_give_the_same_documents(plankton, weights):
    import fiftyone.core.odm as odm

    params = {"model": str(weights), "prediction_field": "pred", "imgsz": 64, "store_logits": True}
    apply(plankton, **params)

    def documents():
        collection = odm.get_db_conn()[plankton._sample_collection_name]
        return {d["_id"]: d["pred"] for d in collection.find({}, {"pred": 1})}

    whole = documents()
    for part in (plankton.skip(17), plankton.limit(11), plankton.skip(5).limit(15)):
        apply(plankton, part, **params, batch_size=4)
    again = documents()
    assert {i: (d["_id"], d["label"]) for i, d in again.items()} == {
        i: (d["_id"], d["label"]) for i, d in whole.items()
    }
    assert np.allclose([d["confidence"] for d in again.values()], [d["confidence"] for d in whole.values()], atol=0.02)


def test_a_registered_version_names_its_own_field_and_says_the_training_mix(plankton, version):
    outcome = apply(plankton, model="m@candidate")
    assert outcome["model"] == version.name
    assert outcome["prediction_field"] == f"pred_m_{version.version[-6:]}"
    assert {row["training"] for row in outcome["class_mix"]} == {"33.3 %"}
    assert plankton.get_field(outcome["prediction_field"]).info["imgsz"] == 64


def test_the_class_mix_is_shown_beside_that_of_the_model_in_production(plankton, version, weights, tmp_path, registry):

    other = register(registry, weights, tmp_path, alias="production")
    assert "has not been applied" in apply(plankton, model="m@candidate")["message"]
    apply(plankton, model="m@production")
    rows = apply(plankton, model="m@candidate")["class_mix"]
    assert all(row[version.name] == row["in production"] for row in rows)  # the same weights
    assert other.name != version.name


def test_skip_existing_continues(plankton, version):
    first = apply(plankton, plankton.limit(10), model="m@candidate")
    field = first["prediction_field"]
    before = plankton.limit(10).values("last_modified_at")
    second = apply(plankton, model="m@candidate", skip_existing=True)
    assert second["counts"]["samples"] == 14
    assert "10 had a prediction of this model already" in second["message"]
    assert plankton.limit(10).values("last_modified_at") == before
    assert plankton.exists(field).count() == 24
    third = apply(plankton, model="m@candidate", skip_existing=True)
    assert "nothing was to do" in third["message"]


def test_bad_images_are_skipped_counted_tagged_and_come_back_when_mended(plankton, weights):
    ids, paths = plankton.limit(3).values(["id", "filepath"])
    good = Path(paths[2]).read_bytes()
    Path(paths[0]).write_bytes(b"")
    Path(paths[1]).unlink()
    Path(paths[2]).write_bytes(good[: len(good) // 2])
    params = {"model": str(weights), "prediction_field": "pred", "imgsz": 64}
    outcome = apply(plankton, **params)
    assert outcome["counts"] == {"samples": 24, "written": 21, "below_threshold": 0, "unreadable": 3}
    assert {row["sample"] for row in outcome["unreadable"]} == set(ids)
    assert set(plankton.match_tags("unreadable").values("id")) == set(ids)
    Path(paths[2]).write_bytes(good)
    assert apply(plankton, **params)["counts"]["unreadable"] == 2
    assert set(plankton.match_tags("unreadable").values("id")) == set(ids[:2])


def test_images_on_s3(plankton, weights, s3, bucket, monkeypatch):
    from tests.conftest import aws

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    client = aws("s3", s3)
    for number, path in enumerate(plankton.values("filepath")):
        client.upload_file(path, bucket, f"rois/{number}.png")
    plankton.set_values("filepath", [f"s3://{bucket}/rois/{number}.png" for number in range(24)])
    client.delete_object(Bucket=bucket, Key="rois/3.png")
    client.upload_file(str(weights), bucket, "weights/three.pt")
    outcome = apply(plankton, model=f"s3://{bucket}/weights/three.pt", prediction_field="pred", imgsz=64)
    assert outcome["counts"]["written"] == 23
    assert outcome["counts"]["unreadable"] == 1


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"model": "nobody@production"}, 'There is no model "nobody"'),
        ({"model": "/nowhere/weights.pt"}, "/nowhere/weights.pt"),
        ({"prediction_field": "ground_truth"}, "holds labels that no model of this suite wrote"),
        ({"prediction_field": "day"}, "is not a Classification field"),
        ({"prediction_field": "a-b"}, "prediction_field"),
        ({"confidence_threshold": 1.5}, "confidence_threshold"),
        ({"device": "cuda:77"}, "cuda:77"),
        ({"imgsz": 64, "modle": "x"}, "did you mean 'model'"),
        ({"model": "nobody/20200101T000000_abcdef"}, 'There is no model "nobody"'),
        ({"runtime": "onnx"}, "input should be 'auto', 'torch' or 'openvino'"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(plankton, weights, registry, params, said):
    before = list(plankton.get_field_schema())
    with pytest.raises(ExecutionError, match=said):
        apply(plankton, **{"model": str(weights), **params})
    plankton.reload()
    assert list(plankton.get_field_schema()) == before
    assert plankton.values("ground_truth.confidence") == [None] * 24


def test_weights_outside_the_trusted_places_are_refused(plankton, weights, monkeypatch):
    monkeypatch.setenv("MBARI_TRUSTED_WEIGHTS", "s3://lab/models/,/opt/models")
    with pytest.raises(ExecutionError, match="is not under one of the trusted places"):
        apply(plankton, model=str(weights), prediction_field="pred")


def test_altered_weights_of_a_version_are_refused(plankton, version):
    file = Path(version.uri) / "weights.pt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ExecutionError, match=r"weights\.pt is damaged"):
        apply(plankton, model="m@candidate")


def test_fields_never_mix_two_models(plankton, version, weights, tmp_path, registry):

    register(registry, weights, tmp_path, alias="production")
    apply(plankton, model="m@candidate", prediction_field="pred")
    with pytest.raises(ExecutionError, match="would mix two models"):
        apply(plankton, model="m@production", prediction_field="pred", skip_existing=True)
    with pytest.raises(ExecutionError, match="samples outside the target"):
        apply(plankton, plankton.limit(3), model="m@production", prediction_field="pred")
    apply(plankton, model="m@production", prediction_field="pred")


def test_an_empty_view_is_refused(plankton, weights):
    with pytest.raises(ExecutionError, match="no sample in the chosen view"):
        apply(plankton, plankton.match_tags("nothing"), model=str(weights), imgsz=64)


def test_a_run_killed_and_scheduled_again_ends_as_one_left_alone(dataset, weights, tmp_path):
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 400))
    params = {"model": str(weights), "imgsz": 224, "batch_size": 8, "store_logits": True}
    with worker(tmp_path / "log") as process:
        scheduled = schedule(APPLY, dataset, prediction_field="killed", **params)
        wait(scheduled, until=lambda _: _written(dataset, "killed") > 0)
        process.kill()
        process.wait()
    part = _written(dataset, "killed")
    assert 0 < part < 1200
    assert result(delegate(APPLY, dataset, prediction_field="killed", **params, skip_existing=True))["counts"][
        "samples"
    ] == (1200 - part)
    result(delegate(APPLY, dataset, prediction_field="alone", **params))
    dataset.reload()
    killed, alone = (dataset.values([f"{f}.label", f"{f}.confidence", f"{f}.logits"]) for f in ("killed", "alone"))
    assert killed[0] == alone[0]
    assert killed[1] == alone[1]
    assert np.array_equal(np.stack(killed[2]), np.stack(alone[2]))


def _written(dataset, field):
    collection = odm.get_db_conn()[dataset._sample_collection_name]
    return collection.count_documents({field: {"$ne": None}})


def test_a_model_that_does_not_fit_says_so_when_scheduled_too(plankton, tmp_path):
    hostile = tmp_path / "weights.pt"
    hostile.write_bytes(b"no weights")
    said = error(delegate(APPLY, plankton, model=str(hostile))).splitlines()[0]
    assert said.startswith("mbari.WeightsError: weights.pt is truncated, damaged or not a checkpoint")
