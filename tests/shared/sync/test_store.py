"""The door to FiftyOne: corrections found through indexes, labels changed whole and once."""

from datetime import UTC, datetime

import fiftyone as fo
import fiftyone.core.odm as odm
import pytest
from fiftyone import ViewField as F

from shared.errors import InputError, StorageError
from shared.sync.corrections import MARKER, SYNCED
from shared.sync.labels import Event, Move
from shared.sync.store import LabelField, open_field, vocabulary
from shared.vocabulary import Vocabulary
from tests import labels

WORDS = Vocabulary(("Calanus", "Metridia", "$label", '{"$ne": null}'), "a test")
EVENT = Event("r1", "somebody", datetime(2026, 3, 1, tzinfo=UTC), "correction")
HOSTILE = ["$label", '{"$ne": null}', "$$ROOT", 'it\'s "50%"\t,', "caf\u00e9", "cafe\u0301", "a.b", "$literal"]


@pytest.fixture
def field(dataset):
    labels.fill(dataset, ["Calanus", "Calanus", "Metridia", None])
    made = LabelField(dataset, "ground_truth", "elemental_id")
    made.prepare()
    return made


def ids(field):
    return field.dataset.values("id")


def column(field, path):
    field.dataset.reload()
    return field.dataset.values(path)


def test_preparing_twice_is_preparing_once_and_other_fields_are_refused(field, dataset):
    before = dataset.get_field_schema(), dataset.get_index_information()
    field.prepare()
    assert (dataset.get_field_schema(), dataset.get_index_information()) == before
    dataset.add_sample_field("other", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    dataset.add_sample_field("other_stored", fo.IntField)
    with pytest.raises(InputError, match="'other_stored'"):
        LabelField(dataset, "other", "elemental_id").prepare()


def test_corrections_are_found_on_samples_and_labels_and_only_in_the_view(field, dataset):
    dataset.limit(1).tag_samples("Metridia")
    dataset.skip(1).limit(1).tag_labels("$label", label_fields="ground_truth")
    dataset.skip(2).limit(1).tag_samples(["favourite", "train"])
    dataset.skip(3).limit(1).tag_samples(MARKER)
    tags = field.tags(WORDS)
    found = field.corrections(dataset.view(), WORDS, tags)
    assert [(c.sample_id, c.wanted) for c in found] == list(
        zip([ids(field)[i] for i in (0, 1, 3)], ["Metridia", "$label", None], strict=True)
    )
    for view in (dataset.skip(1).limit(2), dataset.match(F("elemental_id") == "e1"), dataset.select(ids(field)[1])):
        assert [c.wanted for c in field.corrections(view, WORDS, tags)] == ["$label"]
    # A view that hides labels shows other documents, not other corrections.
    hidden = dataset.filter_labels("ground_truth", F("label") == "nothing", only_matches=False)
    assert field.corrections(hidden, WORDS, tags) == found


def test_views_of_parts_of_samples_are_refused(dataset):
    sample = fo.Sample("/roi.png", boxes=fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 1, 1])]))
    dataset.add_sample(sample)
    with pytest.raises(InputError, match="open the samples themselves"):
        LabelField(dataset, "ground_truth", "id").inside(dataset.to_patches("boxes"), [sample.id])


@pytest.mark.parametrize("label", HOSTILE)
@pytest.mark.parametrize("before", ["Calanus", None])
def test_any_label_is_a_label(field, label, before):
    sample = ids(field)[0 if before else 3]
    move = Move(sample, before, label, (label,), ("needs-sync",), before or "", note={"dropped": label})
    field.dataset.select(sample).tag_samples(label)
    field.move([move], EVENT, tagged=True)
    at = ids(field).index(sample)
    assert column(field, "ground_truth.label")[at] == label
    assert column(field, "tags")[at] == ["needs-sync"]
    (entry,) = column(field, "ground_truth_history")[at]
    assert (entry["from"], entry["to"], entry["dropped"], entry["tags"]) == (before, label, label, [label])
    back = Move(sample, label, before, stored=label)
    field.move([back], EVENT._replace(run="r2", how="undo"))
    assert column(field, "ground_truth.label")[at] == before
    assert column(field, "ground_truth_stored")[at] == label


