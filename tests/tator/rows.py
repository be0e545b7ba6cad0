"""What a stand-in Tator server holds: users, projects, types, versions, media, localizations, a change log."""

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

FULL_CONTROL, CAN_EDIT, VIEW_ONLY = "Full Control", "Can Edit", "View Only"

# What the fine-grain mode shows instead of 0 (06c); that of Full Control is not recorded.
EFFECTIVE = {FULL_CONTROL: 16777215, CAN_EDIT: 7967, VIEW_ONLY: 771}


@lru_cache(4096)
def shown_time(moment: datetime) -> str:
    """A time as every answer has it: cut to milliseconds, though microseconds are kept (05 M8)."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def json_text(value: Any) -> str:
    """A value as PostgreSQL writes it in JSON: only quotes, backslashes and control characters are escaped (08b)."""
    return json.dumps(value, ensure_ascii=False)


@dataclass
class User:
    """An account; `tokens` open it."""

    id: int
    username: str
    tokens: set[str]
    is_staff: bool = False
    elemental_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def shown(self) -> dict[str, Any]:
        """As `User/GetCurrent` has it."""
        return {
            "id": self.id,
            "username": self.username,
            "first_name": self.username.capitalize(),
            "last_name": "Lab",
            "email": f"{self.username}@example.org",
            "is_staff": self.is_staff,
            "elemental_id": self.elemental_id,
            "profile": {},
        }


@dataclass
class Kind:
    """A localization type, or a media type."""

    id: int
    project: int
    name: str
    dtype: str
    attribute_types: list[dict[str, Any]]
    elemental_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def attribute(self, name: str) -> dict[str, Any] | None:
        """The definition of an attribute, or None."""
        return next((one for one in self.attribute_types if one["name"] == name), None)


@dataclass
class Membership:
    """What a user may do in a project."""

    id: int
    user: User
    permission: str
    default_version: int | None = None


@dataclass
class Project:
    """A project with its members, versions and types."""

    id: int
    name: str
    summary: str
    created: datetime
    elemental_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    members: dict[int, Membership] = field(default_factory=dict)  # by user
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)
    kinds: dict[int, Kind] = field(default_factory=dict)  # of localizations
    media_kinds: dict[int, Kind] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Row:
    """One mark of a localization.

    Attributes:
        mark: 0 for the first; a change that keeps history adds a row with the next
        deleted: `variant_deleted`
        box: x, y, width, height
    """

    id: int
    project: int
    type: int
    media: int
    version: int
    elemental_id: str
    mark: int
    attributes: dict[str, Any]
    created_by: int
    modified_by: int
    user: int
    deleted: bool
    box: tuple[float, ...]
    frame: int
    created: datetime
    modified: datetime

    def copy(self, **changes: Any) -> "Row":
        """Another row like this one, with attributes of its own."""
        return replace(self, **{"attributes": dict(self.attributes), **changes})


@dataclass(slots=True)
class Medium:
    """A media; it has no versions and no marks."""

    id: int
    project: int
    type: int
    name: str
    attributes: dict[str, Any]
    elemental_id: str
    created: datetime
    modified: datetime
    created_by: int
    modified_by: int
    md5: str = ""


@dataclass
class Change:
    """An entry of the change log: one for a whole bulk change, with the old values of the first row only (07)."""

    id: int
    project: int
    user: int
    rows: set[int]
    new: list[tuple[str, Any]]
    old: list[tuple[str, Any]]
    at: datetime


class Data:
    """Everything, with the indexes that 200,000 rows need. Not safe for threads by itself."""

    def __init__(self) -> None:
        self.users: dict[int, User] = {}
        self.projects: dict[int, Project] = {}
        self.rows: dict[int, Row] = {}
        self.media: dict[int, Medium] = {}
        self.log: list[Change] = []
        self.written: Counter[str] = Counter()  # by elemental id, through the API
        self.next_row = 200_001
        self.next_medium = 5_001
        self.next_change = 900_001
        self.next_type = 11
        self._elements: dict[str, tuple[Row, ...]] = {}
        self._last = datetime.now(UTC)
        self._memberships = itertools.count(1)

    def now(self) -> datetime:
        """The time, later than any before, and never a whole millisecond."""
        self._last = max(datetime.now(UTC), self._last + timedelta(milliseconds=1))
        if not self._last.microsecond % 1000:
            self._last += timedelta(microseconds=1)
        return self._last

    # --- who and where ---

    def user_of(self, token: str) -> User | None:
        """Whose token it is."""
        return next((user for user in self.users.values() if token in user.tokens), None)

    def join(self, project: int, user: int, permission: str, default_version: int | None = None) -> Membership:
        """Makes a user a member, or changes what a member may do."""
        members = self.projects[project].members
        number = members[user].id if user in members else next(self._memberships)
        members[user] = Membership(number, self.users[user], permission, default_version)
        return members[user]

    # --- localizations ---

    def add(self, row: Row) -> Row:
        """Takes a row in; one whose id is 0 gets the next."""
        if not row.id:
            row.id, self.next_row = self.next_row, self.next_row + 1
        self.next_row = max(self.next_row, row.id + 1)
        self.rows[row.id] = row
        self._elements[row.elemental_id] = (*self._elements.get(row.elemental_id, ()), row)
        return row

    def remove(self, row: Row) -> None:
        """Forgets a row."""
        del self.rows[row.id]
        left = tuple(one for one in self._elements[row.elemental_id] if one is not row)
        if left:
            self._elements[row.elemental_id] = left
        else:
            del self._elements[row.elemental_id]

    def marks(self, elemental_id: str, version: int | None = None) -> list[Row]:
        """All rows of an element, of one version or of each, the oldest first."""
        rows = [row for row in self._elements.get(elemental_id, ()) if version in (None, row.version)]
        return sorted(rows, key=lambda row: (row.mark, row.id))

    def is_latest(self, row: Row) -> bool:
        """Whether no other row of the same element and version has a higher mark."""
        others = self._elements[row.elemental_id]
        return len(others) == 1 or all(one.mark <= row.mark for one in others if one.version == row.version)

    def with_elements(self, elemental_ids: Iterable[str]) -> Iterator[Row]:
        """The rows of these elements, each once."""
        for elemental_id in dict.fromkeys(elemental_ids):
            yield from self._elements.get(elemental_id, ())

    # --- the change log ---

    def note(
        self, project: int, user: int, rows: Iterable[int], new: Mapping[str, Any], old: Mapping[str, Any]
    ) -> None:
        """Adds an entry to the change log."""
        entry = Change(self.next_change, project, user, set(rows), list(new.items()), list(old.items()), self.now())
        self.log.append(entry)
        self.next_change += 1


def created_values(row: Row) -> dict[str, Any]:
    """What the change log says of a row that was created: 19 columns, in an order of which 8 are recorded (07)."""
    names = ("x", "y", "width", "height")
    columns = {
        "_id": row.id,
        "_project": row.project,
        "_type": row.type,
        "_created_by": row.created_by,
        "_modified_by": row.modified_by,
        "_user": row.user,
        "_media": row.media,
        "_frame": row.frame,
        **{f"_{name}": value for name, value in zip(names, row.box, strict=True)},
        **dict.fromkeys(("_u", "_v", "_points", "_parent", "_thumbnail_image")),
        "_version": row.version,
        "_elemental_id": row.elemental_id,
    }
    return columns | row.attributes
