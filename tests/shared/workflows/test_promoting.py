"""Promotions of really published versions through their gates."""

import hashlib
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from shared.artifacts import open_root
from shared.lineage import notes
from shared.lineage.gates import NOT_CHECKED
from shared.lineage.registry import Registry
from shared.media import Media
from shared.runs import Monitor
from shared.workflows import promoting
from shared.workflows.comparing import Rows
from shared.workflows.promoting import Bounds, Golden, Promotion, Where, Wish
from tests import rois, stored
from tests.published import fitted, hide_openvino, row, version

DATASET = "d" * 24
GATES = [
    "Golden set",
    "Not worse than the present holder",
    "Class mix",
    "No training sample in the evaluation",
    "Card complete",
    "Weights verified",
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Rows:
    """120 labelled images: the first 60 to learn from, the others fresh."""
    folder, rng = tmp_path_factory.mktemp("rois"), np.random.default_rng(3)
    paths = [folder / f"{i}.png" for i in range(120)]
    for i, path in enumerate(paths):
        rois.draw(path, i % 3, rng)
    labels = [rois.CLASSES[i % 3] for i in range(120)]
    return Rows(DATASET, [f"s{i}" for i in range(120)], list(map(str, paths)), labels)


@pytest.fixture(scope="module")
def good(drawn, tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("good") / "w.pt", drawn.uris[:60], drawn.labels[:60])


@pytest.fixture(scope="module")
def bad(drawn, tmp_path_factory) -> Path:
    """A model that was taught to call everything else by the first class."""
    labels = [rois.CLASSES[0]] * 55 + drawn.labels[55:60]
    return fitted(tmp_path_factory.mktemp("bad") / "w.pt", drawn.uris[:60], labels)


@pytest.fixture
def registry(db) -> Registry:
    return Registry(db)


@pytest.fixture
def where(registry, tmp_path) -> Where:
    return Where(registry, open_root(str(tmp_path / "artifacts"), {}), Media().read, tmp_path / "fetched")


@pytest.fixture
def fresh(drawn) -> Rows:
    return drawn.take(np.arange(120) >= 80)


@pytest.fixture
def golden(drawn) -> Golden:
    return Golden("golden", drawn.take((np.arange(120) >= 60) & (np.arange(120) < 80)), np.zeros(20, bool))


@pytest.fixture(autouse=True)
def torch_only(monkeypatch):
    hide_openvino(monkeypatch)


def passed(outcome: Promotion) -> dict[str, bool]:
    return {gate.name: gate.passed for gate in outcome.gates}


def why(outcome: Promotion, name: str) -> str:
    return next(gate.why for gate in outcome.gates if gate.name == name)


def test_a_bare_version_fails_what_it_must_and_the_alias_stays(registry, where, tmp_path, fresh, golden, good):
    record = version(registry, tmp_path, good)
    outcome = promoting.promote(Wish(record, "staging", "ann"), fresh, golden, Bounds(), where)
    assert [gate.name for gate in outcome.gates] == GATES
    assert passed(outcome) == dict(zip(GATES, [True, True, True, True, False, False], strict=True))
    assert outcome.change is None
    assert outcome.holder == ""
    assert outcome.why_not == "It does not pass: Card complete, Weights verified."
    assert "It was published before there were cards" in why(outcome, "Card complete")
    assert registry.aliases("m") == {}


def test_a_version_of_another_release_can_be_verified(registry, where, db, tmp_path, fresh, golden, monkeypatch):
    from shared.lineage import render
    from shared.workflows import verifying

    record = stored.publish(tmp_path, db).record
    wish = Wish(record, "staging", "ann")
    assert passed(promoting.promote(wish, fresh, golden, Bounds(), where))["Weights verified"]
    real = render.markdown
    monkeypatch.setattr(render, "markdown", lambda *given: real(*given).replace("ROIs", "images"))
    assert not passed(promoting.promote(wish, fresh, golden, Bounds(), where))["Weights verified"]
    monkeypatch.setattr(verifying, "__version__", "99.0")
    assert passed(promoting.promote(wish, fresh, golden, Bounds(), where))["Weights verified"]


def test_by_force_it_moves_and_that_is_recorded(registry, where, tmp_path, fresh, golden, good):
    record = version(registry, tmp_path, good)
    nothing = Golden("golden", golden.rows.take(np.zeros(20, bool)), np.zeros(0, bool))
    wish = Wish(record, "staging", "ann", "the cruise begins", "r1", force=True)
    outcome = promoting.promote(wish, fresh, nothing, Bounds(), where)
    assert not passed(outcome)["Golden set"]
    assert registry.aliases("m") == {"staging": record.version}
    (change,) = registry.history("m", "staging")
    assert change == outcome.change
    assert (change.kind, change.forced, change.by, change.reason, change.run_id) == (
        "promote",
        True,
        "ann",
        "the cruise begins",
        "r1",
    )
    assert change.gates == [gate.row() for gate in outcome.gates]
    again = promoting.promote(wish, fresh, nothing, Bounds(), where)
    assert again.gates == []
    assert again.why_not == f"m@staging stands for {record.name} already: there is nothing to move."


def test_a_worse_version_does_not_take_the_place_of_a_better_one(registry, where, tmp_path, fresh, golden, good, bad):
    holder = version(registry, tmp_path, good)
    registry.set_alias("m", "staging", holder.version)
    worse = version(registry, tmp_path, bad)
    must = np.ones(20, bool)
    outcome = promoting.promote(
        Wish(worse, "staging"), fresh, Golden("golden", golden.rows, must), Bounds(max_mix_change=0.01), where
    )
    assert passed(outcome) == dict(zip(GATES, [False, False, False, True, False, False], strict=True))
    assert "must-pass samples are wrong" in why(outcome, "Golden set")
    assert f"lower than those of {holder.name}" in why(outcome, "Not worse than the present holder")
    assert f"The largest change from {holder.name} is {rois.CLASSES[0]}: +" in why(outcome, "Class mix")
    assert registry.aliases("m") == {"staging": holder.version}
    assert outcome.holder == holder.name

    # The other way round it may.
    registry.set_alias("m", "staging", worse.version)
    back = promoting.promote(Wish(holder, "staging"), fresh, golden, Bounds(max_mix_change=1), where)
    assert passed(back) == dict(zip(GATES, [True, True, True, True, False, False], strict=True))
    figure = next(gate.figure for gate in back.gates if gate.name == "Not worse than the present holder")
    assert figure.startswith("top-1 +0.")


def test_training_samples_are_kept_from_the_evaluation(registry, where, tmp_path, drawn, fresh, golden, good):
    """Of an ancestor in the golden set, by id and as a copy, and in the fresh view; of the holder in the fresh view."""
    ids = [*golden.rows.ids[:2], *fresh.ids[:3]]
    learned = [row(i, "x", "train", "0" * 64) for i in ids]
    image = hashlib.sha256(Path(golden.rows.uris[2]).read_bytes()).hexdigest()
    learned.append(row("elsewhere", "x", "train", image, "e" * 24))
    ancestor = version(registry, tmp_path, model="old", rows=learned)
    holder = version(registry, tmp_path, good, rows=[row(i, "x", "val", "1" * 64) for i in fresh.ids[2:7]])
    registry.set_alias("m", "staging", holder.version)
    record = version(registry, tmp_path, good, base_version=ancestor.name)
    outcome = promoting.promote(Wish(record, "staging"), fresh, golden, Bounds(), where)
    assert not passed(outcome)["No training sample in the evaluation"]
    said = why(outcome, "No training sample in the evaluation")
    assert said.startswith("3 golden samples were trained on")
    assert "Fresh samples left out: 7 that one of the versions was trained on." in said
    assert "33 fresh samples" in why(outcome, "Not worse than the present holder")

    few = fresh.take(np.arange(40) < 34)
    outcome = promoting.promote(Wish(record, "staging"), few, golden, Bounds(), where)
    assert "Only 27 fresh labelled samples are left" in why(outcome, "Not worse than the present holder")
    assert not passed(outcome)["Class mix"]


def test_a_lineage_that_is_not_known_fails(registry, where, tmp_path, fresh, golden, good):
    record = version(registry, tmp_path, good, base_version="gone/20200101T000000_aaaaaa")
    outcome = promoting.promote(Wish(record, "staging"), fresh, golden, Bounds(), where)
    assert not passed(outcome)["No training sample in the evaluation"]
    assert 'There is no model "gone"' in why(outcome, "No training sample in the evaluation")


def test_a_holder_that_cannot_be_applied_cannot_be_compared_with(registry, where, tmp_path, fresh, golden, good):
    holder = version(registry, tmp_path)  # its weights are some bytes
    registry.set_alias("m", "staging", holder.version)
    record = version(registry, tmp_path, good)
    outcome = promoting.promote(Wish(record, "staging"), fresh, golden, Bounds(), where)
    figures = {gate.name: gate.figure for gate in outcome.gates}
    assert figures["Not worse than the present holder"] == figures["Class mix"] == NOT_CHECKED
    assert not passed(outcome)["Not worse than the present holder"]
    assert not passed(outcome)["Class mix"]
    assert passed(outcome)["Golden set"]


def test_what_cannot_be_applied_is_not_promoted_even_by_force(registry, where, tmp_path, fresh, golden, good):
    record = version(registry, tmp_path, good)
    with (tmp_path / "artifacts" / record.key / "weights.pt").open("r+b") as file:
        file.write(b"changed")
    outcome = promoting.promote(Wish(record, "staging", reason="now", force=True), fresh, golden, Bounds(), where)
    assert not passed(outcome)["Golden set"]
    assert not passed(outcome)["Weights verified"]
    assert outcome.why_not.startswith(f"{record.name} cannot be applied:")
    assert registry.aliases("m") == {}


def test_unlabelled_and_unreadable_golden_samples_count_as_wrong(registry, where, tmp_path, fresh, golden, good):
    rows = golden.rows
    labels = ["", *rows.labels[1:]]
    uris = [rows.uris[0], str(tmp_path / "gone.png"), *rows.uris[2:]]
    must = np.arange(20) == 1
    record = version(registry, tmp_path, good)
    outcome = promoting.promote(
        Wish(record, "staging"), fresh, Golden("g", Rows(DATASET, rows.ids, uris, labels), must), Bounds(), where
    )
    said = why(outcome, "Golden set")
    assert "1 of 1 must-pass samples are wrong." in said
    assert "1 have no label, which counts as wrong. 1 could not be read" in said


def test_a_card_and_a_persons_words_complete_it(registry, where, tmp_path, fresh, golden, good):
    record = version(registry, tmp_path, good, more={"card.json": b"{"})
    outcome = promoting.promote(Wish(record, "staging"), fresh, golden, Bounds(), where)
    assert "Its card cannot be read" in why(outcome, "Card complete")
    notes.add(where.root, record.name, notes.Note(at=datetime.now(UTC), intended_use="Triage.", limitations="Bay."))
    outcome = promoting.promote(Wish(record, "staging"), fresh, golden, Bounds(), where)
    assert "written by a person" not in why(outcome, "Card complete")


def test_somebody_who_asks_for_an_end_gets_it(registry, where, tmp_path, fresh, golden, good):
    class Impatient(Monitor):
        def stopping(self) -> bool:
            return True

    record = version(registry, tmp_path, good)
    stopped = Where(registry, where.root, where.read, where.folder, Impatient())
    outcome = promoting.promote(Wish(record, "staging", reason="now", force=True), fresh, golden, Bounds(), stopped)
    assert outcome.why_not.startswith("It was stopped")
    assert registry.aliases("m") == {}


def test_of_two_promotions_at_once_one_wins(db, registry, where, tmp_path, fresh, golden, good, bad):
    records = [version(registry, tmp_path, weights) for weights in (good, bad)]
    together = threading.Barrier(2)

    class Simultaneous(Registry):
        """Nobody goes on before both have seen who holds the alias."""

        def aliases(self, model: str) -> dict[str, str]:
            found = super().aliases(model)
            together.wait(60)
            return found

    outcomes: list[Promotion] = []

    def one(i: int) -> None:
        own = Where(Simultaneous(db), where.root, where.read, tmp_path / f"fetched-{i}")
        wish = Wish(records[i], "staging", reason="now", force=True)
        outcomes.append(promoting.promote(wish, fresh, golden, Bounds(), own))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if outcome.change]
    (loser,) = [outcome for outcome in outcomes if not outcome.change]
    assert registry.aliases("m") == {"staging": winner.change.version}
    assert len(registry.history("m", "staging")) == 1
    assert f'"m@staging" was not moved: it holds {winner.change.version} now, not nothing' in loser.why_not
