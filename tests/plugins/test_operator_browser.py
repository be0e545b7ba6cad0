"""What the App's operator browser and its grid offer: found by a person's own words, named, with an honest risk."""

from functools import cache
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.registry import OperatorRegistry

from tests import labels

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"

# What a scientist or an admin types, and the operators that must be among those listed then.
WORDS = {
    "train": "train_classifier assign_splits iterate_model show_training_data",
    "fine-tune": "train_classifier",
    "retrain": "train_classifier iterate_model",
    "classifier": "train_classifier apply_model",
    "yolo": "train_classifier",
    "gpu": "check_setup",
    "split": "assign_splits",
    "validation": "assign_splits",
    "leak": "assign_splits",
    "predict": "apply_model accept_predictions evaluate_predictions",
    "inference": "apply_model",
    "classify": "apply_model",
    "run a model": "apply_model",
    "accept": "accept_predictions",
    "evaluate": "evaluate_predictions",
    "accuracy": "evaluate_predictions",
    "confusion": "evaluate_predictions",
    "metrics": "evaluate_predictions",
    "weak": "evaluate_predictions",
    "mistake": "evaluate_predictions",
    "wrong label": "evaluate_predictions",
    "review": "select_for_review mark_reviewed evaluate_predictions",
    "rare": "select_for_review",
    "active learning": "select_for_review",
    "done": "mark_reviewed",
    "embed": "compute_embeddings visualize_embeddings cluster_embeddings",
    "features": "compute_embeddings",
    "dino": "compute_embeddings",
    "umap": "visualize_embeddings",
    "pca": "visualize_embeddings",
    "map": "visualize_embeddings",
    "similar": "visualize_embeddings cluster_embeddings",
    "cluster": "cluster_embeddings label_clusters",
    "group": "cluster_embeddings",
    "hdbscan": "cluster_embeddings",
    "lasso": "label_clusters",
    "label": "correct_labels label_clusters apply_corrections pull_labels add_label",
    "relabel": "correct_labels",
    "annotate": "correct_labels",
    "correct": "correct_labels apply_corrections sync_back",
    "fix": "correct_labels",
    "class name": "add_label",
    "vocabulary": "add_label",
    "new class": "add_label",
    "sync": "sync_back preview_sync revert_sync",
    "send": "sync_back preview_sync",
    "push": "sync_back",
    "upload": "sync_back",
    "database": "sync_back pull_labels",
    "tator": "sync_back pull_labels",
    "conflict": "preview_sync",
    "dry run": "preview_sync",
    "import": "pull_labels",
    "pull": "pull_labels",
    "download": "pull_labels export_history",
    "revert": "revert_sync",
    "undo": "apply_corrections revert_sync rollback_alias",
    "history": "export_history show_runs",
    "csv": "export_history",
    "export": "export_history",
    "model card": "write_card",
    "note": "write_card",
    "document": "write_card",
    "provenance": "show_training_data",
    "verify": "verify_version",
    "reproducible": "verify_version",
    "compare": "compare_models",
    "promote": "promote_model promote_to_production",
    "production": "promote_to_production rollback_alias",
    "release": "promote_to_production",
    "deploy": "promote_to_production",
    "roll": "rollback_alias",
    "iterate": "iterate_model",
    "pipeline": "iterate_model",
    "stop": "stop_run",
    "cancel": "stop_run",
    "abort": "stop_run",
    "status": "show_runs",
    "progress": "show_runs stop_run",
    "runs": "show_runs",
    "cost": "show_runs",
    "failed": "show_runs",
    "set-up": "check_setup",
    "setup": "check_setup",
    "secrets": "check_setup",
    "install": "check_setup",
}


@cache
def operators():
    found = OperatorRegistry().list_operators(builtin=False, type="operator")
    return {operator.uri: operator for operator in found if operator.uri.startswith("@mbari/")}


def listed(word):
    """The names of the operators that FiftyOne's browser lists: the text as it is, in label, URI or description."""
    said = {uri: (one.config.label, uri, one.config.description) for uri, one in operators().items()}
    return {uri.split("/")[-1] for uri, texts in said.items() if any(word in text.lower() for text in texts)}


