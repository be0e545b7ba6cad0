"""Credentials that expire in mid-run: what the run says, what it leaves, and how it goes on with new ones."""

from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from shared.artifacts import open_root
from tests import models, rois
from tests.conftest import aws
from tests.expiring import Expiring
from tests.worker import delegate, error, result

TRAIN = "@mbari/train_classifier/train_classifier"
APPLY = "@mbari/apply_model/apply_model"
QUICK = {"model_name": "m", "base_weights": "yolov8n-cls.yaml", "imgsz": 32, "epochs": 2, "batch": 8, "patience": 0}


def use(monkeypatch, secrets):
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(s3, bucket, monkeypatch):
    with Expiring(s3) as between:
        use(monkeypatch, between.secrets)
        monkeypatch.setenv("MBARI_ARTIFACTS", f"s3://{bucket}/models")
        yield between


@pytest.fixture
def plankton(dataset, tmp_path):
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 12))
    return dataset


@pytest.fixture
def split(plankton):
    for number, sample in enumerate(plankton.iter_samples(autosave=True)):
        sample.tags = [("train", "train", "val", "train", "train", "test")[number % 6]]
    return plankton


def stored(store, bucket):
    root = open_root(f"s3://{bucket}", store.rotate("AKIALOOKING"))
    return sorted(key.removeprefix("models/") for key in root.list("models"))


def sent(requests):
    return [asked.path.rpartition("/")[2] for asked in requests if asked.method == "PUT"]


def test_a_training_outlives_its_credentials_three_times(split, store, bucket, registry, monkeypatch):
    # While it trains: it ends with the checkpoint that is refused, rather than train on for nothing.
    store.expire("PUT", "last.pt", after=1)
    said = error(delegate(TRAIN, split, **QUICK))
    assert "mbari.AccessError: The credentials for s3://" in said
    assert "have expired or are not valid (ExpiredToken): set new AWS secrets, then start this again." in said
    assert registry.versions() == []
    assert sent(store.requests)[-2:] == ["state.json", "last.pt"]

    # While it publishes, with new ones: it goes on from the stored epoch, and nobody sees half a version.
    use(monkeypatch, store.rotate("AKIASECOND"))
    asked = len(store.requests)
    store.expire("PUT", "/files.json")
    assert "(ExpiredToken): set new AWS secrets" in error(delegate(TRAIN, split, **QUICK))
    assert sent(store.requests[asked:]).count("last.pt") == QUICK["epochs"] - 1
    assert "manifest.parquet" in sent(store.requests[asked:])
    assert registry.versions() == []
    assert {key.partition("/")[0] for key in stored(store, bucket)} == {"checkpoints"}

    # When all is done: what had arrived is not sent again, and a checkpoint that stays is no failure.
    use(monkeypatch, store.rotate("AKIATHIRD"))
    asked = len(store.requests)
    store.expire("DELETE", "/checkpoints/")
    outcome = result(delegate(TRAIN, split, **QUICK))
    assert (outcome["epochs_done"], outcome["version"]) == (QUICK["epochs"], registry.resolve("m").name)
    assert "files.json" in sent(store.requests[asked:])
    assert not {"last.pt", "manifest.parquet"} & set(sent(store.requests[asked:]))
    (record,) = registry.versions()
    secrets = store.rotate("AKIAFOURTH")
    assert open_root(f"s3://{bucket}/models", secrets).published(record.key) == record.files


def test_images_that_may_no_longer_be_read_are_not_unreadable_and_the_rest_is_done_later(
    plankton, store, s3, bucket, tmp_path, monkeypatch
):
    client, image = aws("s3", s3), Path(plankton.first().filepath).read_bytes()
    names = [f"rois/{number}.png" for number in range(120)]
    for name in names:
        client.put_object(Bucket=bucket, Key=name, Body=image)
    plankton.clear()
    plankton.add_samples([fo.Sample(name) for name in names])
    plankton.set_values("filepath", [f"s3://{bucket}/{name}" for name in names])
    weights = models.untrained(tmp_path / "three.pt")
    target = {"dataset": plankton, "params": {"model": str(weights), "prediction_field": "pred", "imgsz": 64}}
    target["params"] |= {"batch_size": 4, "skip_existing": True}
    store.expire("GET", "/rois/", after=110)
    with pytest.raises(ExecutionError, match=r"\(ExpiredToken\): set new AWS secrets, then start this again"):
        foo.execute_operator(APPLY, target)
    plankton.reload()
    some = plankton.exists("pred").count()
    assert 0 < some < 120
    assert plankton.match_tags("unreadable").count() == 0
    use(monkeypatch, store.rotate("AKIASECOND"))
    outcome = foo.execute_operator(APPLY, target).result
    assert outcome["counts"]["written"] == 120 - some
    plankton.reload()
    assert plankton.exists("pred").count() == 120
