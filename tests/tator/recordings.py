"""The recorded exchanges of a real Tator server, made whole again so that they can be sent to another.

Long lists and texts are cut short in the files. What was left out of a request is filled in from what the other
recordings show, and from the pattern by which the recorded localizations were made.
"""

import ast
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[3] / "shared" / "tator"

# In the order of time, which is not that of the names: 06 was recorded after 09, 06c after 12.
ORDER = ("01", "02", "03", "04", "05", "05b", "07", "08", "08b", "09", "06", "06b", "12", "06c", "13")

_CUT = re.compile(r"<trimmed: (\d+) items in all>$")
_LABELS = ("Copepod", "Diatom chain", "Marine snow", "Larvacean", "Unknown")
_PREDICTED = ("Copepod", "Larvacean", "Diatom chain", "Unknown", "Marine snow")


class Exchange(NamedTuple):
    """One recorded request and its answer."""

    file: str
    at: int
    recorded: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What it is called in lists."""
        return f"{self.file} {self.at}: {self.recorded['label']}"


def load(number: str) -> dict[str, Any]:
    """A file of recordings by its number."""
    return json.loads(next(FOLDER.glob(f"{number}_*.json")).read_text())


def exchanges(number: str) -> Iterator[Exchange]:
    """The requests of a file; the notes between them are left out."""
    for at, recorded in enumerate(load(number)["interactions"]):
        if "request" in recorded:
            yield Exchange(number, at, recorded)


class Made:
    """The 280 localizations of the recordings, as far as they can be known."""

    def __init__(self) -> None:
        self.elements: dict[int, str] = {}
        self._scores: dict[str, float] = {}  # by elemental id
        for number in ORDER:
            for each in exchanges(number):
                self._learn(each.recorded)
        for at in range(20):  # the first of Second are those of Baseline
            self.elements[200_251 + at] = self.element(200_001 + at)
        # Marks whose first row nobody saw, and the row of 08b.
        self.elements[200_157], self.elements[200_158] = self.elements[200_357], self.elements[200_358]
        (self.elements[200_150],) = next(exchanges("08b")).recorded["request"]["body"]["elemental_ids"]
        # 15 of Baseline are above .95 (02); which of those that nobody saw does not matter.
        rows = [self.element(row) for row in range(200_001, 200_250)]
        high = sum(self._scores.get(element, 0) > 0.95 for element in rows)
        self._scores |= dict.fromkeys([element for element in rows if element not in self._scores][: 15 - high], 0.96)

    def _learn(self, recorded: Mapping[str, Any]) -> None:
        body = recorded["response"]["body"]
        asked = recorded["request"]["body"]
        asked = asked if isinstance(asked, dict) else {}
        for row in body if isinstance(body, list) else [body]:
            if isinstance(row, dict):
                self._see(row)
                self._see(row.get("object") or {})
                if asked.get("elemental_ids") and len(asked["elemental_ids"]) == 1:
                    self.elements.setdefault(row.get("id", 0), asked["elemental_ids"][0])
        if _CUT.search(str((asked.get("elemental_ids") or [""])[-1])):
            first = 200_041 if recorded["label"].startswith("F3") else 200_001
            for at, element in enumerate(asked["elemental_ids"][:-1]):
                self.elements.setdefault(first + at, element)

        if isinstance(body, dict) and (deleted := re.match(r"Localization 31/(\S+)@@0", body.get("message", ""))):
            self.elements[int(recorded["request"]["path"].rpartition("/")[2])] = deleted[1]

    def _see(self, row: Mapping[str, Any]) -> None:
        if "elemental_id" in row and isinstance(row.get("id"), int):
            self.elements.setdefault(row["id"], row["elemental_id"])
            if "score" in (row.get("attributes") or {}):
                self._scores.setdefault(row["elemental_id"], row["attributes"]["score"])

    def element(self, row: int) -> str:
        """The elemental id of a row; made up where no recording shows it."""
        return self.elements.setdefault(row, str(uuid.uuid5(uuid.NAMESPACE_URL, str(row))))

    def spec(self, row: int) -> dict[str, Any]:
        """What was sent to create a row of Baseline or Second."""
        at = row - 200_001 if row <= 200_250 else row - 200_251
        if row > 200_270:
            at += 280
        label = _LABELS[at % 5]
        attributes = {
            "Label": label,
            "score": self._scores.get(self.element(row), 0.5),
            "cluster": f"C{at % 9}",
            "verified": False,
            "predicted_label": _PREDICTED[at % 5],
        }
        return {
            "type": 21,
            "media_id": 5001 + at % 20,
            "version": 31 if row <= 200_250 else 32,
            "frame": 0,
            "x": round(at % 13 * 0.05, 2),
            "y": round(at % 7 * 0.1, 1),
            "width": 0.1,
            "height": 0.1,
            "elemental_id": self.element(row),
            "attributes": attributes,
        }


def _more(shown: list[Any], count: int, rest: Iterator[Any]) -> list[Any]:
    there = set(map(str, shown))
    new = (each for each in rest if str(each) not in there)
    return [*shown, *(next(new) for _ in range(count - len(shown)))]


def _unknown(first: Any) -> Iterator[Any]:
    """Ids that nothing has."""
    at = 0
    while True:
        at += 1
        yield 90_000_000 + at if isinstance(first, int) else str(uuid.uuid5(uuid.NAMESPACE_DNS, str(at)))


def whole_body(each: Exchange, made: Made) -> Any:
    """The body of a request with nothing cut short."""
    body = each.recorded["request"]["body"]
    if isinstance(body, list) and body and isinstance(body[-1], str):
        count = int(_CUT.match(body[-1])[1])  # type: ignore[index]
        first = {250: 200_001, 30: 200_251}.get(count)
        if first is None:  # over 500: the answer shows some more of them
            shown = re.findall(r"\{'type'.*?\}\}", each.recorded["response"]["body"]["details"])
            shown = [ast.literal_eval(spec) for spec in shown]
            return [*shown, *[body[0]] * (count - len(shown))]
        return [made.spec(row) for row in range(first, first + count)]
    if not isinstance(body, dict):
        return body
    return {key: _whole_list(each, value, made) for key, value in body.items()} | _long_label(body)


def _whole_list(each: Exchange, value: Any, made: Made) -> Any:
    cut = _CUT.match(str(value[-1])) if isinstance(value, list) and value else None
    if cut is None:
        return value
    first = 200_041 if each.file == "03" else 200_001
    # A list in 03 has 200 that exist and, where it is longer, others; one in 02 and 06b has all of Baseline.
    last = 200_240 if each.file == "03" else 200_284
    numbers = isinstance(value[0], int)
    known = iter([row if numbers else made.element(row) for row in range(first, last + 1) if numbers or row < 200_251])
    shown, count = value[:-1], int(cut[1])
    there = _more(shown, min(count, len(shown) + sum(1 for _ in _left(shown, numbers, first, last))), known)
    return _more(there, count, _unknown(value[0]))


def _left(shown: list[Any], numbers: bool, first: int, last: int) -> range:
    return range(first + len(shown), (last if numbers else min(last, 200_250)) + 1)


def _long_label(body: Mapping[str, Any]) -> dict[str, Any]:
    label = (body.get("attributes") or {}).get("Label")
    if isinstance(label, str) and label.endswith("<trimmed, 5000 chars>"):
        return {"attributes": {"Label": "x" * 5000}}
    return {}


def whole_query(each: Exchange, made: Made) -> str:
    """The query of a request with nothing cut short."""
    query = each.recorded["request"]["query"] or ""
    cut = re.search(r"\.\.\.<trimmed, (\d+) chars>$", query)
    if cut is None:
        return query
    if query.startswith("media_id="):
        count = int(re.search(r"with (\d+) media_id", each.recorded["label"])[1])  # type: ignore[index]
        listed = "%2C".join(str(1_000_000 + at) for at in range(count))
        query = f"media_id={listed}&version=31"
    else:
        listed = "%2C".join(_more([], 1000, iter([*map(made.element, range(200_001, 200_251))] * 4 + [])))
        query = f"elemental_ids={listed}"
    assert len(query) == int(cut[1])
    return query
