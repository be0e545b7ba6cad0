"""Promotion and rollback through FiftyOne, with a version that was really trained."""

from datetime import UTC, datetime

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from tests import rois, versions
from tests.published import fitted, hide_openvino, version
from tests.webhook import Hook
from tests.worker import form

PROMOTE = "@mbari/lineage_card/promote_model"
PRODUCTION = "@mbari/lineage_card/promote_to_production"
ROLLBACK = "@mbari/lineage_card/rollback_alias"
LENIENT = {"golden_accuracy": 0.0, "margin": 1.0, "max_mix_change": 1.0}  # a network of one epoch knows nothing


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset of 36 ROIs in splits and 36 fresh ones, and a version with card and notes that was trained on it."""
    from scripts.surroundings import own_database
    from shared.artifacts import open_root
    from shared.lineage import notes
    from shared.lineage.registry import ALIASES, VERSIONS

    own_database()
    folder = tmp_path_factory.mktemp("trained")
    dataset = fo.Dataset(folder.parent.name + "-promote")
    versions.fill(dataset, folder / "split")
    record = versions.trained(dataset, folder)
    for collection in (VERSIONS, ALIASES):
        odm.get_db_conn()[collection].drop()  # each test registers what it needs
    rois.fill(dataset, folder / "fresh", dict.fromkeys(rois.CLASSES, 12), seed=1)
    said = notes.Note(at=datetime.now(UTC), by="ann", intended_use="Triage.", limitations="Drawn ROIs only.")
    notes.add(open_root(str(folder / "artifacts"), {}), record.name, said)
    yield dataset, record, folder
    dataset.delete()


@pytest.fixture
def at_hand(trained, registry, monkeypatch):
    """The trained version, registered, and its dataset, of which the test split is the golden set."""
    dataset, record, folder = trained
    hide_openvino(monkeypatch)
    monkeypatch.setenv("MBARI_ARTIFACTS", str(folder / "artifacts"))
    registry.add(record)
    registry.set_alias("m", "candidate", record.version)
    dataset.save_view("golden", dataset.match_tags("test"), overwrite=True)
    yield dataset, record
    dataset.delete_saved_views()


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    """Weights that tell the classes of drawn ROIs."""
    folder, rng = tmp_path_factory.mktemp("perfect"), np.random.default_rng(11)
    paths = [folder / f"{i}.png" for i in range(45)]
    for i, path in enumerate(paths):
        rois.draw(path, i % 3, rng)
    return fitted(folder / "w.pt", list(map(str, paths)), [rois.CLASSES[i % 3] for i in range(45)])


def execute(uri, dataset, **params):
    return foo.execute_operator(uri, {"dataset": dataset, "params": params}).result


def gates(outcome):
    return {gate["name"]: gate["passed"] for gate in outcome["gates"]}


def test_a_complete_version_goes_to_production_and_back(at_hand, registry, trained, perfect):
    dataset, record = at_hand
    holder = version(registry, trained[2], perfect)
    registry.set_alias("m", "production", holder.version, by="bob")
    outcome = execute(PRODUCTION, dataset, model="m", reason="knows more", **LENIENT)
    assert len(gates(outcome)) == 6
    assert all(gates(outcome).values()), outcome["gates"]
    assert outcome["moved"] is True
    assert outcome["message"].startswith(f"m@production stands for {record.name} now (before: {holder.name}).")
    assert "6 of 6 gates passed." in outcome["message"]
    # Those it was trained or chosen on are not judged by.
    assert "Fresh samples left out: 30 that one of the versions was trained on." in outcome["message"]
    # It is no secret that the gates asked for less than usual.
    loosened = ["golden accuracy 0 (usually 0.8)", "margin 1 (usually 0.02)", "change of mix 1 (usually 0.1)"]
    assert f"Bounds were loosened, which is recorded: {', '.join(loosened)}." in outcome["message"]
    assert [(row["version"], row["how"], row["reason"]) for row in outcome["history"]] == [
        (record.version, ", ".join(["promote", *loosened]), "knows more"),
        (holder.version, "set", None),
    ]
    (change,) = registry.history("m", "production")[1:]
    assert (change.forced, change.gates) == (False, outcome["gates"])
    assert change.run_id == outcome["run"]

    said = form(ROLLBACK, dataset, alias="m@production")
    assert f"m@production stands for {record.version} now, and then for {holder.version} again." in said
    back = execute(ROLLBACK, dataset, alias="m@production", reason="misses copepods")
    assert back["version"] == holder.name
    assert [row["how"] for row in back["history"]] == ["rollback", ", ".join(["promote", *loosened]), "set"]
    assert registry.aliases("m")["production"] == holder.version
    with pytest.raises(ExecutionError, match="no version held it before"):
        execute(ROLLBACK, dataset, alias="m@production", reason="again")


def test_a_version_that_fails_is_not_moved_and_the_table_says_why(at_hand, registry, trained, perfect, monkeypatch):
    hook = Hook()
    monkeypatch.setenv("MBARI_WEBHOOK_URL", hook.secrets["MBARI_WEBHOOK_URL"])
    dataset, record = at_hand
    holder = version(registry, trained[2], perfect)
    registry.set_alias("m", "staging", holder.version)
    outcome = execute(PROMOTE, dataset, model=record.name, alias="staging")
    assert outcome["moved"] is False
    assert not gates(outcome)["Golden set"]
    assert not gates(outcome)["Not worse than the present holder"]
    assert gates(outcome)["Card complete"]
    assert gates(outcome)["Weights verified"], outcome["gates"][-1]
    assert outcome["failed"] == [name for name, passed in gates(outcome).items() if not passed]
    assert (
        f"m@staging was not moved: it still stands for {holder.name}. It does not pass: Golden set"
        in outcome["message"]
    )
    assert registry.aliases("m")["staging"] == holder.version

    forced = execute(PROMOTE, dataset, model=record.name, alias="staging", force=True, reason="ship leaves")
    assert (forced["moved"], forced["forced"]) == (True, True)
    assert forced["history"][0]["how"] == "promote, forced"
    assert "It was forced, which is recorded, although it does not pass: Golden set" in forced["message"]
    assert registry.history("m", "staging")[-1].forced
    hook.close()
    assert hook.events() == ["gate_failed", "promoted"]
    told = hook.bodies[1]["metadata"]["event_payload"]
    assert (told["alias"], told["forced"], told["reason"]) == ("m@staging", True, "ship leaves")
    assert told["gates"] == forced["gates"]


def test_a_tag_can_name_the_golden_set(at_hand, registry):
    dataset, record = at_hand
    chosen = dataset.match_tags("train").limit(2)
    chosen.tag_samples("beyond doubt")
    dataset.limit(1).tag_samples("must-pass")
    outcome = execute(PROMOTE, dataset, model=record.name, alias="staging", golden_view="beyond doubt", **LENIENT)
    dataset.untag_samples(["beyond doubt", "must-pass"])
    assert not gates(outcome)["No training sample in the evaluation"]
    figure = next(gate["figure"] for gate in outcome["gates"] if gate["name"] == "Golden set")
    assert "of 2)" in figure
    assert gates(outcome)["Not worse than the present holder"]  # nobody holds it yet
    missing = execute(PROMOTE, dataset, model=record.name, alias="staging", golden_view="nobody made it")
    assert not gates(missing)["Golden set"]
    warned = form(PROMOTE, dataset, model=record.name, alias="staging", golden_view="nobody made it")
    assert any("the gate 'Golden set' will fail" in text for text in warned)


@pytest.mark.parametrize(
    ("uri", "params", "said"),
    [
        (PROMOTE, {"model": "m", "alias": "production"}, "promote_to_production"),
        (PROMOTE, {"model": "m", "alias": "a b"}, "'alias' cannot be 'a b'"),
        (PROMOTE, {"model": "m", "alias": "staging", "force": True}, "'force' needs a reason"),
        (PROMOTE, {"model": "m@gone", "alias": "staging"}, 'no alias "gone"'),
        (PRODUCTION, {"model": "m"}, "reason"),
        (PRODUCTION, {"model": "m", "reason": "  "}, "'reason' cannot be"),
        (ROLLBACK, {"alias": "m@staging", "reason": "x"}, 'no alias "staging"'),
        (ROLLBACK, {"alias": "m", "reason": "x"}, "'alias' cannot be 'm'"),
    ],
    ids=["protected", "odd", "force", "gone", "no reason", "empty reason", "never set", "no alias"],
)
def test_what_cannot_be_done_is_refused(at_hand, registry, uri, params, said):
    dataset, record = at_hand
    with pytest.raises(ExecutionError, match=said):
        execute(uri, dataset, **params)
    assert registry.aliases("m") == {"candidate": record.version}


def test_what_stands_there_already_is_said(at_hand):
    dataset, record = at_hand
    said = f"m@candidate stands for {record.name} already: there is nothing to move."
    assert said in form(PROMOTE, dataset, model=record.name, alias="candidate")
