"""Which rows a request to a stand-in Tator server means: its filters, with all that they silently leave out.

What the recordings do not show raises `Unrecorded`, so that nobody comes to rely on it.
"""

import base64
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.tator.rows import Data, Kind, Medium, Row, json_text

Condition = Callable[[Any], bool]  # of a row or a media

_TEXT = ("string", "enum")
_BUILT_IN = {
    "$id": "id",
    "$elemental_id": "elemental_id",
    "$type": "type",
    "$version": "version",
    "$mark": "mark",
    "$created_by": "created_by",
    "$modified_by": "modified_by",
    "$created_datetime": "created",
    "$modified_datetime": "modified",
}


class Refused(Exception):
    """A 400: `message` and `details` of the answer."""

    def __init__(self, message: str, details: str = "None") -> None:
        super().__init__(message)
        self.message, self.details = message, details


class Unrecorded(Exception):
    """Nobody has seen what the real server does here."""


class Crash(Exception):
    """The worker fails without any answer of the API's own: a 500 of the web server."""


class Broken(Exception):
    """A list fails when the server has already said 200: nothing, or not all, of the body comes."""


@dataclass
class Query:
    """The parameters of a request that the server knows; of the others it says nothing."""

    version: list[int] = field(default_factory=list)
    media_id: list[int] = field(default_factory=list)
    type: int | None = None
    elemental_id: str | None = None
    ids: list[int] = field(default_factory=list)
    elemental_ids: list[str] = field(default_factory=list)
    filters: list[tuple[str, str]] = field(default_factory=list)  # ("attribute_gt", "score::0.5")
    object_search: Mapping[str, Any] | None = None
    encoded_search: Mapping[str, Any] | None = None
    start: int | None = None
    stop: int | None = None
    after: int | None = None
    sort_by: list[str] = field(default_factory=list)
    show_all_marks: bool = False
    show_deleted: bool = False
    fields: list[str] = field(default_factory=list)
    count: int | None = None


_NUMBERS = ("type", "start", "stop", "after", "count", "show_all_marks", "show_deleted")
_LISTS = ("version", "media_id")
_FILTERS = ("attribute", "attribute_gt", "attribute_gte", "attribute_lt", "attribute_lte", "attribute_contains")


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        details = f"Failed to cast value to integer type: {text}"
        raise Refused(f"Query parameter error: {name}", details) from None


def parse(pairs: Sequence[tuple[str, str]], body: Mapping[str, Any]) -> Query:
    """The query of the URL, and what of a body filters.

    Raises:
        Refused: a value cannot be read
    """
    query = Query()
    for name, text in pairs:
        if name in _NUMBERS:
            setattr(query, name, _number(name, text))
        elif name in _LISTS:
            setattr(query, name, [_number(name, each) for each in text.split(",")])
        elif name in ("fields", "sort_by"):
            setattr(query, name, text.split(","))
        elif name == "elemental_id":
            query.elemental_id = _uuid(text)
        elif name == "encoded_search":
            query.encoded_search = json.loads(base64.b64decode(text))
        elif name in (*_FILTERS, "attribute_null"):
            query.filters += [(name, each) for each in text.split(",")]  # also within a value (05 M1)
    query.ids = [int(each) for each in body.get("ids", [])]
    query.elemental_ids = list(body.get("elemental_ids", []))
    query.object_search = body.get("object_search")
    query.filters += [("attribute", each) for each in body.get("attribute", [])]  # 05 O4
    query.count = body.get("count", query.count)  # 03 B27
    return query


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise Refused(str(error)) from None


def select(data: Data, project: int, query: Query) -> list[Row]:
    """The localizations that a query means, by id or as it says.

    Raises:
        Refused: a filter cannot be used
        Crash: an id that is none in a list of them
        Broken: text with NUL
    """
    kinds = data.projects[project].kinds
    conditions = _conditions(query, kinds)
    rows: Iterable[Row]
    if query.ids:
        rows = (data.rows[each] for each in dict.fromkeys(query.ids) if each in data.rows)
        if query.elemental_ids:
            wanted = set(map(_known_uuid, query.elemental_ids))
            rows = (row for row in rows if row.elemental_id in wanted)
    elif query.elemental_ids:
        rows = data.with_elements(map(_known_uuid, query.elemental_ids))
    elif query.elemental_id:
        rows = data.with_elements([query.elemental_id])
    else:
        rows = data.rows.values()
    versions, media = set(query.version), set(query.media_id)
    rows = [
        row
        for row in rows
        if row.project == project
        and (not versions or row.version in versions)
        and (query.type is None or row.type == query.type)
        and (not media or row.media in media)
        and (not row.deleted or query.show_deleted)
        and (query.show_all_marks or data.is_latest(row))
        and all(holds(row) for holds in conditions)
    ]
    return _paged(rows, query)


def select_media(data: Data, project: int, query: Query) -> list[Medium]:
    """The media that a query means, by name.

    Only `stop` is recorded (01). The rest is as Tator's public source reads: filters on attributes as for
    localizations, `ids` in the body, but no `elemental_ids`, which are ignored like any unknown key.
    """
    conditions = _conditions(query, data.projects[project].media_kinds)
    ids = set(query.ids)
    rows = [
        one
        for one in data.media.values()
        if one.project == project
        and (not ids or one.id in ids)
        and query.elemental_id in (None, one.elemental_id)
        and (query.type is None or one.type == query.type)
        and (not query.media_id or one.id in query.media_id)
        and all(holds(one) for holds in conditions)
    ]
    return _paged(rows, query, by_name=True)


def _known_uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Crash(text) from None


