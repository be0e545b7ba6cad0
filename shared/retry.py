"""Patience with FiftyOne's own database: one that is away for seconds (restarted, failing over) ends no run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError, WriteConcernError

from .errors import StorageError

T = TypeVar("T")

PATIENCE = 60.0  # seconds for which a database may be away before a run gives up
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two tries


def persist(call: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Returns what `call` returns, calling it again while FiftyOne's database is away.

    An answer that got lost is a call that took effect, so `call` must be safe to make twice: writes that set
    values, inserts with an id of their own.

    Args:
        call: reads or writes FiftyOne's database
        seconds: no new try begins after this time; the first is always made

    Raises:
        StorageError: the database stayed away
    """
    began, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            return call()
        except PyMongoError as error:
            if not is_away(error):
                raise
            waited = time.monotonic() - began
            if waited + pause > seconds:
                raise StorageError(
                    f"FiftyOne's database has not answered for {max(waited, 1):.0f} s ({type(error).__name__}): see "
                    "that its MongoDB runs and can be reached, then start this again."
                ) from error
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def is_away(error: PyMongoError) -> bool:
    """Whether a database error passes by itself: no connection, no primary, no answer or no majority in time."""
    if isinstance(error, BulkWriteError):
        return not error.details.get("writeErrors") and bool(error.details.get("writeConcernErrors"))
    return isinstance(error, ConnectionFailure | WriteConcernError) or error.timeout
