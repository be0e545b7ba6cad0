"""The recorded exchanges of a real Tator server, sent to the stand-in, in the order of time: it must say the same.

What it holds in between is what the recordings show; what was done to the real server without being recorded
(timing, races) is done here as `UNRECORDED` says.
"""

import gzip
import json
import re
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.tator.recordings import FOLDER, ORDER, Exchange, Made, exchanges, load, whole_body, whole_query
from tests.tator.server import BOXES, Tator

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the recordings are not at {FOLDER}")

# What the stand-in does not say as the real server did, and why; nothing else.
NOT_REPLAYED = {
    "01 0": "the stand-in's projects, types, members and media are made by calls",
    "01 1": "the same",
    "01 2": "the same",
    "01 3": "the same",
    "01 5": "the same",
    "01 6": "the same",
    "01 7": "the same",
    "01 8": "the same",
    "01 9": "the same",
    "07 9": "68 changes by one user, most of them from races that were not recorded",
}


# --- what was not recorded ---


def begin(tator: Tator) -> None:
    """The project as 01 made it, before its first localization."""
    data = tator.data
    given = load("01")["interactions"]
    project = given[0]["response"]["body"]["object"]
    tator.project(
        7,
        project["name"],
        versions={31: "Baseline"},
        kinds={21: ("Boxes", BOXES), 22: ("OtherBoxes", BOXES[:1])},
        media_kinds={11: ("Images", [{"name": "depth", "dtype": "float"}])},
    )
    data.projects[7].elemental_id = project["elemental_id"]
    version = given[4]["response"]["body"][0]
    data.projects[7].versions[31].update(description=version["description"], elemental_id=version["elemental_id"])
    for kind in given[18]["response"]["body"]:
        data.projects[7].kinds[kind["id"]].elemental_id = kind["elemental_id"]
    data.users[102].elemental_id = given[19]["response"]["body"]["elemental_id"]
    for one, medium in zip(given[20]["response"]["body"], tator.put_media([("", None)] * 20), strict=False):
        medium.elemental_id, medium.name, medium.md5 = one["elemental_id"], one["name"], one["md5"]
        medium.attributes.update(one["attributes"])
        medium.modified = data.now()
    data.next_change = 900_021  # 20 for the media


def name_the_two(tator: Tator, made: Made) -> None:
    """The server chose these elemental ids."""
    for number in (200_281, 200_282):
        row = tator.data.rows[number]
        tator.data.remove(row)
        row.elemental_id = made.element(number)
        tator.data.add(row)


def races(tator: Tator, _: Made) -> None:
    """05b T1 to T3: only how many rows and log entries they made matters."""
    tator.data.next_row += 40
    tator.data.next_change = 900_579


def escaped_label(tator: Tator, made: Made) -> None:
    """08b: the notes before the request gave the row one label after the other."""
    tator.edit(made.element(200_150), 'quote "q"')


def danger_lab(tator: Tator, _: Made) -> None:
    """The project of 09."""
    shown = load("06")["interactions"][24]["response"]["body"][1]
    kinds = {23: ("Boxes", BOXES)}
    project = tator.project(8, shown["name"], versions={33: "Baseline", 34: "Second"}, kinds=kinds)
    project.elemental_id, project.summary = shown["elemental_id"], shown["summary"]


def timing(tator: Tator, made: Made) -> None:
    """10: 3 attributes of many rows, a label of 100 by single changes, 100 rows as new marks."""
    data = tator.data
    for number in range(200_081, 200_181):
        row = data.marks(made.element(number), 31)[-1]
        row.attributes |= {"score": 0.5, "cluster": "T", "predicted_label": "p"}
        row.modified = data.now()
    for number in range(200_151, 200_251):
        tator.edit(made.element(number), "Marked", by="syncbot", mark=True)


def throttled(tator: Tator, _: Made) -> None:
    """06b: ten requests before, and past nginx again."""
    tator.behind_nginx = False
    tator.throttle(1)


def before(tator: Tator, made: Made) -> None:
    """13 starts with a label of three rows."""
    for number in (200_131, 200_132, 200_133):
        tator.edit(made.element(number), "Before", by="syncbot")


def setting(**values: Any) -> Callable[[Tator, Made], None]:
    def set_up(tator: Tator, _: Made) -> None:
        for name, value in values.items():
            setattr(tator.api if name == "fine_grain" else tator, name, value)

    return set_up


# What is done before these exchanges.
UNRECORDED: dict[str, Callable[[Tator, Made], None]] = {
    "01 5": lambda tator, _: tator.version(7, 32, "Second", 1),
    "01 13": name_the_two,
    "07 0": races,
    "08b 12": escaped_label,
    "09 0": danger_lab,
    "06 0": timing,
    "06b 0": setting(behind_nginx=True),
    "06b 8": throttled,
    "06c 0": setting(fine_grain=True),
    "13 0": before,
}


