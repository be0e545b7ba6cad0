"""Tator as a label store: one attribute of the localizations of one type in one version, or of whole images.

The secret MBARI_LABEL_STORE says where and how, MBARI_LABEL_STORE_TOKEN is the API token of a user who may edit:

    tator+https://host/<project>?version=<version>&type=<localization type>&attribute=Label&<key>=<value>&...

    version      the version, by name or id, as are project and type
    type         the localization type
    attribute    the attribute that is the label, `Label` by default
    media_type   in place of `version` and `type`: the labels of whole images of this media type
    verified     a boolean attribute that is set true where a sync wrote a label, in a request of its own
    in_place     1 by default; with 0 every write adds a row (with a new id and a new time) and keeps the old one as a
                 mark
    chunk        changes in one write, 500 by default
    pause        seconds between two requests that write, 0 by default
    timeout      seconds to wait for an answer, 30 by default
    name         what runs, journal and people call the server, in place of its address

The key of a label is its `elemental_id` within the version; ids of rows go stale and are never sent. A write is one
conditional bulk request for each pair of old and new label, and a look afterwards, since the server's check and its
write are two steps. What recorded answers of a real server show of the ways in which it loses data is in the tests of
this module, each by name.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...errors import StorageError
from .base import Change, Found, SourceId, Stamp, Unreachable, Written, cannot_hold, is_text, readable
from .tator_api import Api, Reply
from .tator_names import Place, denied, find, permission, refused
from .tator_uri import Settings, read_uri
from .tator_values import MOST_BULK, MOST_BYTES, elemental_id, escaped, in_bulk, is_plain, no_value

PAGE = 2_000  # ids in one request that reads
FEW = 20  # rows that a check looks at

logger = logging.getLogger(__name__)


def open_tator(uri: str, token: str | None = None) -> TatorStore:
    """The store behind a `tator+https://` or `tator+http://` URI; see the module for its keys.

    Raises:
        InputError: URI or token cannot be used; it says which key, never a value
    """
    settings = read_uri(uri)
    return TatorStore(Api(settings.name, settings.base, token, settings.timeout, settings.pause), settings)


class _Row(NamedTuple):
    """What the server has under one elemental id; `value` is None where the attribute is null or not there."""

    id: int
    value: Any
    copies: int = 1

    def holds(self, label: str) -> bool:
        """Whether it is one row, and this its label."""
        return self.copies == 1 and (self.value == label if label else self.value in ("", None))


@dataclass
class _Group:
    """Changes from one label to one other, by elemental id; with `null` from an attribute that is not there."""

    expected: str
    wanted: str
    changes: dict[str, Change]
    null: bool = False


@dataclass
class _Round:
    """What one `write` has come to: the changes that the server says it made, and what it will never take."""

    taken: dict[str, Change] = field(default_factory=dict)
    refused: dict[SourceId, str] = field(default_factory=dict)


class TatorStore:
    """Labels in Tator; see `Store`."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.name = settings.name
        self.chunk = settings.chunk
        self._api, self._settings = api, settings
        self._list = "Medias" if settings.media else "Localizations"
        self._found: Place | None = None

    def __repr__(self) -> str:
        return f"TatorStore({self.name!r})"

    @property
    def requests(self) -> int:
        """How many requests it has made so far."""
        return self._api.requests

    def close(self) -> None:
        """Gives connections back."""
        self._api.close()

    def refuses(self, label: str) -> str | None:
        """Why no attribute of Tator's can hold this label, or None."""
        if reason := no_value(label):
            return reason
        if self._settings.media and not in_bulk(label):
            # A single image is written by the same statement as many of them.
            if len(label) > MOST_BULK:
                return (
                    f"it is longer than {MOST_BULK:,} characters, the longest label of a whole image that Tator takes"
                )
            return "Tator cannot take an apostrophe, a percent sign or a control character as a whole image's label"
        return cannot_hold(label, MOST_BYTES)

    # --- reading ---

    def count(self) -> int | None:
        """How many labels there are; see `Store.count`. How whole images are counted is not recorded."""
        if self._settings.media:
            return None
        place = self._place()
        reply = self._api.ask("GET", f"LocalizationCount/{place.project}", self._query(place))
        if not reply.ok:
            raise refused(self._api, "read", reply)
        if not isinstance(reply.body, int):
            raise self._api.unknown("the answer is no number")
        return reply.body

    def read(self, ids: Sequence[SourceId], run: str | None = None) -> dict[SourceId, Found]:
        """What the store holds now under each of these ids; see `Store.read`. Tator keeps no run's name."""
        asked: dict[str, list[SourceId]] = defaultdict(list)
        for source in dict.fromkeys(ids):
            if (element := elemental_id(source)) is not None:
                asked[element].append(source)
        found: dict[SourceId, Found] = {}
        for element, row in self._rows(list(asked)).items():
            sources = asked[element]
            # Two spellings of one id mean the same record.
            one = self._one(row)._replace(copies=max(row.copies, len(sources)))
            found |= dict.fromkeys(sources, one)
        return found

    def _one(self, row: _Row) -> Found:
        number = None if self._settings.in_place else row.id
        if row.value is None:
            return Found("", row=number)
        if isinstance(row.value, str) and is_text(row.value):
            return Found(row.value, row=number)
        return Found(None, other=readable(row.value), row=number)

    def _rows(self, elements: Sequence[str]) -> dict[str, _Row]:
        """The rows of these elemental ids, in requests of a bounded size; none for none."""
        rows: dict[str, _Row] = {}
        for start in range(0, len(elements), PAGE):
            rows |= self._page(frozenset(elements[start : start + PAGE]))
        return rows

    def _page(self, asked: Collection[str]) -> dict[str, _Row]:
        place, attribute = self._place(), self._settings.attribute
        wanted = f"attributes.{attribute}" if attribute.replace("_", "a").isalnum() else "attributes"
        fields = ["id", "elemental_id", "type", wanted] + (["version"] if place.version is not None else [])
        query = self._query(place) | {"fields": ",".join(fields)}
        # With PUT, since a GET of this list never ends when its text is a multiple of the server's buffer.
        reply = self._api.ask("PUT", f"{self._list}/{place.project}", query, self._which(asked))
        if not reply.ok:
            if reply.status == 400:  # ids and names are right, so it is the server that is not
                raise self._api.unknown(reply.message)
            raise refused(self._api, "read", reply)
        if not isinstance(reply.body, list):
            raise self._api.unknown("the answer is no list")
        rows: dict[str, _Row] = {}
        for each in reply.body:
            element, row = self._row(each, place)
            if element not in asked:
                raise self._strange("rows that it was not asked for")
            earlier = rows.get(element)
            rows[element] = row if earlier is None else row._replace(copies=earlier.copies + 1)
        return rows

    def _row(self, each: Any, place: Place) -> tuple[str, _Row]:
        try:
            element = elemental_id(each["elemental_id"]) or ""
            ours = each["type"] == place.type and each.get("version", place.version) == place.version
            attributes = each.get("attributes") or {}
            row = _Row(each["id"], attributes.get(self._settings.attribute))
        except (TypeError, KeyError, AttributeError) as error:
            raise self._api.unknown("its rows lack what was asked for") from error
        if not ours:
            raise self._strange("rows of another version or type")
        return element, row

    def _strange(self, what: str) -> StorageError:
        return StorageError(
            f"The label store {self.name} answers with {what}: it does not understand these requests, so that nothing "
            "can be written safely; its version of Tator may be one that was never tried."
        )

    def _which(self, elements: Collection[str]) -> dict[str, Any]:
        """The part of a body that names rows. Never of none: an empty list means every row of the project."""
        if not elements:
            raise ValueError("no ids: a request without them would be one for the whole project")
        if self._settings.media:
            return {"object_search": {"attribute": "$elemental_id", "operation": "in", "value": sorted(elements)}}
        return {"elemental_ids": sorted(elements)}

    def _place(self) -> Place:
        if self._found is None:
            self._found = find(self._api, self._settings)
        return self._found

    def _query(self, place: Place) -> dict[str, Any]:
        version = {} if place.version is None else {"version": place.version}
        return {**version, "type": place.type}

    # --- writing ---

    def write(self, changes: Sequence[Change], stamp: Stamp) -> Written:
        """Makes at most `chunk` conditional writes, one request for each pair of labels; see `Store.write`.

        Raises:
            ValueError: more changes than a chunk
        """
        if len(changes) > self.chunk:
            raise ValueError(f"{len(changes)} changes in one write: at most {self.chunk}")
        made = _Round()
        self._api.run = stamp.run
        try:
            return self._offer(changes, made, stamp.how)
        except Unreachable as error:
            error.taken = frozenset(change.id for change in made.taken.values())
            raise

    def _offer(self, changes: Sequence[Change], made: _Round, how: str) -> Written:
        """Writes, and looks what became of it: between the two, others may have written as well."""
        try:
            self._write(self._sorted(changes, made), made)
        except Unreachable:
            raise
        except StorageError as error:
            if not made.taken:
                raise
            # What was taken is to be counted; the next write says again why no more is.
            logger.warning("Part of a chunk was not written: %s", error)
        try:
            rows = self._rows(list(made.taken))
        except StorageError as error:
            raise self._api.unknown(f"it took a write, and then could not be read: {error}") from error
        done = {
            element: change
            for element, change in made.taken.items()
            if element in rows and rows[element].holds(change.wanted)
        }
        if self._settings.verified is not None and how == "sync":  # what is put back, nobody has looked at
            self._verify(done)
        numbers = {} if self._settings.in_place else {change.id: rows[element].id for element, change in done.items()}
        since = frozenset(change.id for element, change in made.taken.items() if element not in done)
        return Written(len(done), made.refused, numbers, since)

    def _sorted(self, changes: Sequence[Change], made: _Round) -> list[_Group]:
        """The changes that can be made at all, those that are alike together."""
        named: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            # A filter compares more texts than can be written.
            reason = self.refuses(change.wanted) or no_value(change.expected)
            element = elemental_id(change.id)
            if reason:
                made.refused[change.id] = reason
            elif element is not None:  # what cannot be an id there matches nothing there
                named[element].append(change)
        groups: dict[tuple[str, str], _Group] = {}
        for element, same in named.items():
            if len(same) == 1:  # of two spellings of one id, neither is more right than the other
                expected, wanted = same[0].expected, same[0].wanted
                groups.setdefault((expected, wanted), _Group(expected, wanted, {})).changes[element] = same[0]
        return list(groups.values())

    def _write(self, groups: Sequence[_Group], made: _Round) -> None:
        plain = self._settings.media or is_plain(self._settings.attribute)
        for group in groups:
            if not (plain and in_bulk(group.wanted)):
                for element, change in group.changes.items():
                    self._single(element, change, made)
            else:
                for part in [group] if group.expected else self._unlabelled(group):
                    self._bulk(part, made)

    def _unlabelled(self, group: _Group) -> list[_Group]:
        """No label is an empty one, or none at all: what a filter must say differs."""
        rows = self._rows(list(group.changes))
        parts = [_Group("", group.wanted, {}), _Group("", group.wanted, {}, null=True)]
        for element, change in group.changes.items():
            if element in rows and rows[element].holds(""):
                parts[rows[element].value is None].changes[element] = change
        return [part for part in parts if part.changes]

    def _bulk(self, group: _Group, made: _Round) -> None:
        """Offers a group as a whole; where that is refused, once more those of it that still hold what is expected."""
        left = group.changes
        for _ in range(2):
            reply = self._patch(list(left), group, {self._settings.attribute: group.wanted}, self._settings.in_place)
            if reply.ok:
                made.taken |= left
                return
            if reply.status == 404:
                raise refused(self._api, "write to", reply)
            # Nothing was written. With permissions by row, a 403 may also mean that no row matches any more.
            rows = self._rows(list(left))
            left = {e: c for e, c in left.items() if e in rows and rows[e].holds(group.expected)}
            if not left:
                return
            if reply.status == 400 and not _mismatch(reply):
                made.refused |= {change.id: reply.message for change in left.values()}
                return
            if reply.status == 403:
                raise denied(self._api, "write to")

    def _patch(
        self, elements: Sequence[str], group: _Group, attributes: Mapping[str, Any], in_place: bool = True
    ) -> Reply:
        """One conditional write, guarded by the number of rows that it must match."""
        place, attribute = self._place(), self._settings.attribute
        query = self._query(place) | {"count": len(elements)}
        body = {**self._which(elements), "attributes": dict(attributes)}
        if group.null:
            # Goes unnoticed unless the type is in the query as well.
            query["attribute_null"] = f"{attribute}::true"
        else:
            same = {"attribute": attribute, "operation": "eq", "value": escaped(group.expected)}
            both = [body["object_search"], same] if self._settings.media else []
            body["object_search"] = {"method": "and", "operations": both} if both else same
        if in_place and not self._settings.media:
            body["in_place"] = 1
        return self._api.ask("PATCH", f"{self._list}/{place.project}", query, body)

    def _single(self, element: str, change: Change, made: _Round) -> None:
        """Writes one row right after a look at it: the server compares nothing in a single write."""
        row = self._rows([element]).get(element)
        if row is None or not row.holds(change.expected):
            return
        body: dict[str, Any] = {"attributes": {self._settings.attribute: change.wanted}}
        if self._settings.in_place:
            body["in_place"] = 1
        reply = self._api.ask("PATCH", f"Localization/{self._place().version}/{element}", body=body)
        if reply.ok:
            made.taken[element] = change
        elif reply.status == 403:
            raise denied(self._api, "write to")
        elif reply.status == 400:
            made.refused[change.id] = reply.message

    def _verify(self, done: Mapping[str, Change]) -> None:
        """Sets the boolean attribute of rows that hold what was written; the log says where it could not."""
        labels: dict[str, list[str]] = defaultdict(list)
        for element, change in done.items():
            if change.wanted:
                labels[change.wanted].append(element)
        for label, elements in labels.items():
            try:
                self._verify_label(label, elements)
            except StorageError as error:  # the labels are written, whatever became of this
                logger.warning("Labels %r of %s may not be set to verified: %s", label, self.name, error)

    def _verify_label(self, label: str, elements: list[str]) -> None:
        for _ in range(2):
            reply = self._patch(elements, _Group(label, label, {}), {str(self._settings.verified): True})
            if reply.ok:
                return
            rows = self._rows(elements)
            elements = [element for element in elements if element in rows and rows[element].holds(label)]
            if not elements:
                return
        raise refused(self._api, "write to", reply)

    # --- itself ---

    def check(self, writing: bool = True) -> str:
        """Reads names, a few rows and the user's permission; see `Store.check`."""
        self._found = None
        place = self._place()
        query = self._query(place)
        line = f"{self.name}: {place.said}"
        if (count := self.count()) is not None:
            line += f"; {count:,} localizations"
        # Whole rows, since only those say what the user may do with them.
        few = self._api.ask("PUT", f"{self._list}/{place.project}", query | {"start": 0, "stop": FEW}, {})
        if not few.ok:
            raise refused(self._api, "read", few)
        if not isinstance(few.body, list):
            raise self._api.unknown("the answer is no list")
        rows = [self._row(each, place)[1] for each in few.body]
        if rows:
            labelled = sum(self._one(row).label not in ("", None) for row in rows)
            line += f"; of the first {len(rows)}, {labelled} have a label"
        return f"{line}; {permission(self._api, place, few.body)}" if writing else line


def _mismatch(reply: Reply) -> bool:
    """Whether a write was refused because another number of rows matched than it named."""
    return reply.message.startswith("Safety check failed")
