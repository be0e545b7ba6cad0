"""What applying, undoing, pulling and settling make of a sample's label."""

import itertools

import pytest

from shared.sync import edits
from shared.sync.corrections import MARKER, SYNCED, Correction, Status
from shared.sync.journal import Outcome, Row
from shared.sync.labels import Move

C = Correction("s", "e1", label="Calanus", stored="Calanus", wanted="Metridia", tags=("Metridia",))


def correction(**changes):
    return Correction(**{**{name: getattr(C, name) for name in Correction.__dataclass_fields__}, **changes})


def test_an_applied_correction_waits_for_the_store_unless_there_was_nothing_to_change():
    assert edits.applied(C, MARKER) == Move("s", "Calanus", "Metridia", ("Metridia",), (MARKER,), "Calanus")
    assert edits.applied(correction(source_id=None), MARKER).tags_on == ()
    assert edits.applied(correction(source_id=""), MARKER).tags_on == ()
    # To what the store held: perhaps it took this very correction, and somebody has put the old label back.
    assert edits.applied(correction(stored="Metridia"), MARKER).tags_on == (MARKER,)
    assert edits.applied(correction(label="Metridia"), MARKER).tags_on == (MARKER,)
    assert edits.applied(correction(label="Metridia", stored="Metridia"), MARKER).tags_on == ()


def test_what_the_store_is_expected_to_hold_is_kept_before_the_label_no_longer_says_it():
    assert edits.applied(correction(stored=None), MARKER).stored == "Calanus"
    assert edits.applied(correction(stored=None, label=None), MARKER).stored == ""
    assert edits.applied(correction(stored=None, source_id=None), MARKER).stored is None


def entry(run, before, after, how="correction", **more):
    return {"run": run, "from": before, "to": after, "how": how, **more}


def undo(history, label, run="r1"):
    return edits.undone([{"id": "s", "label": label, "history": history}], run, MARKER)


def test_undoing_gives_the_label_its_tags_and_its_confidence_back():
    moves, left = undo([entry("r1", "A", "B", tags=["B"], confidence=0.4)], "B")
    assert not left
    assert moves == [
        Move("s", "B", "A", (MARKER, SYNCED), ("B",), note={"undoes": "r1", "confidence": 0.4}),
    ]


@pytest.mark.parametrize(
    ("history", "label", "reason"),
    [
        ([entry("r1", "A", "B")], "C", "changed since"),
        ([entry("r1", "A", "B"), entry("r2", "B", "C"), entry("r3", "C", "B")], "B", "changed since"),
        ([entry("r1", "A", "B"), entry("r2", "B", "B", "sync", store_from="A")], "B", "sent to the label store"),
        ([entry("r1", "A", "B", "sync", store_from="A")], "B", "in the label store"),
    ],
)
def test_what_was_changed_or_sent_since_is_left_alone(history, label, reason):
    moves, left = undo(history, label)
    assert not moves
    assert [reason in said for said in left] == [True]


def test_settling_follows_the_store():
    row = Row("s", "e1", "Calanus", "Calanus", "Metridia", ("Metridia",))
    done = edits.settled(row, Outcome(Status.DONE))
    assert done == Move("s", "Calanus", "Metridia", ("Metridia",), (SYNCED,), "Metridia", store_from="Calanus")
    already = edits.settled(row, Outcome(Status.ALREADY, "Metridia"))
    assert already == Move("s", "Calanus", "Metridia", ("Metridia",), (SYNCED,), "Metridia")
    for status in (Status.CONFLICT, Status.FAILED, Status.NOT_IN_STORE, Status.ID_TWICE):
        assert edits.settled(row, Outcome(status)) is None
    # Written, then changed by somebody: whatever they put there, this correction is a conflict from now on.
    assert edits.settled(row, Outcome(Status.CONFLICT, "Calanus", written=True)) == Move(
        "s", "Calanus", "Calanus", stored="Metridia"
    )


A, B, X = "A", "B", "X"


@pytest.mark.parametrize(
    ("label", "stored", "held", "kind", "becomes"),
    [
        (A, A, A, None, None),
        (A, None, A, None, (A, A)),  # first look
        (A, A, B, edits.CHANGED, (B, B)),
        (A, None, B, edits.CHANGED, (B, B)),  # a freshly loaded dataset
        (None, None, B, edits.CHANGED, (B, B)),
        (B, A, A, edits.EDITED, None),
        (B, A, X, edits.BOTH_EDITED, None),
        (A, A, "", edits.ONLY_HERE, (A, "")),
        (A, None, "", edits.ONLY_HERE, (A, "")),
        (None, None, "", None, (None, "")),
        (B, A, B, None, (B, B)),
    ],
)
def test_pulling_merges_three_and_loses_no_edit(label, stored, held, kind, becomes):
    said, move = edits.pulled(label, stored, held, "s", marked=False, named=False)
    assert said == kind
    assert (None if move is None else (move.to, move.stored)) == becomes


def test_pulling_never_hides_a_conflict_of_a_correction():
    for label, stored, held, marked in itertools.product((A, B, None), (A, B, None), (A, B, X, ""), (True, False)):
        _, move = edits.pulled(label, stored, held, "s", marked=marked, named=not marked)
        if move is None:
            continue
        assert move.to == label  # the label stays
        # What the store is expected to hold changes only where nothing else was expected, or nothing differs.
        assert held == (label or "") or (stored is None and marked)