def test_a_move_is_made_once_and_only_for_the_label_it_was_meant_for(field, dataset):
    first, second, third, _ = ids(field)
    moves = [Move(i, "Calanus", "$label", stored="Calanus") for i in (first, second, third)]
    for _ in range(2):
        field.move(moves, EVENT)
    assert column(field, "ground_truth.label") == ["$label", "$label", "Metridia", None]
    assert [len(h or ()) for h in column(field, "ground_truth_history")] == [1, 1, 0, 0]
    assert field.moved([first, second, third], EVENT) == {first, second}
    # What the store took is noted even where the label has become another one.
    field.settle([Move(third, "Calanus", "$label", stored="$label")], EVENT)
    assert column(field, "ground_truth.label")[2] == "Metridia"
    assert column(field, "ground_truth_stored")[2] == "$label"


def test_a_tag_that_somebody_took_away_meanwhile_is_not_applied(field, dataset):
    field.move([Move(ids(field)[0], "Calanus", "Metridia", ("Metridia",))], EVENT, tagged=True)
    assert column(field, "ground_truth.label")[0] == "Calanus"


def test_a_new_label_does_not_keep_the_old_one_s_confidence(field, dataset):
    sample = dataset.first()
    sample.ground_truth.confidence, sample.ground_truth.logits = 0.3, [1.0, 2.0]
    sample.save()
    field.move([Move(sample.id, "Calanus", "Metridia")], EVENT)
    dataset.reload()
    assert (sample.ground_truth.confidence, sample.ground_truth.logits) == (None, None)
    assert sample["ground_truth_history"][0]["confidence"] == 0.3
    field.move([Move(sample.id, "Metridia", "Calanus", note={"confidence": 0.3})], EVENT._replace(how="undo"))
    dataset.reload()
    assert (sample.ground_truth.label, sample.ground_truth.confidence) == ("Calanus", 0.3)


def test_labels_of_unlabelled_samples_get_ids_of_their_own(field, dataset):
    labels.fill(dataset, [None, None], first=10)
    samples = dataset.match(F("ground_truth") == None).values("id")  # noqa: E711
    moves = [Move(i, None, "Calanus") for i in samples]
    field.move(moves, EVENT)
    made = set(dataset.select(samples).values("ground_truth.id"))
    assert len(made) == 3
    assert not made & set(samples)


def test_corrections_replace_each_other_and_drop_what_synced_said(field, dataset):
    dataset.limit(2).tag_samples(["Metridia", SYNCED, "favourite"])
    dataset.limit(1).tag_labels('{"$ne": null}', label_fields="ground_truth")
    counts = field.correct(ids(field), "$label", "$label", WORDS.names)
    assert counts == {"samples": 4, "replaced": 2, "corrected": 4, "already": 0}
    assert [sorted(t) for t in column(field, "tags")] == [["$label", "favourite"]] * 2 + [["$label"]] * 2
    assert column(field, "ground_truth.tags")[0] == []
    field.correct(ids(field), None, None, WORDS.names)
    assert column(field, "tags") == [["favourite"], ["favourite"], [], []]


def test_correcting_back_to_the_label_marks_only_what_the_store_does_not_hold(field, dataset):
    first, second, *_ = ids(field)
    dataset.select([first, second]).set_values("ground_truth_stored", ["Metridia", "Calanus"])
    assert field.correct([first, second], "Calanus", "Calanus", WORDS.names)["already"] == 2
    assert column(field, "tags")[:2] == [[MARKER], []]


def test_edits_that_nobody_tagged_are_found_in_the_view(field, dataset):
    dataset.set_values("ground_truth_stored", ["Calanus", "$label", "$$ROOT", ""])
    dataset.limit(2).skip(1).tag_samples(MARKER)
    tags = field.tags(WORDS)
    edited = field.untagged_edits(dataset.view(), tags)
    assert [(row["label"], row["stored"]) for row in edited] == [("Metridia", "$$ROOT")]
    assert field.untagged_edits(dataset.limit(1), tags) == []