@pytest.mark.parametrize(("word", "names"), WORDS.items())
def test_an_operator_is_found_by_the_word_that_a_person_types(word, names):
    assert set(names.split()) <= listed(word)


def test_every_operator_is_found_by_some_word():
    assert {name for names in WORDS.values() for name in names.split()} == {uri.split("/")[-1] for uri in operators()}


def test_labels_differ_and_descriptions_are_one_line():
    configs = [operator.config for operator in operators().values()]
    assert len({config.label for config in configs}) == len(configs)
    assert [config.label for config in configs if not config.description or "\n" in config.description] == []


# --- risk: what an agent's guardrails go by ---

READ = {
    "check_setup": "looks at what is set up",
    "show_runs": "lists records",
    "verify_version": "fetches files and computes",
}
OUTSIDE = {
    "sync_back": "writes labels to the label store",
    "revert_sync": "writes labels to the label store",
    "add_label": "adds to the list of the vocabulary, which others read as well",
    "promote_to_production": "moves the version that others take",
    "rollback_alias": "moves the version that others take",
}


def test_an_operator_says_its_risk():
    risks = {uri.split("/")[-1]: operator.config.risk_level.value for uri, operator in operators().items()}
    assert {name for name, risk in risks.items() if risk == "low"} == set(READ)
    assert {name for name, risk in risks.items() if risk == "high"} == set(OUTSIDE)
    assert set(risks.values()) == {"low", "medium", "high"}


def test_the_panel_only_reads():
    panel = OperatorRegistry().get_operator("@mbari/lineage_card/model_lineage")
    assert panel.risk_level.value == panel.config.risk_level.value == "low"


@pytest.mark.parametrize(
    ("call", "names"), [("sending.send(", {"sync_back", "revert_sync"}), ("add(uri", {"add_label"})]
)
def test_only_what_is_of_high_risk_has_the_means_to_write_outside(call, names):
    assert {path.stem for path in PLUGINS.glob("*/*.py") if call in path.read_text()} == names


def state(db):
    """Everything in a database, but for records of runs."""
    passed = {"last_loaded_at": 0}  # FiftyOne's own, whoever opens a dataset
    found = {name: list(db[name].find({}, passed)) for name in db.list_collection_names() if name != "mbari_runs"}
    return repr(sorted(found.items()))


@pytest.mark.parametrize("name", [name for name in READ if name != "verify_version"])
def test_what_reads_changes_nothing(name, dataset, registry):
    import fiftyone.core.odm as odm

    dataset.add_sample(fo.Sample(filepath="/a.png"))
    uri = next(uri for uri in operators() if uri.endswith(f"/{name}"))
    foo.execute_operator(uri, {"dataset": dataset})
    before = state(odm.get_db_conn())
    foo.execute_operator(uri, {"dataset": dataset})
    assert state(odm.get_db_conn()) == before


@pytest.mark.parametrize("name", ["preview_sync", "pull_labels", "correct_labels", "apply_corrections"])
def test_what_is_of_medium_risk_leaves_the_label_store_alone(name, dataset, db, registry, monkeypatch):
    monkeypatch.setenv("MBARI_LABEL_STORE", labels.store_uri(db.name))
    labels.fill(dataset, ["Calanus", "Metridia"], db["rois"])
    dataset.limit(1).tag_samples("Metridia")
    before = list(db["rois"].find())
    more = {"pull_labels": {"apply": True}, "correct_labels": {"label": "Calanus"}}.get(name, {})
    foo.execute_operator(f"@mbari/sync_back/{name}", {"dataset": dataset, "params": more})
    assert list(db["rois"].find()) == before


# --- buttons above the grid ---


def test_what_is_done_to_chosen_rois_has_a_button():
    wanted = "correct_labels label_clusters accept_predictions apply_model mark_reviewed show_training_data"
    assert {uri.split("/")[-1] for uri, one in operators().items() if one.spec.button} == set(wanted.split())