# --- sending and comparing ---


class Replay:
    """The stand-in through all recordings; `problems` says what was different, by exchange."""

    def __init__(self, tator: Tator) -> None:
        self.tator = tator
        self.made = Made()
        self.problems: dict[str, list[str]] = {}
        self._times: dict[tuple[Any, ...], str] = {}
        self._clock: dict[str, str] = {}
        self._connection = HTTPConnection("127.0.0.1", tator.port, timeout=20)

    def run(self) -> None:
        begin(self.tator)
        for number in ORDER:
            for each in exchanges(number):
                UNRECORDED.get(f"{each.file} {each.at}", lambda *_: None)(self.tator, self.made)
                self.problems[each.key] = self.replay(each)

    def replay(self, each: Exchange) -> list[str]:
        status, headers, body = self.send(each)
        recorded = each.recorded["response"]
        found = []
        if status != recorded["status"]:
            found.append(f"status {status}, recorded {recorded['status']}")
        for name, value in recorded["headers"].items():
            if headers.get(name) != value:
                found.append(f"{name}: {headers.get(name)}, recorded {value}")
        found += self.different(body, recorded["body"], ())
        return found

    def send(self, each: Exchange) -> tuple[int, Any, Any]:
        request = each.recorded["request"]
        headers = {"Host": "tator.test", **request["headers"]}
        if headers.get("Authorization") == "Token <redacted>":
            headers |= self.tator.auth(each.recorded["as_user"])
        if each.recorded["label"].startswith("C8 Host header not allowed"):
            headers["Host"] = "elsewhere.test"
        query = whole_query(each, self.made)
        body = whole_body(each, self.made)
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
        for recorded, ours in self._clock.items():  # a time that a list has shown, used in a filter
            text, query = text.replace(recorded, ours), query.replace(quote(recorded), quote(ours))
        raw = None if body is None else text.encode()
        self._connection.request(request["method"], request["path"] + (query and f"?{query}"), raw, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip" and content:
            content = gzip.decompress(content)
        is_json = answer.headers.get("Content-Type") == "application/json" and content
        return answer.status, answer.headers, json.loads(content) if is_json else content.decode()

    def different(self, ours: Any, recorded: Any, path: tuple[Any, ...]) -> list[str]:
        """Where two bodies differ, other than in what cannot be equal."""
        where = ".".join(map(str, path)) or "body"
        if isinstance(recorded, dict) and isinstance(ours, dict):
            found = [f"{where}: has {ours.keys() - recorded.keys()}, not {recorded.keys() - ours.keys()}"]
            found = found if ours.keys() != recorded.keys() else []
            row = (recorded["id"],) if isinstance(recorded.get("id"), int) else ()
            for key in ours.keys() & recorded.keys():
                found += self.different(ours[key], recorded[key], (*path, *row, key))
            return found
        if isinstance(recorded, list) and isinstance(ours, list):
            shown = recorded
            count = len(recorded)
            if recorded and (cut := re.match(r"<trimmed: (\d+) items in all>$", str(recorded[-1]))):
                shown, count = recorded[:-1], int(cut[1])
            found = [f"{where}: {len(ours)} items, recorded {count}"] if len(ours) != count else []
            for at, (one, other) in enumerate(zip(ours, shown, strict=False)):
                found += self.different(one, other, (*path, at))
            return found
        if isinstance(recorded, str) and isinstance(ours, str):
            ours, recorded = _comparable(ours, recorded)
            if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", recorded):
                return self._same_time(ours, recorded, path)
        return [] if ours == recorded and type(ours) is type(recorded) else [f"{where}: {ours!r}, not {recorded!r}"]

    def _same_time(self, ours: str, recorded: str, path: tuple[Any, ...]) -> list[str]:
        """Times cannot be equal; but where a recorded one stays or changes, ours must do the same."""
        here = path[-2:-1]  # the row's id
        self._clock.setdefault(recorded, ours)
        other = self._times.setdefault((*here, "recorded", recorded), ours)
        back = self._times.setdefault((*here, "ours", ours), recorded)
        return [] if (other, back) == (ours, recorded) else [f"{here}: {ours} and {other} for {recorded} and {back}"]


def _comparable(ours: str, recorded: str) -> tuple[str, str]:
    """Without what only PostgreSQL can say, and as far as the recording goes."""
    if "\nLINE 1: " in recorded:
        ours, recorded = (_first_and_detail(text) for text in (ours, recorded))
    if "<script" in recorded:  # the page of the web site: what a person sees of it
        ours, recorded = (
            " ".join(re.sub(r"<script.*?</script>|<.*?>", "", text, flags=re.DOTALL).split())
            for text in (ours, recorded)
        )
    if cut := re.search(r"\.\.\.<trimmed, \d+ chars>$", recorded):
        recorded = recorded[: cut.start()]
        recorded = recorded[: recorded.rfind("}") + 1]  # the row after that is known in part
        ours = ours[: len(recorded)]
    return ours, recorded


def _first_and_detail(message: str) -> str:
    first, *rest = message.split("\n")
    return "\n".join([first, *(line for line in rest if line.startswith("DETAIL"))])


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with Tator() as tator:
        replay = Replay(tator)
        replay.run()
        yield replay


# --- what the notes between the requests say ---


class Row:
    """A row of Baseline that gets one label after the other, as that of 08 did."""

    def __init__(self, tator: Tator) -> None:
        self.tator = tator
        self.element = str(uuid.UUID(int=8))
        tator.put([(self.element, "Start")])
        self.client = httpx.Client(base_url=tator.url, headers=tator.auth(), timeout=20)

    def bulk(self, label: str) -> int:
        body = {"elemental_ids": [self.element], "in_place": 1, "attributes": {"Label": label}}
        return self.client.patch("/rest/Localizations/7?version=31&count=1", json=body).status_code

    def single(self, label: str) -> httpx.Response:
        body = {"attributes": {"Label": label}, "in_place": 1}
        return self.client.patch(f"/rest/Localization/31/{self.element}", json=body)

    def found_by_search(self, value: str) -> int | str:
        return self._found({"object_search": {"attribute": "Label", "operation": "eq", "value": value}})

    def found_by_query(self, value: str) -> int | str:
        return self._found({}, attribute=f"Label::{value}")

    def _found(self, body: dict[str, Any], **query: str) -> int | str:
        try:
            answer = self.client.put("/rest/Localizations/7", params={"version": 31, **query}, json=body)
        except httpx.RemoteProtocolError:
            return "connection closed mid-answer (ChunkedEncodingError)"
        return len(answer.json()) if answer.status_code == 200 else f"HTTP {answer.status_code}"


@pytest.fixture
def row() -> Iterator[Row]:
    with Tator() as tator:
        tator.project()
        row = Row(tator)
        with row.client:
            yield row


def test_labels_arrive_as_they_did(row: Row) -> None:
    for recorded in load("08")["interactions"]:
        if "value" not in recorded:
            continue
        value = "x" * 5000 if recorded["value"] == "<5000 x>" else recorded["value"]
        after = recorded["stored_value_after_bulk"]
        row.tator.edit(row.element, "Start")
        assert row.bulk(value) == recorded["response"]["status"], value
        assert row.tator.labels(row.element) == ["x" * 5000 if after == "<5000 x>" else after]
        assert (row.tator.labels(row.element) == [value]) is recorded["stored_as_sent_by_bulk"]
        row.tator.edit(row.element, "Start")
        answer, single = row.single(value), recorded["single_patch"]
        assert answer.status_code == single["status"]
        assert single["body_message"].partition("\n")[0].rpartition("@31/0 ")[2] in answer.json()["message"]
        assert (row.tator.labels(row.element) == [value]) is single["stored_as_sent"]
        assert row.found_by_search(value) == recorded["found_by_object_search_eq"], value
        assert row.found_by_query(value) == recorded["found_by_query_attribute_eq"], value


def test_expected_labels_are_found_as_they_were(row: Row) -> None:
    notes = [each for each in load("08b")["interactions"] if "escaped" in each]
    for note in notes:
        assert row.single(note["value"]).status_code == 200
        assert row.found_by_search(note["value"]) == note["rows_found_raw_object_search"], note
        assert row.found_by_search(note["escaped"]) == note["rows_found_escaped_object_search"], note
        assert row.found_by_query(note["escaped"]) == note["rows_found_escaped_attribute_query"], note
    assert len(notes) == 12


def short(key: str) -> str:
    return key.partition(":")[0]


@pytest.mark.parametrize("number", ORDER)
def test_says_what_the_real_server_said(replay: Replay, number: str) -> None:
    wrong = {key: found for key, found in replay.problems.items() if found and key.startswith(f"{number} ")}
    assert {key: found for key, found in wrong.items() if short(key) not in NOT_REPLAYED} == {}


def test_what_is_not_replayed_is_really_different(replay: Replay) -> None:
    assert {*NOT_REPLAYED, *UNRECORDED} <= {short(key) for key in replay.problems}
    same = [key for key, found in replay.problems.items() if not found and short(key) in NOT_REPLAYED]
    assert same == []
    assert len(NOT_REPLAYED) <= len(replay.problems) / 20
