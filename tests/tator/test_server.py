"""The stand-in Tator server: its trouble to order, and what of the real one no single recorded exchange shows."""

import gzip
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.tator.http import BUFFER
from tests.tator.server import Tator

LIST = "/rest/Localizations/7"
FIRST, SECOND, THIRD = (str(uuid.UUID(int=number)) for number in (1, 2, 3))


@pytest.fixture
def tator() -> Iterator[Tator]:
    with Tator() as tator:
        tator.project()
        tator.put([(FIRST, "Copepod"), (SECOND, "Copepod")])
        yield tator


@pytest.fixture
def client(tator: Tator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tator.url, headers=tator.auth(), timeout=5) as client:
        yield client


def write(client: httpx.Client, label: str, *ids: str, expected: str | None = None, **more: Any) -> httpx.Response:
    """A bulk change in place, guarded by its count."""
    ids = ids or (FIRST,)
    body: dict[str, Any] = {"elemental_ids": ids, "in_place": 1, "attributes": {"Label": label}}
    if expected is not None:
        body["object_search"] = {"attribute": "Label", "operation": "eq", "value": expected}
    return client.patch(LIST, params={"version": 31, "count": len(ids)}, json=body | more)


def message(answer: httpx.Response) -> str:
    return answer.json()["message"]


# --- rows ---


def test_rows_put_behind_its_back_are_listed(tator: Tator, client: httpx.Client) -> None:
    tator.put([(THIRD, None)])
    body = {"elemental_ids": [FIRST, THIRD, str(uuid.UUID(int=9))]}
    rows = client.put(LIST, params={"version": 31, "fields": "id,elemental_id,attributes.Label"}, json=body).json()
    assert [(row["elemental_id"], row["attributes"]["Label"]) for row in rows] == [(FIRST, "Copepod"), (THIRD, None)]
    assert [tator.labels(element) for element in (FIRST, THIRD, str(uuid.UUID(int=9)))] == [["Copepod"], [None], []]


def test_deleted_and_superseded_rows_are_not_shown(tator: Tator) -> None:
    tator.put([(FIRST, "Gone")], mark=1, deleted=True)
    tator.edit(SECOND, "Person", mark=True)
    assert tator.labels(FIRST) == []
    assert tator.labels(SECOND) == ["Person"]
    assert [(row.mark, row.attributes["Label"]) for row in tator.rows(SECOND)] == [(0, "Copepod"), (1, "Person")]


def test_marks_of_one_version_hide_nothing_in_another(tator: Tator) -> None:
    tator.put([(FIRST, "Copepod")], version=32)
    tator.edit(FIRST, "Person", mark=True)
    assert (tator.labels(FIRST), tator.labels(FIRST, version=32)) == (["Person"], ["Copepod"])


def test_two_rows_may_have_one_id(tator: Tator, client: httpx.Client) -> None:
    tator.put([(FIRST, "Other")])
    assert tator.labels(FIRST) == ["Copepod", "Other"]
    assert "would update 2" in message(write(client, "X", expected=None))


def test_many_rows_are_listed_whole(tator: Tator, client: httpx.Client) -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(100, 20_100)]
    tator.put((element, "Diatom") for element in ids)
    rows = client.put(LIST, params={"version": 31}, json={"elemental_ids": ids[::-1]}).json()
    assert [row["elemental_id"] for row in rows] == ids
    assert message(write(client, "X", *ids, expected="Diatom")) == "Successfully updated 20000 localizations!"
    assert {tator.times(element) for element in ids} == {1}


# --- trouble ---


def test_a_lost_answer_is_of_a_write_that_was_made(tator: Tator, client: httpx.Client) -> None:
    with tator.answer_lost():
        assert client.put(LIST, json={"elemental_ids": [FIRST]}).status_code == 200
        with pytest.raises(httpx.TransportError):
            write(client, "Lost")
        assert message(write(client, "Found", SECOND)) == "Successfully updated 1 localizations!"
    assert (tator.labels(FIRST), tator.labels(SECOND)) == (["Lost"], ["Found"])


