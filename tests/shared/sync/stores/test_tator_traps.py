"""The ways in which a real Tator server was seen to lose data, each as a test of the store.

The numbers are those of the list beside the recordings.
"""

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import StorageError
from shared.sync.stores import tator_api
from shared.sync.stores.base import Change, Found, Unreachable, Written
from shared.sync.stores.tator import PAGE
from shared.sync.stores.tator_values import escaped, in_bulk
from tests.shared.sync.stores.conformance import LABELS, STAMP
from tests.shared.sync.stores.tators import READS, Troubled, opened
from tests.shared.sync.stores.tators import element as e
from tests.tator.api import Answer, Request
from tests.tator.recordings import FOLDER, load

HARD = ["it's", "50% sure", "50%% twice", "100%s", "tab\there", "carriage\rreturn", "\x01ctl", "a\x7fdel"]
BULKY = ["Solmissus sp.", "new\nline", 'quote "q"', "back\\slash", "comma, colon::x", "true", "12", "{brace}", "--c"]


def change(number: int, expected: str = "Calanus", wanted: str = "Oithona") -> Change:
    return Change(e(number), expected, wanted)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the store would have waited."""
    seconds: list[float] = []
    monkeypatch.setattr(tator_api, "sleep", seconds.append)
    return seconds


def recorded(number: str) -> list[dict[str, Any]]:
    if not FOLDER.exists():
        pytest.skip("the recordings are not beside this checkout")
    return load(number)["interactions"]


def harmless(tator: Troubled) -> None:
    """Asserts that no request was one of those that can reach rows that nobody meant."""
    for request in tator.seen:
        path, query = request.path.removeprefix("/rest/"), dict(request.pairs)
        body = json.loads(request.raw) if request.raw else {}
        assert len(request.path) + sum(len(key) + len(value) for key, value in request.pairs) < 1_000
        if request.method == "GET":
            assert path in READS
        elif path == "Localizations/7":
            assert (query["version"], query["type"]) == ("31", "21")
            assert body["elemental_ids"] if "stop" not in query else request.method == "PUT"
            if request.method == "PATCH":
                assert query.keys() - {"attribute_null"} == {"version", "type", "count"}
                assert int(query["count"]) == len(set(body["elemental_ids"])) > 0
                assert body.keys() <= {"elemental_ids", "attributes", "object_search", "in_place"}
                assert ("object_search" in body) != ("attribute_null" in query)
                assert len(body["attributes"]) == 1
        else:
            assert request.method == "PATCH"
            assert path.startswith("Localization/31/")
            assert len(body["attributes"]) == 1


# --- 1: an empty list is no filter ---


def test_1_an_empty_list_is_never_sent(tator: Troubled) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        assert store.read([]) == store.read(["nope", "", 7, "5f1e-a", f"{e(1)} "]) == {}
        assert store.write([], STAMP) == Written(0)
        assert store.write([Change(bad, "Calanus", "x") for bad in ("nope", "", 200001, e(1)[:-1])], STAMP) == Written(
            0
        )
        refused = store.write([change(1, wanted="\0"), change(2, wanted="half \ud83e")], STAMP)
        assert (refused.done, set(refused.refused)) == (0, {e(1), e(2)})
        with pytest.raises(ValueError, match="no ids"):
            store._which([])
    assert tator.count("PATCH") == tator.count("PUT") == 0
    assert tator.labels(e(1)) == ["Calanus"]


def test_1_no_request_reaches_rows_that_nobody_meant(tator: Troubled) -> None:
    draw = random.Random(7)
    labels = [*LABELS, *HARD, *BULKY, "", "Calanus", "Oithona"]
    held: dict[str, Any] = {e(n): draw.choice([*labels[:8], "Calanus", "", None, 42]) for n in range(60)}
    tator.put(held.items())
    tator.put([(element, "another version") for element in held], version=32)
    with opened(tator) as store:
        for _ in range(12):
            changes = []
            for element in draw.sample(sorted(held), 25):
                holds = held[element]
                right = holds if isinstance(holds, str) else ""
                changes.append(
                    Change(element, right if draw.random() < 0.7 else draw.choice(labels), draw.choice(labels))
                )
            changes += [Change("no uuid", "Calanus", "Oithona"), Change(e(999), "Calanus", "Oithona")]
            done = 0
            for element, expected, wanted in changes:
                if element in held and held[element] in ([expected] if expected else ["", None]):
                    held[element] = wanted
                    done += 1
            assert store.write(changes, STAMP) == Written(done)
            assert {element: tator.labels(element) for element in held} == {e: [v] for e, v in held.items()}
    harmless(tator)
    assert {label for element in held for label in tator.labels(element, 32)} == {"another version"}


# --- 2: unknown filters and names are dropped without a word ---


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "version=Baseline&type=Boxes&attribute=Lable",
            "no attribute 'Lable'.*there are 'Label', 'score'.*did you mean 'Label'",
        ),
        ("version=Baseline&type=Boxes&attribute=score", "'score'.*kind 'float', not string or enum"),
        ("version=Baseline&type=Boxes&verified=verifid", "no attribute 'verifid'.*did you mean 'verified'"),
        ("version=Baseline&type=Boxes&verified=note", "'note'.*kind 'string', not bool"),
        ("version=Basline&type=Boxes", "no version 'Basline'; there are 'Baseline', 'Second', did you"),
        ("version=33&type=Boxes", "no version '33'; there are 'Baseline', 'Second'"),
        ("version=Baseline&type=Bxes", "no type 'Bxes'; there is 'Boxes', did you"),
        ("media_type=Image", "no media_type 'Image'; there is 'Images', did you mean 'Images'"),
    ],
)
def test_2_a_misspelt_name_is_found_out_before_anything_is_written(tator: Troubled, query: str, message: str) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator, query) as store:
        for call in (store.check, lambda: store.read([e(1)]), lambda: store.write([change(1)], STAMP)):
            with pytest.raises(StorageError, match=message) as caught:
                call()
            assert store.name in str(caught.value)
    assert tator.count("PATCH") == tator.count("PUT") == 0


def test_2_a_server_that_drops_the_filters_is_found_out(tator: Troubled) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Calanus")])
    tator.put([(e(1), "Calanus")], version=32)
    with opened(tator) as store:
        store.check()
        for dropped, message in (("elemental_ids", "not asked for"), ("version", "another version")):

            def forgetful(request: Request, dropped: str = dropped) -> Request:
                pairs = [pair for pair in request.pairs if pair[0] != dropped]
                body = json.loads(request.raw)
                body.pop(dropped, None)
                return replace(request, pairs=pairs, raw=json.dumps(body).encode())

            tator.asked = forgetful
            with pytest.raises(StorageError, match=message):
                store.read([e(1)])
            tator.asked = None


# --- 3: ids go stale ---


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_3_a_row_with_a_new_mark_is_a_conflict_and_stays_as_it_is(tator: Troubled, wanted: str) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Calanus")])
    with opened(tator) as store:
        store.read([e(1), e(2)])
        tator.edit(e(1), "Acartia", mark=True)
        assert store.write([change(1, wanted=wanted), change(2, wanted=wanted)], STAMP) == Written(1)
        assert store.read([e(1)]) == {e(1): Found("Acartia")}
    assert [row.attributes["Label"] for row in tator.rows(e(1))] == ["Calanus", "Acartia"]
    assert tator.labels(e(2)) == [wanted]
    harmless(tator)


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_3_a_row_with_a_new_mark_and_the_expected_label_is_written_where_people_look(
    tator: Troubled, wanted: str
) -> None:
    tator.put([(e(1), "Acartia")])
    tator.edit(e(1), "Calanus", mark=True)
    with opened(tator) as store:
        assert store.write([change(1, wanted=wanted)], STAMP) == Written(1)
    assert [row.attributes["Label"] for row in tator.rows(e(1))] == ["Acartia", wanted]


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_3_a_deleted_row_is_not_there(tator: Troubled, wanted: str) -> None:
    tator.put([(e(1), "Calanus")])
    tator.put([(e(1), "Calanus")], mark=1, deleted=True)
    with opened(tator) as store:
        assert store.read([e(1)]) == {}
        assert store.write([change(1, wanted=wanted)], STAMP) == Written(0)
    assert {row.attributes["Label"] for row in tator.rows(e(1))} == {"Calanus"}


# --- 4 and 6: in place, or as a mark ---


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_4_a_write_is_in_place(tator: Troubled, wanted: str) -> None:
    (before,) = tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        assert store.write([change(1, wanted=wanted)], STAMP) == Written(1)
        assert store.read([e(1)])[e(1)].row is None
    (after,) = tator.rows(e(1))
    assert (after.id, after.mark, after.attributes["Label"]) == (before.id, 0, wanted)


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_4_the_old_row_stays_as_a_mark_where_the_lab_wants_that_and_the_new_ids_are_told(
    tator: Troubled, wanted: str
) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Acartia")])
    with opened(tator, more="in_place=0&timeout=2") as store:
        written = store.write([change(1, wanted=wanted), change(2, wanted=wanted)], STAMP)
        old, new = tator.rows(e(1))
        assert written == Written(1, {}, {e(1): new.id})
        assert store.read([e(1)]) == {e(1): Found(wanted, row=new.id)}
    assert [(row.mark, row.attributes["Label"]) for row in (old, new)] == [(0, "Calanus"), (1, wanted)]
    # What watches the time of change sees this, and would not see a bulk write in place.
    assert new.modified > old.modified
    harmless(tator)


# --- 5: one id in several versions ---


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_5_the_same_id_in_another_version_is_left_alone(tator: Troubled, wanted: str) -> None:
    tator.put([(e(1), "Calanus")])
    tator.put([(e(1), "Calanus"), (e(2), "Calanus")], version=32)
    with opened(tator) as store:
        assert store.read([e(1), e(2)]) == {e(1): Found("Calanus")}
        assert store.write([change(1, wanted=wanted), change(2, wanted=wanted)], STAMP) == Written(1)
    assert (tator.labels(e(1)), tator.labels(e(1), 32), tator.labels(e(2), 32)) == ([wanted], ["Calanus"], ["Calanus"])


def test_5_rows_of_another_type_are_left_alone(tator: Troubled) -> None:
    tator.data.projects[7].kinds[22] = replace(tator.data.projects[7].kinds[21], id=22, name="OtherBoxes")
    tator.put([(e(1), "Calanus")], kind=22)
    tator.put([(e(2), "Calanus")])
    with opened(tator) as store:
        assert store.read([e(1), e(2)]) == {e(2): Found("Calanus")}
        assert store.write([change(1), change(2)], STAMP) == Written(1)
    assert (tator.labels(e(1)), tator.labels(e(2))) == (["Calanus"], ["Oithona"])


# --- 7: check and write are two steps ---


def test_7_an_edit_between_check_and_write_is_found_out_by_the_look_afterwards(tator: Troubled) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Calanus")])
    with opened(tator) as store, tator.between(lambda: tator.edit(e(1), "Acartia", mark=True)):
        # The server says that it updated two: of the first, the row that nobody sees any more.
        assert store.write([change(1), change(2)], STAMP) == Written(1, taken={e(1)})
        assert store.read([e(1)]) == {e(1): Found("Acartia")}
    assert tator.labels(e(1)) == ["Acartia"]


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_7_an_edit_right_after_the_write_is_found_out_by_the_look_afterwards(tator: Troubled, wanted: str) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Calanus")])

    def edited(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            tator.edit(e(1), "Acartia")
        return answer

    with opened(tator) as store:
        tator.instead = edited
        written = store.write([change(1, wanted=wanted), change(2, wanted=wanted)], STAMP)
        assert written == Written(1, taken={e(1)})
        assert store.read([e(1)]) == {e(1): Found("Acartia")}


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_7_two_rows_that_two_writers_left_as_the_latest_mark_are_not_written(tator: Troubled, wanted: str) -> None:
    tator.put([(e(1), "Copepod"), (e(2), "Calanus")])
    tator.put([(e(1), "Calanus"), (e(1), "Calanus")], mark=1)
    with opened(tator) as store:
        assert store.read([e(1)])[e(1)].copies == 2
        assert store.write([change(1, wanted=wanted), change(2, wanted=wanted)], STAMP) == Written(1)
    assert tator.labels(e(1)) == ["Calanus", "Calanus"]
    assert tator.times(e(1)) == 0


# --- 8: a bulk write is no transaction ---


def test_8_verified_is_set_in_a_request_of_its_own_and_only_where_the_label_was_written(tator: Troubled) -> None:
    tator.put([(e(n), "Calanus") for n in range(4)], attributes={"verified": False})
    tator.edit(e(3), "Acartia")
    changes = [change(0), change(1), change(2, wanted="it's"), change(3)]
    with opened(tator, more="verified=verified&timeout=2") as store:
        assert store.write(changes, STAMP) == Written(3)
    rows = [tator.rows(e(n))[-1].attributes for n in range(4)]
    assert [(row["Label"], row["verified"]) for row in rows] == [
        ("Oithona", True),
        ("Oithona", True),
        ("it's", True),
        ("Acartia", False),
    ]
    harmless(tator)


def test_8_verified_is_not_set_by_what_takes_a_sync_back_nor_where_the_label_goes(tator: Troubled) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Calanus")], attributes={"verified": False})
    with opened(tator, more="verified=verified&timeout=2") as store:
        assert store.write([change(1)], STAMP._replace(how="revert")) == Written(1)
        assert store.write([change(2, wanted="")], STAMP) == Written(1)
    rows = [tator.rows(e(n))[-1].attributes for n in (1, 2)]
    assert [(row["Label"], row["verified"]) for row in rows] == [("Oithona", False), ("", False)]


def test_8_verified_adds_no_mark_of_its_own(tator: Troubled) -> None:
    tator.put([(e(1), "Calanus")], attributes={"verified": False})
    with opened(tator, more="verified=verified&in_place=0&timeout=2") as store:
        written = store.write([change(1)], STAMP)
    old, new = tator.rows(e(1))
    assert written.rows == {e(1): new.id}
    assert (old.attributes["verified"], new.attributes["verified"]) == (False, True)


def test_8_a_label_that_could_not_be_set_to_verified_is_written_all_the_same(
    tator: Troubled, caplog: pytest.LogCaptureFixture
) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Calanus")], attributes={"verified": False})
    calls = []

    def broken(request: Request, answer: Answer) -> Answer:
        if b'"verified"' in request.raw and request.method == "PATCH":
            calls.append(request)
            return Answer(500, "<html>Internal Server Error</html>")
        return answer

    with opened(tator, more="verified=verified&timeout=2") as store:
        tator.instead = broken
        assert store.write([change(1), change(2)], STAMP) == Written(2)
    assert len(calls) == 1
    assert "may not be set to verified" in caplog.text


# --- 9 and 10: texts ---


@pytest.mark.parametrize("label", HARD, ids=ascii)
def test_9_what_bulk_cannot_carry_goes_singly_and_arrives_unchanged(tator: Troubled, label: str) -> None:
    tator.put([(e(1), "Calanus"), (e(2), "Acartia"), (e(3), "Calanus")])
    with opened(tator) as store:
        assert store.write([change(1, wanted=label), change(2, wanted=label), change(3)], STAMP) == Written(2)
    assert [tator.labels(e(n)) for n in (1, 2, 3)] == [[label], ["Acartia"], ["Oithona"]]
    assert [path for path, _, _ in tator.bodies("PATCH")] == [f"Localization/31/{e(1)}", "Localizations/7"]


@pytest.mark.parametrize("label", BULKY, ids=ascii)
def test_9_what_bulk_can_carry_goes_together(tator: Troubled, label: str) -> None:
    tator.put([(e(n), "Calanus") for n in range(5)])
    with opened(tator) as store:
        assert store.write([change(n, wanted=label) for n in range(5)], STAMP) == Written(5)
    assert [tator.labels(e(n)) for n in range(5)] == [[label]] * 5
    assert (tator.count("PATCH"), tator.count("PUT")) == (1, 1)


def test_9_bulk_carries_only_what_was_recorded_to_arrive(tator: Troubled) -> None:
    for entry in recorded("08"):
        if "stored_as_sent_by_bulk" in entry:
            label = entry["request"]["body"]["attributes"]["Label"]
            assert in_bulk(label) == entry["stored_as_sent_by_bulk"], label


@pytest.mark.parametrize("label", [*HARD, *BULKY, *LABELS], ids=ascii)
def test_10_an_expected_label_of_any_text_is_compared_as_it_is(tator: Troubled, label: str) -> None:
    tator.put([(e(1), label), (e(2), f"{label}."), (e(3), label)])
    with opened(tator) as store:
        assert store.write([change(n, expected=label) for n in (1, 2, 3)], STAMP) == Written(2)
    assert [tator.labels(e(n)) for n in (1, 2, 3)] == [["Oithona"], [f"{label}."], ["Oithona"]]
    assert tator.count("PATCH", "Localization/") == 0


def test_10_expected_labels_are_escaped_as_was_recorded() -> None:
    pairs = [(entry["value"], entry["escaped"]) for entry in recorded("08b") if "escaped" in entry]
    assert pairs
    assert [escaped(value) for value, _ in pairs] == [as_sent for _, as_sent in pairs]


# --- 11: what a 400 and a 403 mean ---


def test_11_a_throttled_request_is_waited_for_and_made_once(tator: Troubled, slept: list[float]) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        store.check()
        tator.throttle(3)
        assert store.write([change(1)], STAMP) == Written(1)
        assert [seconds for seconds in slept if seconds] == [1.0] * 3
        tator.throttle(1)
        assert store.read([e(1)]) == {e(1): Found("Oithona")}
    assert tator.times(e(1)) == 1


def test_11_a_throttle_for_no_time_is_waited_for_all_the_same(tator: Troubled, slept: list[float]) -> None:
    tator.put([(e(1), "Calanus")])
    message = "Request was throttled. Expected available in 0 seconds."
    answers = [Answer(400, {"message": message})] * 3
    with opened(tator) as store:
        store.check()
        tator.instead = lambda request, answer: answers.pop() if answers else answer
        assert store.read([e(1)]) == {e(1): Found("Calanus")}
    assert slept == [1.0] * 3


def test_11_a_throttle_that_does_not_end_is_unreachable(tator: Troubled, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(tator_api, "monotonic", lambda: now[0])
    monkeypatch.setattr(tator_api, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        tator.throttle(10_000)
        with pytest.raises(Unreachable, match="too often"):
            store.read([e(1)])
    assert 55 <= now[0] <= 60


def test_11_a_bad_token_is_said_at_once(tator: Troubled, slept: list[float]) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store, tator.locked_out():
        for call in (store.check, lambda: store.read([e(1)]), lambda: store.write([change(1)], STAMP)):
            before = store.requests
            with pytest.raises(StorageError, match="does not accept the token") as caught:
                call()
            assert type(caught.value) is StorageError
            assert store.requests == before + 1
    assert not any(slept)


@pytest.mark.parametrize("fine_grain", [False, True], ids=["by project", "by row"])
def test_11_who_may_only_look_is_told_so(tator: Troubled, fine_grain: bool) -> None:
    tator.api.fine_grain = fine_grain
    tator.put([(e(1), "Calanus"), (e(2), "Acartia")])
    with opened(tator, user="viewer") as store:
        assert store.read([e(1)]) == {e(1): Found("Calanus")}
        for changes in ([change(1)], [change(1, wanted="it's")], [change(2), change(1)]):
            with pytest.raises(StorageError, match="may not write to") as caught:
                store.write(changes, STAMP)
            assert type(caught.value) is StorageError
        with pytest.raises(StorageError, match="may not write to"):
            store.check()
    with opened(tator, user="outsider") as store, pytest.raises(StorageError, match=r"no project|may not read"):
        store.read([e(1)])
    assert [tator.labels(e(1)), tator.labels(e(2))] == [["Calanus"], ["Acartia"]]


def test_11_with_permissions_by_row_a_403_of_no_matching_row_is_no_denial(tator: Troubled) -> None:
    tator.api.fine_grain = True
    tator.put([(e(1), "Calanus"), (e(2), "Acartia"), (e(3), None)])
    with opened(tator) as store:
        assert store.write([change(8), change(9)], STAMP) == Written(0)
        assert store.write([change(2)], STAMP) == Written(0)
        assert store.write([change(1), change(2), change(3, ""), change(9)], STAMP) == Written(2)
    assert [tator.labels(e(n)) for n in (1, 2, 3)] == [["Oithona"], ["Acartia"], ["Oithona"]]


def test_11_a_right_lost_in_the_middle_of_a_chunk_does_not_hide_what_was_written(tator: Troubled) -> None:
    tator.put([(e(n), "Calanus") for n in range(4)])

    def denied(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            tator.data.projects[7].members.pop(102)
            tator.data.join(7, 102, "View Only")
        return answer

    with opened(tator) as store:
        tator.instead = denied
        changes = [change(0), change(1), change(2, wanted="Acartia"), change(3, wanted="Salpa")]
        assert store.write(changes, STAMP) == Written(2)
        with pytest.raises(StorageError, match="may not write to"):
            store.write(changes[2:], STAMP)
    assert [tator.labels(e(n)) for n in range(4)] == [["Oithona"], ["Oithona"], ["Calanus"], ["Calanus"]]


# --- 12, 13 and 14: lists ---


@pytest.mark.parametrize("cut", ["", "[", '[{"id": 1, "elemental_', "null", "{}", '[{"id": 1}]', "[7]"])
def test_12_a_200_without_a_whole_list_is_no_answer_and_not_an_empty_store(tator: Troubled, cut: str) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        store.check()
        tator.instead = lambda request, answer: Answer(200, cut) if request.method == "PUT" else answer
        with pytest.raises(Unreachable):
            store.read([e(1)])
        with pytest.raises(Unreachable):  # it was written, and cannot be looked at
            store.write([change(1)], STAMP)
        tator.instead = None
        assert store.read([e(1)]) == {e(1): Found("Oithona")}


@pytest.mark.parametrize("cut", ["", '{"message": "Successfully upd'])
def test_12_a_200_without_a_whole_message_leaves_the_write_unknown(tator: Troubled, cut: str) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        tator.instead = lambda request, answer: Answer(200, cut) if request.method == "PATCH" else answer
        with pytest.raises(Unreachable):
            store.write([change(1)], STAMP)
    assert tator.times(e(1)) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_12_a_server_error_leaves_the_write_unknown(tator: Troubled, status: int) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        tator.instead = lambda request, answer: Answer(status, "<html/>") if request.method == "PATCH" else answer
        with pytest.raises(Unreachable, match=str(status)):
            store.write([change(1)], STAMP)
    assert tator.count("PATCH") == 1


def test_13_and_14_many_ids_are_asked_for_in_bodies_of_a_bounded_size(tator: Troubled) -> None:
    count = 2 * PAGE + 1
    tator.put([(e(n), "Calanus") for n in range(0, count, 2)])
    with opened(tator) as store:
        found = store.read([e(n) for n in reversed(range(count))])
    assert found == {e(n): Found("Calanus") for n in range(0, count, 2)}
    asked = [len(body["elemental_ids"]) for _, _, body in tator.bodies("PUT")]
    assert asked == [PAGE, PAGE, 1]
    harmless(tator)  # and no list with GET


# --- 15: lost answers ---


@pytest.mark.parametrize("wanted", ["Oithona", "it's"], ids=["bulk", "single"])
def test_15_after_a_lost_answer_nothing_is_repeated_and_a_look_says_what_became_of_it(
    tator: Troubled, wanted: str
) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        tator.losing = True
        with pytest.raises(Unreachable):
            store.write([change(1, wanted=wanted)], STAMP)
        assert (tator.count("PATCH"), tator.times(e(1))) == (1, 1)
        assert store.read([e(1)]) == {e(1): Found(wanted)}
        assert store.write([change(1, wanted=wanted)], STAMP) == Written(0)
    assert tator.times(e(1)) == 1


def test_15_what_merely_reads_is_asked_once_more_on_a_broken_connection(tator: Troubled) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        store.check()
        before = store.requests
        tator.cuts = 1
        assert store.read([e(1)]) == {e(1): Found("Calanus")}
        assert store.requests == before + 2
        tator.cuts = 2
        with pytest.raises(Unreachable):
            store.read([e(1)])


# --- 16 and 17 ---


def test_16_the_change_log_is_not_asked(tator: Troubled) -> None:
    tator.put([(e(1), "Calanus")])
    with opened(tator) as store:
        store.check()
        store.write([change(1)], STAMP)
        store.read([e(1)], run=STAMP.run)
    assert tator.count("GET", "ChangeLog") == 0
    harmless(tator)


@pytest.mark.parametrize("value", [42, 2.5, 0, True])
def test_17_a_number_is_shown_and_never_taken_for_its_text(tator: Troubled, value: Any) -> None:
    tator.put([(e(1), value)])
    with opened(tator) as store:
        assert store.read([e(1)]) == {e(1): Found(None, other=repr(value))}
        for expected in (str(value), json.dumps(value), "", "null"):
            for wanted in ("Oithona", "it's"):
                assert store.write([change(1, expected, wanted)], STAMP) == Written(0)
    assert tator.labels(e(1)) == [value]
    assert tator.times(e(1)) == 0
