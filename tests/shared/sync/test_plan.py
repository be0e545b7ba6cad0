import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.sync.corrections import Correction, Status
from shared.sync.plan import COLUMNS, OUTCOMES, Line, changes, counts, plan, problems, to_csv
from shared.sync.stores.base import Found

WANTED = Correction("s1", "e1", "Calanus", "Calanus", "Oithona", ("Oithona",))


def takes_all(label: str) -> str | None:
    return None


def line(correction: Correction = WANTED, held: Found | None = None, twice=(), refuses=takes_all) -> Line:
    """What becomes of one correction where the store holds this."""
    found = {} if held is None else {correction.source_id: held}
    (made,) = plan([correction], found, twice, refuses)
    assert made.correction is correction
    return made


def said(made: Line) -> tuple[Status, str | None, str]:
    return made.status, made.found, made.reason


def test_only_what_the_store_still_holds_is_changed():
    assert said(line(held=Found("Calanus"))) == (Status.UPDATE, "Calanus", "")
    assert said(line(held=Found("Oithona"))) == (Status.ALREADY, "Oithona", "the store holds this label")
    assert said(line(held=Found("Salpa"))) == (Status.CONFLICT, "Salpa", "the store holds 'Salpa', not 'Calanus'")
    # Not the label here: what the store held when it was read.
    edited = replace(WANTED, label="Salpa")
    assert line(edited, Found("Calanus")).status is Status.UPDATE
    assert line(edited, Found("Salpa")).status is Status.CONFLICT


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (Found(None, other="{'a': 1}"), "the store holds {'a': 1}, which is not text, not 'Calanus'"),
        (Found(None, other="None"), "the store holds None, which is not text, not 'Calanus'"),
        (Found("calanus"), "the store holds 'calanus', not 'Calanus'"),
        (Found(""), "the store holds no label, not 'Calanus'"),
    ],
)
def test_what_is_not_the_stored_label_to_the_letter_is_a_conflict(held, reason):
    assert line(held=held).status is Status.CONFLICT
    assert line(held=held).reason == reason


def test_unicodes_two_forms_of_a_label_are_two_labels():
    correction = replace(WANTED, stored="Nodul\u00e1ria")
    assert line(correction, Found("Nodula\u0301ria")).status is Status.CONFLICT
    assert line(replace(correction, wanted="Nodula\u0301ria"), Found("Nodul\u00e1ria")).status is Status.UPDATE


def test_a_label_without_a_stored_one_is_expected_as_it_stands():
    correction = replace(WANTED, stored=None)
    assert line(correction, Found("Calanus")).status is Status.UPDATE
    assert line(correction, Found("Salpa")).status is Status.CONFLICT


@pytest.mark.parametrize("source_id", [None, "", 1.5, True, float("nan"), ["e1"]])
def test_without_an_id_that_can_be_one_nothing_is_looked_up(source_id):
    (made,) = plan([replace(WANTED, source_id=source_id)], {"": Found("Calanus"), 1: Found("Calanus")}, (), takes_all)
    assert made.status is Status.NO_ID
    assert made.reason


def test_an_id_is_a_text_or_a_number_and_these_differ():
    assert line(replace(WANTED, source_id=7), Found("Calanus")).status is Status.UPDATE
    assert plan([replace(WANTED, source_id="7")], {7: Found("Calanus")}, (), takes_all)[0].status is Status.NOT_IN_STORE


def test_an_id_that_several_have_is_never_written():
    assert said(line(held=Found("Calanus"), twice=["e1"])) == (
        Status.ID_TWICE,
        None,
        "several samples of the dataset have this id",
    )
    assert said(line(held=Found("Calanus", copies=2))) == (
        Status.ID_TWICE,
        "Calanus",
        "the store has several labels of this id",
    )
    assert line(held=Found("Oithona", copies=2)).status is Status.ID_TWICE


def test_an_id_that_the_store_does_not_have():
    assert said(line()) == (Status.NOT_IN_STORE, None, "the store has no label of this id")


def test_a_label_that_the_store_cannot_hold_is_asked_for_once_and_not_where_it_is_there():
    asked = []

    def refuses(label: str) -> str | None:
        asked.append(label)
        return "longer than 3 characters"

    corrections = [replace(WANTED, source_id=f"e{number}") for number in range(5)]
    found = {f"e{number}": Found("Calanus") for number in range(4)} | {"e4": Found("Oithona")}
    lines = plan(corrections, found, (), refuses)
    assert [made.status for made in lines] == [Status.CANNOT] * 4 + [Status.ALREADY]
    assert lines[0].reason == "longer than 3 characters"
    assert asked == ["Oithona"]


