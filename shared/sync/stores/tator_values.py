"""Ids and labels in Tator's terms: what names a record, what a filter compares, what a bulk write carries unchanged.

The facts are from recorded answers of Tator 1.5.0: a bulk PATCH pastes the new value into SQL, and a filter compares
the JSON text of the stored value.
"""

from __future__ import annotations

import json
import re

from .base import SourceId, cannot_hold

MOST_BYTES = 8_000  # of one label, so that a chunk of the longest ones still is one small request
MOST_BULK = 5_000  # characters; the longest text that was seen to arrive

# An apostrophe ends the SQL text, a percent sign is read as a placeholder (`%%` even arrives as `%`, with a 200), and
# of the control characters only the line feed is escaped on the way.
_NEVER_IN_BULK = re.compile(r"['%\x00-\x09\x0b-\x1f\x7f-\x9f]")
_UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.ASCII)
# Attribute names that mean themselves in a query, in a filter and in SQL.
_PLAIN = re.compile(r"[^\W_][\w .()/-]*")


def elemental_id(source: SourceId) -> str | None:
    """The one spelling of an elemental id, or None where this is no UUID, so that no record of Tator's can have it."""
    text = source.lower() if isinstance(source, str) else ""
    if not _UUID.fullmatch(text):
        return None
    digits = text.replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def escaped(label: str) -> str:
    """A label as filters want it: the inside of its JSON text."""
    return json.dumps(label, ensure_ascii=False)[1:-1]


def no_value(label: str) -> str | None:
    """Why no attribute can have this value, so that no filter can ask for it either; None where one can."""
    return "it holds a null character" if "\0" in label else cannot_hold(label)


def in_bulk(label: str) -> bool:
    """Whether a bulk write is known to store exactly this text."""
    return len(label) <= MOST_BULK and not _NEVER_IN_BULK.search(label)


def is_plain(name: str) -> bool:
    """Whether the name of an attribute means nothing else anywhere on its way."""
    return bool(_PLAIN.fullmatch(name))