def test_a_lost_request_is_not_made(tator: Tator, client: httpx.Client) -> None:
    with tator.request_lost(), pytest.raises(httpx.TransportError):
        write(client, "Lost")
    assert tator.labels(FIRST) == ["Copepod"]
    assert write(client, "Again").status_code == 200


def test_what_did_not_happen_inside_is_over_after_it(tator: Tator, client: httpx.Client) -> None:
    with tator.request_lost():
        pass
    assert write(client, "Made").status_code == 200


def test_down_and_up_again_on_the_same_port(tator: Tator, client: httpx.Client) -> None:
    assert write(client, "Before").status_code == 200
    with tator.down():
        for _ in range(2):  # the connection that there was, and a new one
            with pytest.raises(httpx.TransportError):
                write(client, "Lost")
        with pytest.raises(httpx.ConnectError):
            write(client, "Lost")
    assert tator.labels(FIRST) == ["Before"]
    assert write(client, "After").status_code == 200


def test_a_server_that_hangs_carries_nothing_out(tator: Tator, client: httpx.Client) -> None:
    with tator.hanging(), pytest.raises(httpx.ReadTimeout):
        client.patch(LIST, json={"attributes": {"Label": "Lost"}}, timeout=0.2)
    assert write(client, "Made").status_code == 200
    assert tator.labels(SECOND) == ["Copepod"]


def test_throttled_requests_are_not_carried_out(tator: Tator, client: httpx.Client) -> None:
    tator.throttle(2)
    answers = [write(client, "X"), client.get("/rest/Projects"), write(client, "Y", expected="Copepod")]
    assert [answer.status_code for answer in answers] == [400, 400, 200]
    assert message(answers[0]).startswith("Request was throttled")
    assert tator.labels(FIRST) == ["Y"]


def test_rights_go_and_come_back(tator: Tator, client: httpx.Client) -> None:
    with tator.right("syncbot", "View Only"):
        assert write(client, "X").status_code == 403
        assert client.get("/rest/Project/7").json()["permission"] == "View Only"
    with tator.right("syncbot", None):
        assert client.get("/rest/Project/7").status_code == 403
        assert client.get("/rest/Projects").json() == []
    with tator.locked_out():
        assert message(client.get("/rest/Project/7")) == "Invalid token."
    assert write(client, "X").status_code == 200


def test_a_forbidden_label_is_refused(tator: Tator, client: httpx.Client) -> None:
    tator.forbid("Bad")
    single = client.patch(f"/rest/Localization/31/{FIRST}", json={"attributes": {"Label": "Bad"}, "in_place": 1})
    assert (write(client, "Bad").status_code, single.status_code) == (400, 400)
    assert tator.labels(FIRST) == ["Copepod"]


def test_requests_are_counted_and_can_be_looked_at(tator: Tator, client: httpx.Client) -> None:
    tator.watching = True
    write(client, "X")
    client.get("/rest/Projects")
    assert tator.requests == {f"PATCH {LIST}": 1, "GET /rest/Projects": 1}
    first, second = tator.seen
    assert (first.method, dict(first.pairs)) == ("PATCH", {"version": "31", "count": "1"})
    assert json.loads(first.raw)["attributes"] == {"Label": "X"}
    assert second.path == "/rest/Projects"


# --- check and change are two statements (05b) ---


def test_a_write_between_check_and_change_is_lost(tator: Tator, client: httpx.Client) -> None:
    with tator.between(lambda: tator.edit(FIRST, "Person")):
        assert write(client, "Machine", expected="Copepod").status_code == 200
    assert tator.labels(FIRST) == ["Machine"]
    assert write(client, "Again", expected="Copepod").status_code == 400


def test_a_mark_between_check_and_change_stays_and_hides_it(tator: Tator, client: httpx.Client) -> None:
    with tator.between(lambda: tator.edit(FIRST, "Person", mark=True)):
        assert write(client, "Machine", expected="Copepod").status_code == 200
    assert [row.attributes["Label"] for row in tator.rows(FIRST)] == ["Machine", "Person"]
    assert tator.labels(FIRST) == ["Person"]


