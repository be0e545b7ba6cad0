"""Ids, paths and conditions in MongoDB's terms: what is compared is compared exactly, and as a value."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bson import ObjectId

from .base import SourceId, is_text

# A chunk of the longest ids and labels (each change names two, twice with a history) still is one message of at most
# 48 MB, which the server takes or refuses as one command.
MOST_BYTES = 8_000
IDS_A_READ = 5_000
BYTES_A_READ = 4_000_000


def only(path: str, same: dict[str, Any]) -> dict[str, Any]:
    """The condition that such a value, and no list that holds one, stands at the path."""
    no_list = {"$not": {"$type": "array"}}
    parts = path.split(".")
    above = {".".join(parts[:count]): no_list for count in range(1, len(parts))}
    return {**above, path: {**same, **no_list}}


def at(record: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none; the list, if the path leads through one."""
    for part in path.split("."):
        if isinstance(record, list):
            return record
        if not isinstance(record, dict):
            return None
        record = record.get(part)
    return record


def parts(ids: list[Any]) -> Iterator[list[Any]]:
    """Ids in portions that fit into one request."""
    part: list[Any] = []
    size = 0
    for stored in ids:
        part.append(stored)
        size += len(stored.encode()) if isinstance(stored, str) else 16
        if len(part) >= IDS_A_READ or size >= BYTES_A_READ:
            yield part
            part, size = [], 0
    if part:
        yield part


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text) else None


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


_TYPES: Mapping[str, Callable[[str], Any]] = {
    "string": lambda text: text,
    "int": _number,
    "objectid": lambda text: ObjectId(text) if ObjectId.is_valid(text) else None,
    "uuid": _uuid,
}


def stored_id(source: SourceId, id_type: str | None) -> Any:
    """An id as the store has it, or None where no id of the store's can be meant."""
    stored = source if id_type is None else _TYPES[id_type](str(source))
    if stored == "":
        return None
    if isinstance(stored, bool):
        return None
    if isinstance(stored, int):
        return stored if -(2**63) <= stored < 2**63 else None
    if isinstance(stored, str):
        return stored if is_text(stored) and len(stored.encode()) <= MOST_BYTES else None
    return stored