def test_statuses_of_a_view_are_replaced_and_others_stay(field, dataset):
    first, second, third, _ = ids(field)
    field.set_status(dataset.view(), {first: "conflict: a", second: "missing id: b", third: "conflict: c"})
    names = {"conflict": "conflicts", "missing id": "missing id", "failed": "failed"}
    assert sorted(field.save_views(names)) == ["sync: conflicts", "sync: missing id"]
    assert set(dataset.load_saved_view("sync: conflicts").values("id")) == {first, third}
    dataset.save_view("mine", dataset.limit(1))
    field.set_status(dataset.select([first, second]), {})
    assert field.save_views(names) == ["sync: conflicts"]
    assert column(field, "ground_truth_sync") == [None, None, "conflict: c", None]
    assert dataset.load_saved_view("sync: conflicts").values("id") == [third]
    # Somebody may have it open: an empty one stays.
    assert sorted(dataset.list_saved_views()) == ["mine", "sync: conflicts", "sync: missing id"]
    assert dataset.load_saved_view("sync: missing id").count() == 0


def test_views_that_another_run_has_deleted_meanwhile_are_no_error(field, dataset):
    field.set_status(dataset.view(), {ids(field)[0]: "conflict: a", ids(field)[1]: "failed: b"})
    names = {"conflict": "conflicts", "failed": "failed"}
    field.save_views(names)
    field.set_status(dataset.view(), {ids(field)[0]: "conflict: a"})
    # As another process does it: the dataset in this one does not know.
    odm.get_db_conn()["datasets"].update_one({"name": dataset.name}, {"$set": {"saved_views": []}})
    assert field.save_views(names) == ["sync: conflicts"]
    dataset.reload()
    assert dataset.list_saved_views() == ["sync: conflicts"]


def test_ids_of_several_samples(field, dataset):
    labels.fill(dataset, ["Calanus"], first=2)
    assert field.twice(["e0", "e2", "e3", None]) == {"e2"}


def test_the_vocabulary_is_the_list_else_the_classes_else_the_labels(dataset, tmp_path):
    labels.fill(dataset, ["Metridia", "Calanus", None])
    assert vocabulary(dataset, "ground_truth", {}).names == ("Calanus", "Metridia")
    dataset.classes = {"ground_truth": ["$label"]}
    assert vocabulary(dataset, "ground_truth", {}).names == ("$label",)
    file = tmp_path / "names.txt"
    file.write_text("Oithona\n")
    assert vocabulary(dataset, "ground_truth", {"MBARI_VOCABULARY": str(file)}).names == ("Oithona",)
    with pytest.raises((InputError, StorageError), match=r"nowhere\.txt"):
        vocabulary(dataset, "ground_truth", {"MBARI_VOCABULARY": str(tmp_path / "nowhere.txt")})


def test_a_label_field_is_found_by_the_id_of_its_dataset(field, dataset):
    found = open_field(str(dataset._doc.id), "ground_truth")
    assert found is not None
    assert found.dataset.name == dataset.name
    assert open_field("0" * 24, "ground_truth") is None


def test_reading_goes_through_indexes(field, dataset):
    """What MongoDB says it does: no query of a plan reads the whole collection."""
    collection = dataset._sample_collection
    queries = [
        {"$or": [{"tags": {"$in": ["a"]}}, {"ground_truth.tags": {"$in": ["a"]}}]},
        {"ground_truth.label": {"$eq": "Calanus"}, "ground_truth_stored": {"$nin": ["Calanus", None]}},
        {"ground_truth_sync": {"$gt": ""}},
        {"elemental_id": {"$in": ["e1"]}},
    ]
    for query in queries:
        assert "COLLSCAN" not in str(collection.find(query).explain()["queryPlanner"]["winningPlan"])
