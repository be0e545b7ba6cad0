"""What a dataset says of the models that were trained on it, and its snapshot."""

from datetime import UTC, datetime

import fiftyone as fo

from shared.lineage import store
from shared.lineage.schema import Card, Data, Training

CARD = Card(
    model="ptvr.v2",
    version="20260301T120000_ab12cd",
    created_at="2026-03-01T12:00:00+00:00",
    created_by="ann",
    intended_use="Sorting.",
    limitations=["None of them."],
    classes=["Calanus", "$odd.name"],
    framing="pad",
    imgsz=224,
    weights_sha256="0" * 64,
    licence="agpl-3.0",
    data=Data(digest="d" * 64, classes={"$odd.name": {"train": 3}}),
    training=Training(),
    evaluation=[],
)


def test_a_dataset_is_linked_to_the_versions_trained_on_it(dataset):
    key = store.link(dataset, CARD, "s3://lab/versions/x")
    assert key == "model_ptvr_v2_ab12cd"
    found = fo.load_dataset(dataset.name)
    assert found.get_run_info(key).config.name == CARD.name
    assert found.get_run_info(key).config.uri == "s3://lab/versions/x"
    assert Card.model_validate(found.load_run_results(key).card) == CARD


def test_linking_again_replaces_the_link(dataset):
    store.link(dataset, CARD, "s3://lab/versions/x")
    store.link(dataset, CARD, "s3://lab/elsewhere/x")
    assert dataset.list_runs() == ["model_ptvr_v2_ab12cd"]
    assert dataset.get_run_info("model_ptvr_v2_ab12cd").config.uri == "s3://lab/elsewhere/x"


def test_without_enterprise_the_card_learns_why_there_is_no_snapshot(dataset):
    taken = store.snapshot(dataset, "Training data of ptvr")
    assert taken.name is None
    assert "Enterprise" in taken.why_not


def test_on_enterprise_the_snapshot_is_named(dataset, management):
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert store.snapshot(dataset, "Training data of ptvr", now).name == "mbari 2026-03-01 12:00:00"
    assert management.asked == [(dataset.name, "mbari 2026-03-01 12:00:00", "Training data of ptvr")]


def test_a_refused_snapshot_is_on_the_card_with_the_reason(dataset, management):
    management.refuse = PermissionError("you may not")
    taken = store.snapshot(dataset, "Training data of ptvr")
    assert taken.name is None
    assert "you may not" in taken.why_not
