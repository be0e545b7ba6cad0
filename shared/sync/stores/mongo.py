"""MongoDB as a label store: one document a label, in one collection.

The secret MBARI_LABEL_STORE says where and how:

    mongodb://user:password@host/<database>?collection=<name>&<key>=<value>&...

    collection   the collection; the only key that must be there
    id           path of the id, `elemental_id` by default
    label        path of the label, `label` by default
    modified     path that gets the time of each write
    modified_by  path that gets the name of who wrote
    history      path of a list that gets {from, to, by, at, run} with each write
    id_type      what ids are in the store: `string`, `int`, `objectid` or `uuid`; by default what they are in FiftyOne
    chunk        changes in one write, 1,000 at most and by default
    name         what runs, journal and people call the server, in place of its address: for one whose address changes,
                 since what an earlier run has sent is found again by the name of the store, which this is a part of

A path may be dotted (`annotation.label`); nothing is written to `modified`, `modified_by` and `history` unless they
are named. All other keys go to pymongo as they are: TLS, authentication, replica sets, timeouts. The secret
MBARI_LABEL_STORE_TOKEN is the password of a user whom the URI names without one.

Some things hold whatever the URI says, since exactly-once rests on them: pymongo repeats no write, a majority has
a write on disk before it counts, and reads see what a majority has.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pymongo
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from pymongo import MongoClient, ReadPreference, UpdateMany, UpdateOne, WriteConcern
from pymongo.collation import Collation
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from ...errors import StorageError
from .base import Change, Found, SourceId, Stamp, Unreachable, Written, cannot_hold, is_text, readable
from .mongo_uri import Settings, connect
from .mongo_values import MOST_BYTES, at, only, parts, stored_id

# Labels and ids are compared byte by byte, also in a collection that was made to ignore case.
_EXACT = Collation(locale="simple")

# Answers that end the whole command before any of its writes; after any other, nobody knows.
_LOGIN = {11, 18, 391}  # UserNotFound, AuthenticationFailed, ReauthenticationRequired
_DENIED = {13, 8000}  # Unauthorized, AtlasError
_MALFORMED = {2, 9, 14, 20, 26, 40, 59, 61, 72, 73, 115, 166}
# Of single writes: the server was on its way out, so that another try may succeed.
_PASSING = {6, 7, 24, 50, 63, 89, 91, 112, 150, 189, 262, 9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
_RULE = 121  # DocumentValidationFailure


def open_mongo(uri: str, token: str | None = None) -> MongoStore:
    """The store behind a `mongodb://` or `mongodb+srv://` URI; see the module for its keys.

    Raises:
        InputError: the URI cannot be used; it says which key, never a value
        StorageError: the name service knows no such server (`mongodb+srv`)
    """
    return MongoStore(*connect(uri, token))


_Group = list[tuple[Any, Change]]  # changes from one label to one other, with their ids as the store has them


class _Answer(NamedTuple):
    """What the server made of a command: how many records it wrote, what it refused, and the groups it stopped in."""

    done: int
    refused: dict[SourceId, str]
    stopped: list[_Group]


class MongoStore:
    """A collection of labels; see `Store`."""

    def __init__(self, client: MongoClient, settings: Settings) -> None:
        self.name = settings.name
        self.chunk = settings.chunk
        self._settings = settings
        self._client = client
        # One operation as a whole: choosing the server, connecting, asking, waiting for a majority. The server is
        # told as well, so that it does not carry out later what we have given up.
        options = client.options
        self._seconds = options.timeout or options.pool_options.socket_timeout
        self._patience = min(options.server_selection_timeout, self._seconds or options.server_selection_timeout)
        self._greeted = False
        self._unique: bool | None = None
        codec = client.codec_options.with_options(
            # One damaged text or date in the store must not make the others unreadable.
            unicode_decode_error_handler="surrogateescape",
            datetime_conversion=DatetimeConversion.DATETIME_AUTO,
        )
        self._db = client[settings.database]
        self._records = self._db[settings.collection].with_options(
            codec_options=codec,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", j=True),
            read_concern=ReadConcern("majority"),
        )

    def __repr__(self) -> str:
        return f"MongoStore({self.name!r})"

    def close(self) -> None:
        """Gives connections back."""
        self._client.close()

    def refuses(self, label: str) -> str | None:
        """Why no MongoDB document can hold this label, or None."""
        return cannot_hold(label, MOST_BYTES)

    def count(self) -> int:
        """How many records there are; see `Store.count`."""
        with self._explaining("read"):
            return self._records.count_documents({})

    def read(self, ids: Sequence[SourceId], run: str | None = None) -> dict[SourceId, Found]:
        """What the store holds now under each of these ids; see `Store.read`."""
        asked: dict[Any, list[SourceId]] = {}
        for source in dict.fromkeys(ids):
            stored = stored_id(source, self._settings.id_type)
            if stored is not None:
                asked.setdefault(stored, []).append(source)
        there: dict[Any, Found] = {}
        for part in parts(list(asked)):
            with self._explaining("read"):
                self._read_part(part, run, there)
        found: dict[SourceId, Found] = {}
        for stored, sources in asked.items():
            if stored in there:
                one = there[stored]
                # Two spellings of one id (a UUID in capitals and in small letters) mean the same record.
                found |= dict.fromkeys(sources, one._replace(copies=max(one.copies, len(sources))))
        return found

    def _read_part(self, ids: list[Any], run: str | None, there: dict[Any, Found]) -> None:
        path = self._settings.id
        wanted = {path: 1, self._settings.label: 1, "_id": int(path == "_id")}
        if run is not None and self._settings.history:
            wanted[f"{self._settings.history}.run"] = 1
        for record in self._records.find({path: {"$in": ids}}, wanted, collation=_EXACT):
            stored = at(record, path)
            if isinstance(stored, (list, dict)):  # a list that holds the id among others is no record of it
                continue
            earlier = there.get(stored)
            if earlier is None:
                there[stored] = self._found(record, run)
            else:
                there[stored] = earlier._replace(copies=earlier.copies + 1)

    def _found(self, record: Mapping[str, Any], run: str | None) -> Found:
        label, ours = at(record, self._settings.label), None
        if run is not None and self._settings.history:
            # What is no list (and a write would refuse) holds no entry of ours.
            entries = at(record, self._settings.history)
            ours = isinstance(entries, list) and any(
                isinstance(entry, dict) and entry.get("run") == run for entry in entries
            )
        if label is None:
            return Found("", ours=ours)
        if isinstance(label, str) and is_text(label):
            return Found(label, ours=ours)
        return Found(None, ours=ours, other=readable(label))

    def write(self, changes: Sequence[Change], stamp: Stamp) -> Written:
        """Makes at most `chunk` conditional writes in one command, each exactly once or not at all; see `Store.write`.

        Raises:
            ValueError: more changes than a chunk
        """
        if len(changes) > self.chunk:
            raise ValueError(f"{len(changes)} changes in one write: at most {self.chunk}")
        refused, alike = {}, defaultdict(list)
        for change in changes:
            stored = stored_id(change.id, self._settings.id_type)
            reason = self.refuses(change.wanted) or self.refuses(change.expected)
            if reason:
                refused[change.id] = reason
            elif stored is not None:  # what cannot be an id there matches nothing there
                alike[change.expected, change.wanted].append((stored, change))
        with self._explaining("write to"):
            # Where two records can have one id, a count could not tell who of several was written.
            groups = list(alike.values()) if self._ids_are_unique() else _singly(alike)
            written = self._write(groups, stamp)
            untried = [change for group in written.stopped for _, change in group]
            if untried:  # in the middle of a group that a rule stopped; each by itself, after a fresh look
                held = self.read([change.id for change in untried], stamp.run)
                left = [
                    [(stored, change)]
                    for group in written.stopped
                    for stored, change in group
                    if (there := held.get(change.id)) and there.label == change.expected and not there.ours
                ]
                again = self._write(left, stamp)
                return Written(written.done + again.done, {**refused, **written.refused, **again.refused})
        return Written(written.done, {**refused, **written.refused})

    def _write(self, groups: Sequence[_Group], stamp: Stamp) -> _Answer:
        """One command, with one update for each group of changes that are alike."""
        if not groups:
            return _Answer(0, {}, [])
        updates = [self._update([stored for stored, _ in group], group[0][1], stamp) for group in groups]
        try:
            return _Answer(self._records.bulk_write(updates, ordered=False).matched_count, {}, [])
        except BulkWriteError as error:
            return self._partly(error, groups)

    def _ids_are_unique(self) -> bool:
        """Whether the collection itself sees to it that no two records have one id; asked once."""
        if self._unique is None:
            try:
                indexes = list(self._records.index_information().values())
            except OperationFailure:  # this user may not look
                indexes = []
            self._unique = self._settings.id == "_id" or any(
                index["key"] == [(self._settings.id, 1)]
                and index.get("unique", False)
                and "partialFilterExpression" not in index
                for index in indexes
            )
        return self._unique

    def _update(self, stored: Sequence[Any], change: Change, stamp: Stamp) -> UpdateOne | UpdateMany:
        settings = self._settings
        values: dict[str, Any] = {settings.label: change.wanted} if change.wanted else {}
        if settings.modified:
            values[settings.modified] = stamp.at
        if settings.modified_by:
            # Never left at the name of whoever wrote before; a rule may ask for a text.
            values[settings.modified_by] = stamp.by or "fiftyone"
        update: dict[str, Any] = {"$set": values} if values else {}
        if not change.wanted:
            update["$unset"] = {settings.label: ""}
        label = {"$eq": change.expected} if change.expected else {"$in": ["", None]}
        ids = {"$eq": stored[0]} if len(stored) == 1 else {"$in": list(stored)}
        condition = {**only(settings.id, ids), **only(settings.label, label)}
        if settings.history:
            # A write of a run that hung until others took over and wrote here must not arrive any more, though the
            # label may be the expected one again: somebody put it back.
            later = {"at": {"$gt": stamp.at}, "run": {"$type": "string"}}
            condition[settings.history] = {"$not": {"$elemMatch": later}}
            entry = {"from": change.expected, "to": change.wanted, "by": stamp.by, "at": stamp.at, "run": stamp.run}
            update["$push"] = {settings.history: entry}
        kind = UpdateOne if len(stored) == 1 else UpdateMany
        return kind(condition, update, collation=_EXACT)

    def _partly(self, error: BulkWriteError, groups: Sequence[_Group]) -> _Answer:
        """What a command did of which the server made some writes and not others."""
        details = error.details
        if details.get("writeConcernErrors"):
            raise self._unknown("no majority of its servers confirmed the write in time") from error
        answer = _Answer(details.get("nMatched", 0), {}, [])
        for failure in details.get("writeErrors", []):
            if failure["code"] in _PASSING:
                raise self._unknown(_short(failure.get("errmsg", ""))) from error
            group = groups[failure["index"]]
            if len(group) > 1:
                answer.stopped.append(group)
                continue
            said = _short(failure.get("errmsg", "")) or f"code {failure['code']}"
            reason = "a rule of the collection (its validator) forbids it" if failure["code"] == _RULE else said
            answer.refused[group[0][1].id] = reason
        return answer

    def check(self, writing: bool = True) -> str:
        """Reads a few records, the indexes and the user's rights; see `Store.check`."""
        settings = self._settings
        with self._explaining("read"):
            listed = self._db.list_collections(nameOnly=True, authorizedCollections=True)
            kinds = {each["name"]: each.get("type") for each in listed}
            if settings.collection not in kinds:
                raise settings.no_collection(kinds)
            if kinds[settings.collection] == "view":
                raise StorageError(f"{self.name} is a view, which cannot be written: name the collection behind it.")
            few = list(self._records.find({}, {settings.id: 1, settings.label: 1}).limit(20))
            about = self._records.estimated_document_count()
            indexed = settings.id == "_id" or any(
                index["key"][0][0] == settings.id for index in self._records.index_information().values()
            )
            if writing:
                self._check_rights()
        with_id = sum(at(record, settings.id) is not None for record in few)
        if few and not with_id:
            raise StorageError(
                f"None of the first {len(few)} records of {self.name} has an id at {settings.id!r}: "
                "correct the key `id` of MBARI_LABEL_STORE."
            )
        with_label = sum(isinstance(at(record, settings.label), str) for record in few)
        if few and not with_label:
            raise StorageError(
                f"None of the first {len(few)} records of {self.name} has a label at {settings.label!r}: unless none "
                "is labelled yet, correct the key `label` of MBARI_LABEL_STORE."
            )
        line = f"{self.name}: about {about:,} records"
        if few:
            line += f"; of the first {len(few)}, {with_id} have an id and {with_label} a label"
        if not indexed:
            line += f"; no index on {settings.id!r}: without one, every write searches the whole collection"
        return line

    def _check_rights(self) -> None:
        """StorageError if the server says that this user may not write; it asks, and writes nothing."""
        rights = self._db.command("connectionStatus", showPrivileges=True).get("authInfo", {})
        if not rights.get("authenticatedUsers"):
            return  # a server without access control
        for privilege in rights.get("authenticatedUserPrivileges", []):
            resource = privilege["resource"]
            here = resource.get("anyResource") or (
                resource.get("db") in ("", self._settings.database)
                and resource.get("collection") in ("", self._settings.collection)
            )
            if here and "update" in privilege["actions"]:
                return
        raise self._denied("write to")

    @contextmanager
    def _explaining(self, doing: str) -> Iterator[None]:
        """Bounds what is done inside in time, and turns pymongo's errors into ours."""
        try:
            self._greet()
            with pymongo.timeout(self._seconds):
                yield
        except ConnectionFailure as error:
            raise self._unknown(_short(str(error))) from error
        except OperationFailure as error:
            if error.code in _LOGIN:
                raise StorageError(
                    f"The label store {self.name} does not let the user of MBARI_LABEL_STORE in: the name, the "
                    "password or `authSource` is wrong, or the account has expired; ask its admin."
                ) from error
            if error.code in _DENIED:
                raise self._denied(doing) from error
            if error.code in _MALFORMED:
                said = _short(str(error))
                raise StorageError(f"The label store {self.name} cannot do what it was asked: {said}") from error
            raise self._unknown(_short(str(error))) from error
        except (PyMongoError, BSONError) as error:
            raise StorageError(f"It was not possible to {doing} the label store {self.name}: {error}") from error

    def _greet(self) -> None:
        """Finds the server, once: that one is down is known after the time for choosing one, not for a whole answer."""
        if not self._greeted:
            with pymongo.timeout(self._patience):
                self._client.admin.command("ping")
            self._greeted = True

    def _unknown(self, why: str) -> Unreachable:
        return Unreachable(f"The label store {self.name} gave no answer ({why}); try again when it can be reached.")

    def _denied(self, doing: str) -> StorageError:
        return StorageError(
            f"The user of MBARI_LABEL_STORE may not {doing} {self.name}: correct the names in the secret, or have its "
            f"admin grant find, update and listIndexes on the collection {self._settings.collection!r} of "
            f"{self._settings.database!r}."
        )


def _singly(alike: Mapping[Any, _Group]) -> list[_Group]:
    return [[one] for group in alike.values() for one in group]


def _short(message: str) -> str:
    """What a person needs of an error of pymongo's: not the topology, not the whole answer."""
    message = re.split(r" \(configured timeouts|, Timeout: |, full error: |, Topology Description: ", message)[0]
    return message if len(message) <= 200 else f"{message[:197]}..."
