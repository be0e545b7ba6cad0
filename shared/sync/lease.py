"""The lease on a label store: one document in FiftyOne's own database says which run may write, and until when."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import pymongo
from pymongo import ReturnDocument, WriteConcern
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from ..errors import InputError, StorageError
from ..retry import persist

LEASES = "mbari_leases"

ANSWER = 20.0  # seconds for one answer of FiftyOne's database; a network that swallows packets says nothing at all

# Known by a majority and on disk before anything relies on it.
DURABLE = WriteConcern(w="majority", j=True)

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Lease:
    """The right to write to one store: of several runs one has it, and it ends by itself when that run dies.

    Whether it has run out is judged by the database server's clock alone. A thread renews it until the context
    ends. `confirm` right before a write says that it still holds.

    Args:
        db: FiftyOne's own database
        key: what it is for: the store's name
        owner: the run that asks, as its message to others names it
        seconds: how long it outlives an owner that renews it no more
    """

    def __init__(self, db: Database, key: str, owner: str, seconds: float = 30.0) -> None:
        self._leases = db.get_collection(LEASES, write_concern=DURABLE)
        self._key, self._owner, self._seconds = key, owner, seconds
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        return self if self._thread else self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self, patience: float = 60.0) -> Lease:
        """Takes the lease and keeps it; to be used as the context, or ended with `release`.

        Args:
            patience: seconds to wait for a lease that its owner, dead perhaps, does not renew

        Raises:
            InputError: another run has it and is alive, or has not let go in time
        """
        until = time.monotonic() + patience
        seen: tuple[str, int] | None = None
        while True:
            held = ask(self._take)
            if held["token"] == self._token:
                break
            sign = (held["token"], held["beat"])
            if (seen is not None and sign != seen) or time.monotonic() >= until:
                raise InputError(
                    f'The run "{held["owner"]}" is sending labels to the same store; wait for it, or end it with the '
                    "operator 'Stop a run'."
                )
            seen = sign
            time.sleep(min(0.5, self._seconds / 10))
        self._ended.clear()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{self._token[:8]}", daemon=True)
        self._thread.start()
        return self

    def confirm(self) -> None:
        """Makes sure that the lease is ours and holds for its full time from now; StorageError if it is lost."""
        if not ask(self._renew):
            raise StorageError(
                "Another run has taken over sending labels to this store, because this one gave no sign of life for "
                "too long: see what that run does, then start this again."
            )

    def release(self) -> None:
        """Ends the renewal and lets others have the lease; safe to call twice."""
        self._ended.set()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        try:
            with pymongo.timeout(ANSWER):
                self._leases.delete_one({"_id": {"$eq": self._key}, "token": self._token})
        except PyMongoError as error:  # it runs out by itself
            logger.warning("Could not give back the lease of run %s: %s", self._owner, type(error).__name__)

    def _take(self) -> Mapping[str, Any]:
        """Takes the lease if it is free, in one atomic step; returns it as it is then, whoever has it."""
        free = {"$or": [{"$lte": [{"$ifNull": ["$until", "$$NOW"]}, "$$NOW"]}, {"$eq": ["$token", self._token]}]}
        mine = {
            "owner": {"$literal": self._owner},
            "token": self._token,
            "beat": {"$literal": 0},
            "until": {"$add": ["$$NOW", round(self._seconds * 1000)]},
        }
        update = [{"$set": {name: {"$cond": [free, value, f"${name}"]} for name, value in mine.items()}}]
        while True:
            try:
                return self._leases.find_one_and_update(
                    {"_id": {"$eq": self._key}}, update, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # somebody inserted it at the same moment
                continue

    def _renew(self) -> bool:
        """Extends the lease if nobody else has taken it, in one atomic step; whether it is ours."""
        later = {"until": {"$add": ["$$NOW", round(self._seconds * 1000)]}, "beat": {"$add": ["$beat", 1]}}
        which = {"_id": {"$eq": self._key}, "token": self._token}
        return self._leases.update_one(which, [{"$set": later}]).matched_count == 1

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            try:
                with pymongo.timeout(self._seconds / 3):
                    if not self._renew():
                        return  # `confirm` says so to whoever is about to write
            except Exception as error:  # away for a while perhaps: try again, and let `confirm` judge
                logger.warning("Could not renew the lease of run %s: %s", self._owner, type(error).__name__)


def ask(call: Callable[[], T]) -> T:
    """One request to FiftyOne's database that is safe to repeat, each answer bounded in time."""

    def bounded() -> T:
        with pymongo.timeout(ANSWER):
            return call()

    try:
        return persist(bounded)
    except OperationFailure as error:
        why = (error.details or {}).get("errmsg") or type(error).__name__
        raise StorageError(
            f"FiftyOne's database refuses to keep the journal of sent labels ({why}): see that it has disk space, "
            "and that its user may read and write there."
        ) from error
