"""Vectors through FiftyOne's operator: what is written, what is refused, what a kill leaves, in any number of parts."""

import time
from concurrent.futures import ThreadPoolExecutor

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.operators as foo
import numpy as np
import pytest

from shared import runs, vectors
from shared.framing import frame
from shared.images import decode
from shared.media import Media
from tests import rois
from tests.models import TINY, register, tiny, untrained
from tests.worker import delegate, error, form, result, schedule, wait, worker

COMPUTE = "@mbari/custom_embeddings/compute_embeddings"
STOP = "@mbari/train_classifier/stop_run"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def plankton(dataset, tmp_path):
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 4))
    return dataset


def compute(target, weights, **params):
    where = {"dataset": target} if isinstance(target, fo.Dataset) else {"view": target}
    given = {"model": TINY, "weights": weights and str(weights), "imgsz": 64, **params}
    given = {name: value for name, value in given.items() if value is not None}
    outcome = foo.execute_operator(COMPUTE, {**where, "params": given}).result
    target._root_dataset.reload()
    return outcome


def stored(dataset, field="embeddings"):
    return np.stack(dataset.values(field))


def test_every_roi_gets_the_cls_token_in_single_precision(plankton, weights):
    import timm
    import torch
    from safetensors.torch import load_file

    outcome = compute(plankton, weights, precision="full", imgsz=160)
    assert outcome["counts"] == {"rois": 12, "written": 12, "unreadable": 0}
    network = timm.create_model(TINY, num_classes=0, global_pool="token").eval()
    network.load_state_dict(load_file(weights))
    config = network.pretrained_cfg
    images = np.stack([frame(decode(Media().read(path)), 160, "pad") for path in plankton.values("filepath")])
    pixels = (images / 255 - config["mean"]) / config["std"]
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels).float().permute(0, 3, 1, 2)).numpy()
    found = stored(plankton)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    info = plankton.get_field("embeddings").info[vectors.EMBEDDING]
    assert (info["framing"], info["imgsz"], info["dim"], info["layer"]) == ("pad", 160, 64, "CLS token")
    assert info["backbone"].startswith(TINY)
    assert len(info["weights_sha256"]) == 64


def test_parts_in_any_order_and_twice_end_in_the_same_vectors(plankton, weights):
    compute(plankton, weights, embeddings_field="whole")
    for part in (plankton.skip(7), plankton.limit(7), plankton.skip(5).limit(4)):
        compute(part, weights, embeddings_field="parts", batch_size=3)
    np.testing.assert_array_equal(stored(plankton, "whole"), stored(plankton, "parts"))
    outcome = compute(plankton, weights, embeddings_field="parts", skip_existing=True)
    assert outcome["counts"]["rois"] == 0
    assert "nothing was to do" in outcome["message"]


def test_new_samples_only(plankton, weights, tmp_path):
    compute(plankton, weights)
    before = stored(plankton)
    rois.fill(plankton, tmp_path / "more", {"Calanus": 2}, seed=1)
    outcome = compute(plankton, weights, skip_existing=True)
    assert outcome["counts"] == {"rois": 2, "written": 2, "unreadable": 0}
    np.testing.assert_array_equal(stored(plankton)[:12], before)


def test_a_selection_alone_gets_vectors(plankton, weights):
    chosen = plankton.values("id")[2:5]
    params = {"model": TINY, "weights": str(weights), "imgsz": 64}
    foo.execute_operator(COMPUTE, {"dataset": plankton, "selected": chosen, "params": params})
    assert plankton.exists("embeddings").values("id") == chosen


def test_patches_of_boxes(plankton, weights):
    whole = [fo.Detection(bounding_box=[0, 0, 1, 1]), fo.Detection(bounding_box=[0.2, 0.2, 0.4, 0.4])]
    first, second, third = plankton.limit(3)
    first["boxes"] = fo.Detections(detections=whole)
    second["boxes"] = fo.Detections(detections=[])
    third["boxes"] = fo.Detections(detections=[fo.Detection(bounding_box=[2, 2, 1, 1])])
    for sample in (first, second, third):
        sample.save()
    outcome = compute(plankton, weights, patches_field="boxes", embeddings_field="vector")
    assert outcome["counts"] == {"rois": 3, "written": 2, "unreadable": 1}
    assert "no pixel of the image" in outcome["unreadable"][0]["reason"]
    assert "unreadable" not in plankton.count_sample_tags()
    compute(plankton, weights)
    found = plankton.first()
    np.testing.assert_allclose(found.boxes.detections[0]["vector"], found["embeddings"], rtol=1e-6)
    again = compute(plankton, weights, patches_field="boxes", embeddings_field="vector", skip_existing=True)
    assert again["counts"] == {"rois": 1, "written": 0, "unreadable": 1}


def test_a_model_of_the_registry_is_a_backbone(plankton, tmp_path, registry, monkeypatch):
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    file = untrained(tmp_path / "three.pt")
    record = register(registry, file, tmp_path)
    compute(plankton, None, model="m@candidate", imgsz=None)
    info = plankton.get_field("embeddings").info[vectors.EMBEDDING]
    assert (info["backbone"], info["layer"], info["imgsz"]) == (f"m/{record.version}", "penultimate layer", 64)
    assert stored(plankton).shape == (12, 1280)
    compute(plankton, None, model=str(file), embeddings_field="by_file")
    np.testing.assert_array_equal(stored(plankton), stored(plankton, "by_file"))
    with pytest.raises(Exception, match="brings its own weights"):
        compute(plankton, file, model="m@candidate", embeddings_field="other")