def test_of_two_clients_at_once_both_may_be_told_200(tator: Tator) -> None:
    together = threading.Barrier(2, timeout=10)
    answers: list[int] = []

    def push(label: str) -> None:
        with httpx.Client(base_url=tator.url, headers=tator.auth(), timeout=10) as client:
            answers.append(write(client, label, expected="Copepod").status_code)

    threads = [threading.Thread(target=push, args=(label,)) for label in ("A", "B")]
    with tator.between(together.wait, every=True):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200, 200]


# --- lists (12) ---


def exact(tator: Tator, client: httpx.Client, size: int) -> dict[str, Any]:
    """The query of a list whose text has so many bytes."""
    query = {"version": 31, "fields": "id,attributes.Label"}
    empty = len(client.put(LIST, params=query, json={}).content)
    row = len(tator.labels(FIRST)[0])
    tator.edit(FIRST, "x" * (size - empty + row))
    assert len(client.put(LIST, params=query, json={}).content) == size
    return query


def test_a_get_that_fills_a_buffer_never_ends(tator: Tator, client: httpx.Client) -> None:
    query = exact(tator, client, 2 * BUFFER)
    with pytest.raises(httpx.ReadTimeout):
        client.get(LIST, params=query, timeout=0.3)
    query = exact(tator, client, 2 * BUFFER + 1)
    assert len(client.get(LIST, params=query).json()) == 2


def test_a_get_is_gzip_whatever_was_asked_for(tator: Tator, client: httpx.Client) -> None:
    with client.stream("GET", LIST, headers={"Accept-Encoding": "identity"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert len(json.loads(gzip.decompress(raw))) == 2
    assert "Content-Encoding" not in client.put(LIST, json={}).headers


@pytest.mark.parametrize("fields", ["elemental_id,attributes.Label", "id,nope"])
def test_a_put_of_such_fields_breaks_off(client: httpx.Client, fields: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.put(LIST, params={"fields": fields}, json={})


# --- whole images, as Tator's public source reads ---


def test_media_ignore_elemental_ids(tator: Tator, client: httpx.Client) -> None:
    tator.put_media([(FIRST, "Blue"), (SECOND, "Blue")])
    rows = client.put("/rest/Medias/7", json={"elemental_ids": [FIRST]}).json()
    assert len(rows) == 2
    body = {"elemental_ids": [FIRST], "attributes": {"Label": "Green"}}
    assert client.patch("/rest/Medias/7", params={"count": 1}, json=body).status_code == 400
    assert client.patch("/rest/Medias/7", json=body).status_code == 200
    assert (tator.media_labels(FIRST), tator.media_labels(SECOND)) == (["Green"], ["Green"])


def test_media_can_be_named_by_a_search(tator: Tator, client: httpx.Client) -> None:
    one, _ = tator.put_media([(FIRST, "Blue"), (SECOND, "Blue")])
    named = {"attribute": "$elemental_id", "operation": "in", "value": [FIRST, THIRD]}
    assert [row["id"] for row in client.put("/rest/Medias/7", json={"object_search": named}).json()] == [one.id]
    same = {"attribute": "Label", "operation": "eq", "value": "Blue"}
    both = {"method": "and", "operations": [named, same]}
    body = {"object_search": both, "attributes": {"Label": "Green"}}
    answers = [client.patch("/rest/Medias/7", params={"type": 11, "count": 1}, json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert (tator.media_labels(FIRST), tator.media_labels(SECOND)) == (["Green"], ["Blue"])


def test_one_medium_goes_through_sql_as_well(tator: Tator, client: httpx.Client) -> None:
    (one,) = tator.put_media([(FIRST, "Blue")])
    answers = [
        client.patch(f"/rest/Media/{one.id}", json={"attributes": {"Label": label}}) for label in ("it's", "Green")
    ]
    assert [answer.status_code for answer in answers] == [400, 200]
    assert tator.media_labels(FIRST) == ["Green"]


# --- what nobody knows ---


def test_what_no_recording_shows_is_not_answered(client: httpx.Client) -> None:
    search = {"attribute": "Label", "operation": "istartswith", "value": "C"}
    answer = client.put(LIST, json={"object_search": search})
    assert answer.status_code == 501
    assert "istartswith" in answer.text
