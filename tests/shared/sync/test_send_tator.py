"""The engine on a stand-in Tator server: what it cannot know from the store's answers, it reads."""

from collections.abc import Sequence
from typing import Any

import pytest

from shared.sync.corrections import Correction, Status
from shared.sync.journal import Journal, Outcome
from shared.sync.lease import Lease
from shared.sync.plan import Line, plan
from shared.sync.send import recover, send
from shared.sync.stores.base import Store
from tests.shared.sync.stores.tators import Troubled, element, opened
from tests.tator.api import Answer, Request
from tests.tator.http import Cut

ROWS, CHUNK = 10, 4  # so three chunks
WORDS = f"chunk={CHUNK}&timeout=2"


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the suite catches it."""


@pytest.fixture
def filled(tator: Troubled) -> Troubled:
    tator.put([(element(n), "Copepod") for n in range(ROWS)])
    return tator


@pytest.fixture(params=["Calanus", "it's"], ids=["bulk", "single"])
def wanted(request: pytest.FixtureRequest) -> str:
    """A new label for many at once, and one that goes singly."""
    return str(request.param)


def planned(store: Store, wanted: str) -> list[Line]:
    ids = [element(n) for n in range(ROWS)]
    corrections = [Correction(f"s{n}", each, "Copepod", "Copepod", wanted, (wanted,)) for n, each in enumerate(ids)]
    return plan(corrections, store.read(ids), (), store.refuses)


def sent(db: Any, store: Store, lines: Sequence[Line], apply: Any = lambda chunk: None) -> list[Line]:
    with Lease(db, store.name, "run 1", seconds=3) as lease:
        about: dict[str, Any] = {"run": "run 1", "by": "ana", "dataset": "d", "label_field": "gt", "patience": 2.0}
        return send(lines, store, Journal(db), lease, apply, **about)


def outcomes(db: Any) -> dict[str, Outcome]:
    """What the journal says became of each element."""
    chunks = list(Journal(db).of_run("run 1"))
    assert {chunk.state for chunk in chunks} == {"closed"}
    pairs = [pair for chunk in chunks for pair in zip(chunk.rows, chunk.outcomes or (), strict=True)]
    assert len(pairs) == len({row.source for row, _ in pairs})
    return {str(row.source): outcome for row, outcome in pairs}


def test_changes_arrive_once(db: Any, filled: Troubled, wanted: str) -> None:
    with opened(filled, more=WORDS) as store:
        lines = sent(db, store, planned(store, wanted))
    assert [line.status for line in lines] == [Status.DONE] * ROWS
    assert set(outcomes(db).values()) == {Outcome(Status.DONE)}
    assert [(filled.labels(element(n)), filled.times(element(n))) for n in range(ROWS)] == [([wanted], 1)] * ROWS


def test_a_lost_answer_is_no_conflict_and_no_second_write(db: Any, filled: Troubled, wanted: str) -> None:
    with opened(filled, more=WORDS) as store:
        lines = planned(store, wanted)
        filled.losing = True
        lines = sent(db, store, lines)
    assert not filled.losing
    assert [line.status for line in lines] == [Status.DONE] * ROWS
    assert [(filled.labels(element(n)), filled.times(element(n))) for n in range(ROWS)] == [([wanted], 1)] * ROWS


@pytest.mark.parametrize("mark", [False, True], ids=["in place", "as a mark"])
def test_what_a_person_edited_meanwhile_is_a_conflict_and_holds_no_other(
    db: Any, filled: Troubled, wanted: str, mark: bool
) -> None:
    with opened(filled, more=WORDS) as store:
        lines = planned(store, wanted)
        filled.edit(element(2), "Acartia", mark=mark)
        filled.put([(element(7), "Copepod")], mark=1, deleted=True)
        lines = sent(db, store, lines)
    assert [line.status for line in lines] == [
        {2: Status.CONFLICT, 7: Status.NOT_IN_STORE}.get(n, Status.DONE) for n in range(ROWS)
    ]
    assert lines[2].found == "Acartia"
    assert filled.labels(element(2)) == ["Acartia"]
    assert {filled.times(element(n)) for n in range(ROWS) if n not in (2, 7)} == {1}


def test_an_edit_between_check_and_write_is_a_conflict(db: Any, filled: Troubled) -> None:
    with opened(filled, more=WORDS) as store:
        lines = planned(store, "Calanus")
        with filled.between(lambda: filled.edit(element(2), "Acartia", mark=True)):
            lines = sent(db, store, lines)
    assert [line.status for line in lines] == [Status.CONFLICT if n == 2 else Status.DONE for n in range(ROWS)]
    assert filled.labels(element(2)) == ["Acartia"]


@pytest.mark.parametrize(("by", "became"), [("Copepod", "put back"), ("Acartia", "changed to 'Acartia'")])
def test_what_a_person_edits_right_after_the_write_is_a_conflict_and_stays(
    db: Any, filled: Troubled, wanted: str, by: str, became: str
) -> None:
    def edited(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH" and filled.labels(element(2)) == [wanted]:
            filled.edit(element(2), by)
        return answer

    with opened(filled, more=WORDS) as store:
        lines = planned(store, wanted)
        filled.instead = edited
        lines = sent(db, store, lines)
    assert [line.status for line in lines] == [Status.CONFLICT if n == 2 else Status.DONE for n in range(ROWS)]
    assert lines[2].reason == f"was written, and {became} since"
    assert outcomes(db)[element(2)].written
    assert [filled.labels(element(n)) for n in range(ROWS)] == [[by if n == 2 else wanted] for n in range(ROWS)]


def test_what_was_put_back_before_the_next_answer_got_lost_stays(db: Any, filled: Troubled) -> None:
    def losing(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH" and filled.labels(element(7)) == ["Oithona"]:  # the second of two groups
            filled.instead = None
            filled.edit(element(2), "Copepod")
            raise Cut
        return answer

    with opened(filled, more="timeout=2") as store:
        lines = [*planned(store, "Calanus")[:5], *planned(store, "Oithona")[5:]]
        filled.instead = losing
        lines = sent(db, store, lines)
    assert [line.status for line in lines] == [Status.CONFLICT if n == 2 else Status.DONE for n in range(ROWS)]
    assert [filled.labels(element(n)) for n in range(4)] == [["Calanus"], ["Calanus"], ["Copepod"], ["Calanus"]]


@pytest.mark.parametrize("losing", [False, True], ids=["answered", "answer lost"])
def test_the_journal_has_the_new_ids_where_the_old_rows_are_kept(
    db: Any, filled: Troubled, wanted: str, losing: bool
) -> None:
    with opened(filled, more=f"in_place=0&{WORDS}") as store:
        lines = planned(store, wanted)
        filled.losing = losing
        assert {line.status for line in sent(db, store, lines)} == {Status.DONE}
    rows = {element(n): filled.rows(element(n)) for n in range(ROWS)}
    assert [len(marks) for marks in rows.values()] == [2] * ROWS
    assert {each: outcome.row for each, outcome in outcomes(db).items()} == {e: m[-1].id for e, m in rows.items()}


def test_who_comes_after_a_killed_run_sees_what_became_of_its_writes(db: Any, filled: Troubled) -> None:
    with opened(filled, more=WORDS) as store:
        lines = planned(store, "Calanus")
        write, calls = store.write, []

        def dies(changes: Any, stamp: Any) -> Any:
            calls.append(write(changes, stamp))
            if len(calls) == 2:
                raise Killed
            return calls[-1]

        store.write = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            sent(db, store, lines)
        store.write = write  # type: ignore[method-assign]
        with Lease(db, store.name, "run 2", seconds=3):
            (chunk,) = recover(store, Journal(db), lambda chunk: None, patience=2.0)
        assert [outcome.status for outcome in chunk.outcomes or ()] == [Status.DONE] * CHUNK
        lines = sent(db, store, planned(store, "Calanus"))
    assert [line.status for line in lines] == [Status.ALREADY] * (2 * CHUNK) + [Status.DONE] * (ROWS - 2 * CHUNK)
    assert {filled.times(element(n)) for n in range(ROWS)} == {1}