def _paged(rows: list[Any], query: Query, by_name: bool = False) -> list[Any]:
    rows.sort(key=(lambda row: (row.name, row.id)) if by_name else (lambda row: row.id))
    for name in reversed(query.sort_by):
        rows = _sorted(rows, name)
    if query.after is not None:
        rows = [row for row in rows if row.id > query.after]
    if query.start is None and query.stop is None:
        return rows
    return rows[query.start or 0 : query.stop]


def _sorted(rows: list[Any], name: str) -> list[Any]:
    """As PostgreSQL: rows without a value first when it goes down, last when it goes up (02)."""
    down = name.startswith("-")
    name = name.removeprefix("-")
    valued = [row for row in rows if row.attributes.get(name) is not None]
    bare = [row for row in rows if row.attributes.get(name) is None]
    valued.sort(key=lambda row: row.attributes[name], reverse=down)
    return bare + valued if down else valued + bare


# --- conditions on attributes ---


def _conditions(query: Query, kinds: Mapping[int, Kind]) -> list[Condition]:
    """What the filters on attributes ask of each row; names that nobody knows are dropped (05 O1)."""
    asked = [kinds[query.type]] if query.type in kinds else list(kinds.values())
    found: list[Condition] = []
    absent: list[Condition] = []
    for operation, text in query.filters:
        name, separator, value = text.partition("::")
        if not separator:
            raise Refused("not enough values to unpack (expected 2, got 1)")
        dtype = _dtype(asked, name)
        if dtype is None:
            continue
        if operation == "attribute_null":
            absent.append(_is_null(name, value.lower() == "true"))
            continue
        kind = operation.removeprefix("attribute").removeprefix("_") or "eq"
        if kind == "contains" and dtype not in _TEXT:
            raise Refused(f"Filter operation '{operation}' not allowed for dtype '{dtype}'!")
        found.append(_compare(name, dtype, kind, value))
    if absent and (found or query.type is not None):  # alone and without a type, it is not looked at (05 O8)
        found += absent
    found += [_search(one, asked) for one in (query.object_search, query.encoded_search) if one is not None]
    return found


def _dtype(kinds: Iterable[Kind], name: str) -> str | None:
    if name in _BUILT_IN:
        return "built in"
    return next((each["dtype"] for kind in kinds for each in kind.attribute_types if each["name"] == name), None)


def _is_null(name: str, null: bool) -> Condition:
    return lambda row: (row.attributes.get(name) is None) is null


def _search(search: Mapping[str, Any], kinds: Sequence[Kind]) -> Condition:
    """`object_search`: a comparison, or several joined by and / or."""
    if "method" in search:
        parts = [_search(each, kinds) for each in search["operations"]]
        if search["method"] not in ("and", "or"):
            raise Unrecorded(f"the method {search['method']!r}")
        join = all if search["method"] == "and" else any
        return lambda row: join(part(row) for part in parts)
    for key in ("attribute", "operation", "value"):
        if key not in search:
            raise Refused(f"'{key}'")  # what the KeyError says
    name, operation, value = search["attribute"], search["operation"], search["value"]
    dtype = _dtype(kinds, name)
    if dtype is None:
        return lambda _: False  # the safe way round (05 M5)
    if operation == "in" and dtype in _TEXT:
        # Bare values, unlike those of `eq`: not recorded with any that JSON would escape, so reads the public source.
        return lambda row: row.attributes.get(name) in value
    if operation == "in" and dtype == "built in":
        plain = {_column_value(_BUILT_IN[name], each) for each in value}
        return lambda row: getattr(row, _BUILT_IN[name]) in plain
    if operation == "in":
        parts = [_compare(name, dtype, "eq", each) for each in value]
        return lambda row: any(part(row) for part in parts)
    return _compare(name, dtype, operation.removeprefix("date_"), value)


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda held, value: held == value,
    "gt": lambda held, value: held > value,
    "gte": lambda held, value: held >= value,
    "lt": lambda held, value: held < value,
    "lte": lambda held, value: held <= value,
}


def _compare(name: str, dtype: str, operation: str, value: Any) -> Condition:
    if "\0" in str(value):
        raise Broken  # PostgreSQL takes no such text (08 E17)
    if operation == "contains":
        part = str(value).lower()
        return lambda row: part in json_text(row.attributes[name]).lower() if name in row.attributes else False
    if operation not in _ORDER:
        raise Unrecorded(f"the operation {operation!r}")
    compare = _ORDER[operation]
    if dtype == "built in":
        column = _BUILT_IN[name]
        plain = _column_value(column, value)
        return lambda row: compare(getattr(row, column), plain)
    if dtype in _TEXT:
        # The JSON text of what is held against the bare value in quotes: nothing is escaped here (08b).
        quoted = f'"{value}"'
        return lambda row: compare(json_text(row.attributes[name]), quoted) if name in row.attributes else False
    if dtype == "bool":
        wanted = value if isinstance(value, bool) else str(value).lower() == "true"
        return lambda row: row.attributes.get(name) is wanted
    if dtype in ("float", "int"):
        number = _plain(value, float)
        return lambda row: (held := row.attributes.get(name)) is not None and compare(held, number)
    raise Unrecorded(f"a comparison of attributes of type {dtype!r}")


def _column_value(column: str, value: Any) -> Any:
    if column == "elemental_id":
        return _plain(value, lambda text: str(uuid.UUID(text)))
    return _plain(value, datetime.fromisoformat if column in ("created", "modified") else int)


def _plain(value: Any, kind: Callable[[Any], Any]) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise Refused(str(error)) from None  # as every error of Python's