@pytest.mark.parametrize("problem", [Status.TWO, Status.NOT_IN_VOCABULARY, Status.CANNOT, Status.NO_STORED])
def test_what_was_wrong_before_stays_so_whatever_the_store_holds(problem):
    correction = replace(WANTED, problem=problem, reason="for this reason")
    for held in (Found("Calanus"), Found("Oithona"), None):
        assert said(line(correction, held)) == (problem, None, "for this reason")


def test_every_status_has_its_figure():
    assert set(OUTCOMES) == set(Status)


# --- the account ---

labels = st.sampled_from(["Calanus", "Oithona", "Salpa"])
corrections = st.tuples(
    st.text("abc", min_size=1, max_size=3),
    st.sampled_from([None, "e1", "e2", "e3", 1, 2]),
    st.none() | labels,
    st.none() | labels,
    labels,
    st.sampled_from([None, None, Status.TWO, Status.NO_STORED]),
).map(lambda drawn: Correction(*drawn[:5], tags=("Oithona",), problem=drawn[5], reason=drawn[5] and "a reason"))
held = st.tuples(st.none() | labels, st.integers(1, 2)).map(lambda drawn: Found(*drawn))
stores = st.dictionaries(st.sampled_from(["e1", "e2", 1]), held)


@settings(deadline=None)
@given(st.lists(corrections), stores, st.sets(st.sampled_from(["e1", 2])))
def test_each_correction_has_one_line_and_the_figures_add_up(drawn, found, twice):
    lines = plan(drawn, found, twice, {"Salpa": "too long"}.get)
    assert [made.correction for made in lines] == drawn
    account = counts(lines)
    assert list(account) == ["updated", "already", "conflict", "missing", "invalid", "failed"]
    assert sum(account.values()) == len(lines)
    assert sum(row["labels"] for row in changes(lines)) == account["updated"]
    assert sum(row["labels"] for row in problems(lines)) == len(lines) - account["updated"]
    for made in lines:
        its = made.correction
        if made.status is Status.UPDATE:
            # The one promise: nothing is written but over what was expected, where it is the only one.
            assert its.problem is None
            assert found[its.source_id] == Found(its.expected)
            assert its.source_id not in twice
            assert its.wanted not in (None, its.expected, "Salpa")
        assert (made.status is Status.UPDATE) == (made.reason == "")


def test_changes_and_problems_are_counted_most_first():
    lines = [
        *[line(held=Found("Calanus"))] * 2,
        *[line(replace(WANTED, stored="Salpa"), Found("Salpa"))] * 3,
        replace(line(held=Found("Calanus")), status=Status.DONE),
        line(),
        *[line(held=Found("Salpa"))] * 2,
        replace(line(held=Found("Calanus")), status=Status.FAILED, reason="the store is down"),
    ]
    assert changes(lines) == [
        {"from": "Calanus", "to": "Oithona", "labels": 3},
        {"from": "Salpa", "to": "Oithona", "labels": 3},
    ]
    assert problems(lines) == [
        {"status": "conflict", "reason": "the store holds 'Salpa', not 'Calanus'", "labels": 2},
        {"status": "not in the store", "reason": "the store has no label of this id", "labels": 1},
        {"status": "failed", "reason": "the store is down", "labels": 1},
    ]
    assert counts(lines) == {"updated": 6, "already": 0, "conflict": 2, "missing": 1, "invalid": 0, "failed": 1}
    assert {type(row["status"]) for row in problems(lines)} == {str}


# --- CSV ---


@settings(deadline=None)
@given(st.lists(st.text() | st.sampled_from(["=SUM(A1)", "+1", "-1", "@x", "\ttab", "\rhere", 'a"b,c', "d\r\ne"])))
def test_csv_gives_back_every_cell_as_it_was(texts):
    lines = [
        Line(Correction(text, text, text, None, text, ()), Status.CONFLICT, text, f"not '{text}'") for text in texts
    ]
    head, *rows = csv.reader(io.StringIO(to_csv(lines), newline=""), strict=True)
    assert head == list(COLUMNS)
    assert rows == [[text, text, text, "", text, text, "conflict", f"not '{text}'"] for text in texts]


def test_csv_is_as_the_rfc_has_it():
    text = to_csv([replace(line(held=Found("Calanus")), found='a "b",\nc', reason="=1+1")])
    assert text == (
        "sample_id,source_id,label,stored,wanted,found,status,reason\r\n"
        's1,e1,Calanus,Calanus,Oithona,"a ""b"",\nc",would change,=1+1\r\n'
    )
