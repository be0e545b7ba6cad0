"""What training takes from a dataset for the manifest and the card, and training a version again."""

import json
from pathlib import Path

import fiftyone as fo
import pyarrow.parquet as pq
import pytest

from shared.errors import InputError
from shared.lineage.schema import Card
from shared.sync.labels import history_field, stored_field
from tests import rois, versions


@pytest.fixture
def plankton(dataset, tmp_path):
    versions.fill(dataset, tmp_path / "rois")
    return dataset


def read(record, name):
    return Path(record.uri, name).read_text()


def test_the_manifest_and_the_card_say_where_labels_came_from(plankton, tmp_path, registry):
    ids = plankton.values("id")
    label = plankton.first()["ground_truth"].label
    plankton.add_sample_field(history_field("ground_truth"), fo.ListField, subfield=fo.DictField)
    plankton.add_sample_field(stored_field("ground_truth"), fo.StringField)
    corrected, accepted, stored = (plankton[i] for i in ids[:3])
    corrected[history_field("ground_truth")] = [{"from": "x", "to": label, "how": "correction"}]
    accepted[history_field("ground_truth")] = [
        {"from": "x", "to": label, "how": "accepted"},
        {"from": label, "to": "another", "how": "correction"},
    ]
    stored[stored_field("ground_truth")] = label
    for sample in (corrected, accepted, stored):
        sample.save()
    record = versions.trained(plankton, tmp_path, slices=["day"])
    rows = {row["sample_id"]: row for row in pq.read_table(f"{record.uri}/manifest.parquet").to_pylist()}
    assert rows[ids[0]]["provenance"] == "a correction"
    assert rows[ids[1]]["provenance"] == "an accepted prediction"
    assert rows[ids[2]]["provenance"] == "the label store"
    assert rows[ids[3]]["provenance"] == "not known"
    assert rows[ids[3]]["slice:day"] == plankton[ids[3]]["day"]
    card = Card.model_validate_json(read(record, "card.json"))
    assert card.data.provenance["a correction"] == 1
    assert card.data.dataset_id == str(plankton._doc.id)
    assert card.data.snapshot.why_not
    assert {s.value for s in card.evaluation[0].slices} <= set(plankton.distinct("day"))
    assert fo.load_dataset(plankton.name).list_runs() == [f"model_m_{record.version[-6:]}"]


def test_a_version_is_trained_again_from_what_is_published_with_it(plankton, tmp_path, registry):
    first = versions.trained(plankton, tmp_path, slices=["day"])
    # Since then everything that training reads from the dataset has changed.
    plankton.untag_samples("train")
    for sample in plankton.iter_samples(autosave=True):
        sample["ground_truth"].label = rois.CLASSES[0]
    again = versions.trained(plankton, tmp_path, repeat=first.name, epochs=7)
    assert again.manifest_digest == first.manifest_digest
    assert again.metrics == first.metrics
    ours, theirs = (json.loads(read(record, "metrics.json")) for record in (again, first))
    assert ours == theirs
    assert Card.model_validate_json(read(again, "card.json")).changes.same_data


def test_a_repetition_does_not_follow_an_alias_that_has_moved(plankton, tmp_path, registry):
    base = versions.trained(plankton, tmp_path)
    child = versions.trained(plankton, tmp_path, base_weights="m@candidate")
    assert child.base_version == base.name
    again = versions.trained(plankton, tmp_path, repeat=child.name)  # the candidate is the child by now
    assert again.base_version == base.name
    assert again.metrics == child.metrics
    assert [a.name for a in Card.model_validate_json(read(again, "card.json")).base] == [base.name, "yolov8n-cls.yaml"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"repeat": "m/20260101T000000_abcdef"}, "There is no model"),
        ({"slices": ["nowhere"]}, "no field 'nowhere'"),
        ({"slices": ["elemental_id"]}, "elemental_id"),
    ],
)
def test_what_cannot_be_is_refused(dataset, tmp_path, registry, params, said):
    versions.fill(dataset, tmp_path / "rois", each=24)
    with pytest.raises(InputError, match=said):
        versions.trained(dataset, tmp_path, **params)


def test_a_slice_field_may_have_any_name_and_the_world_hears_of_the_version(plankton, tmp_path, registry, monkeypatch):
    from tests.webhook import Hook

    plankton.add_sample_field("label", fo.StringField)  # as a column of the manifest is called
    plankton.set_values("label", ["deep" if number // 6 % 2 else "shallow" for number in range(len(plankton))])
    hook = Hook()
    record = versions.trained(plankton, tmp_path, secrets=hook.secrets, slices=["label"])
    hook.close()
    card = Card.model_validate_json(read(record, "card.json"))
    assert {s.value for s in card.evaluation[0].slices} == {"deep", "shallow"}
    assert record.classes == sorted(rois.CLASSES)
    assert hook.events() == ["version_created"]
    told = hook.bodies[0]["metadata"]["event_payload"]
    assert (told["version"], told["data_digest"]) == (record.name, record.manifest_digest)
    assert record.name in hook.bodies[0]["text"]


def test_a_webhook_that_is_away_costs_a_sentence(plankton, tmp_path, registry, monkeypatch):
    from shared import events

    monkeypatch.setattr(events, "PAUSES", ())
    away = {"MBARI_WEBHOOK_URL": "http://127.0.0.1:1/hunter2"}
    record = versions.trained(plankton, tmp_path, secrets=away)
    found = registry.resolve("m@candidate")
    assert found == record