def test_unreadable_rois_are_tagged_and_the_rest_goes_on(plankton, weights, tmp_path):
    (tmp_path / "empty.png").touch()
    plankton.add_samples([fo.Sample(filepath=str(tmp_path / n)) for n in ("empty.png", "gone.png")])
    outcome = compute(plankton, weights)
    assert outcome["counts"] == {"rois": 14, "written": 12, "unreadable": 2}
    assert plankton.match_tags("unreadable").values("filepath") == [
        str(tmp_path / n) for n in ("empty.png", "gone.png")
    ]
    with pytest.raises(
        Exception, match=r"None of 2 ROIs could be read, so there are no vectors\. The first one: The file"
    ):
        compute(plankton.skip(12), weights)


def test_another_backbone_is_refused_rather_than_mixed_and_the_form_says_so(plankton, weights, tmp_path):
    compute(plankton.limit(2), weights)
    before = stored(plankton.limit(2))
    for other in ({"imgsz": 96}, {"framing": "crop"}):
        with pytest.raises(Exception, match="cannot be mixed with them: choose another field"):
            compute(plankton, weights, **other)
    np.testing.assert_array_equal(stored(plankton.limit(2)), before)
    assert plankton.exists("embeddings").count() == 2
    assert any("holds vectors of test_vit" in text for text in form(COMPUTE, plankton))
    assert any("not one of vectors" in text for text in form(COMPUTE, plankton, embeddings_field="ground_truth"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": "dino_vits88", "weights": None}, "dino_vits8"),
        ({"imgsz": 65}, "choose the image size 64 or 80"),
        ({"weights": "/nowhere/tiny.pth"}, "/nowhere/tiny.pth"),
        ({"patches_field": "boxes"}, "no Detections field 'boxes'"),
        ({"embeddings_field": "filepath"}, "not one of vectors"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"model": "dino_vits8"}, "dino|vit_small_patch8"),
    ],
)
def test_bad_input_is_said_before_any_work(plankton, weights, params, message):
    with pytest.raises(Exception, match=message):
        compute(plankton, **{"weights": weights, **params})
    assert not plankton.has_sample_field("embeddings")


def test_without_a_way_to_the_hub_it_says_so_when_scheduled_too(plankton, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    said = error(delegate(COMPUTE, plankton, model="dino_vits8")).splitlines()[0]
    assert "give the weights as a file or s3:// URI in 'weights'" in said


def test_a_run_killed_and_scheduled_again_ends_as_one_left_alone(dataset, weights, tmp_path):
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 200))
    params = {"model": TINY, "weights": str(weights), "imgsz": 160, "batch_size": 4}
    with worker(tmp_path / "log") as process:
        scheduled = schedule(COMPUTE, dataset, embeddings_field="killed", **params)
        wait(scheduled, until=lambda _: _written(dataset, "killed") > 0)
        process.kill()
        process.wait()
    part = _written(dataset, "killed")
    assert 0 < part < 600
    again = result(delegate(COMPUTE, dataset, embeddings_field="killed", **params, skip_existing=True))
    assert again["counts"] == {"rois": 600 - part, "written": 600 - part, "unreadable": 0}
    result(delegate(COMPUTE, dataset, embeddings_field="alone", **params))
    dataset.reload()
    np.testing.assert_array_equal(stored(dataset, "killed"), stored(dataset, "alone"))


def test_a_stopped_run_keeps_what_it_has_and_says_how_to_go_on(plankton, weights, registry):
    # So many that computing them all takes far longer than a run takes to hear that it should stop.
    plankton.add_samples([fo.Sample(filepath=path) for path in plankton.values("filepath") * 250], progress=False)
    params = {"imgsz": 320, "batch_size": 4}
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(compute, plankton, weights, **params)
        until = time.monotonic() + 60
        while not (under_way := [r for r in runs.running(odm.get_db_conn()) if r["dataset"] == plankton.name]):
            assert time.monotonic() < until
            time.sleep(0.05)
        foo.execute_operator(STOP, {"params": {"run": str(under_way[0]["_id"])}})
        outcome = job.result(120)
    done, total = outcome["counts"]["written"], outcome["counts"]["rois"]
    assert 0 < done < total == 3012
    assert _written(plankton, "embeddings") == done
    left = f"It was stopped: {total - done:,} are left; run it again with 'skip existing' to go on."
    assert left in outcome["message"]
    before = stored(plankton.limit(done))
    again = compute(plankton.limit(done + 5), weights, **params, skip_existing=True)
    assert again["counts"] == {"rois": 5, "written": 5, "unreadable": 0}
    np.testing.assert_array_equal(stored(plankton.limit(done)), before)


def _written(dataset, field):
    collection = odm.get_db_conn()[dataset._sample_collection_name]
    return collection.count_documents({field: {"$ne": None}})
