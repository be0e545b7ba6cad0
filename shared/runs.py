"""What a long job tells the person who waits for it, and how it learns that it should stop.

`Monitor` is all that the work knows: report progress, ask whether to stop. By itself it does
nothing, so that the work runs in a notebook or a test. `Run` is the monitor of an operator: it
keeps a record in the database, because FiftyOne drops the result of a run that fails.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import InputError, SuiteError
from .retry import persist

if TYPE_CHECKING:
    from pymongo.database import Database

COLLECTION = "mbari_runs"

SHOW_EVERY = 1.0  # seconds between two progress labels
BEAT_EVERY = 2.0  # seconds between two signs of life; each also asks whether to stop
LOST_AFTER = 60.0  # seconds without a sign of life after which a run counts as lost

logger = logging.getLogger(__name__)


class Monitor:
    """The view that a piece of work has of whoever started it; this base is silent."""

    @property
    def id(self) -> str | None:
        """The id of the run's record, where there is one."""
        return None

    def progress(self, done: int, total: int, what: str) -> None:
        """Reports that `done` of `total` units of `what` (such as "Reading ROIs") are finished.

        Cheap: call it as often as convenient, implementations throttle.
        """

    def stopping(self) -> bool:
        """Whether the work should end at its next safe point, keeping what it has."""
        return False


class Run(Monitor):
    """One execution of an operator and its record in the collection `mbari_runs`.

    Args:
        db: the database the record lives in
        operator: the operator's URI
        name: what a person calls this run, such as "Train ptvr on 1,144 ROIs"
        params: the run's parameters, without secrets
        dataset: the dataset's name, or None
        by: who started it, or None
        operation: the id of FiftyOne's delegated operation, or None
        show: takes a fraction (0 to 1) and a label for the person who waits
        cancelled: says whether FiftyOne's own operation was marked failed from outside
    """

    def __init__(
        self,
        db: Database,
        operator: str,
        name: str,
        params: Mapping[str, Any],
        *,
        dataset: str | None = None,
        by: str | None = None,
        operation: str | None = None,
        show: Callable[[float, str], None] = lambda fraction, label: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runs = db[COLLECTION]
        self._show = show
        self._cancelled = cancelled
        self._began = time.monotonic()
        self._shown = 0.0
        self._stage: tuple[int, float, int] | None = None  # total, when it began, done at that time
        self._latest: dict[str, Any] = {}
        self.stop_reason: str | None = None
        now = _now()
        record = {
            "operator": operator,
            "name": name,
            "params": dict(params),
            "dataset": dataset,
            "by": by,
            "operation": operation,
            "state": "running",
            "started_at": now,
            "alive_at": now,
        }
        self._id = self._runs.insert_one(record).inserted_id
        # A thread of its own, so that a run shows life, and hears that it should stop, whatever its
        # work is busy with. A killed process takes it along: silence means death.
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name=f"run-{self._id}", daemon=True).start()

    @property
    def id(self) -> str:
        """The id of the run's record."""
        return str(self._id)

    def progress(self, done: int, total: int, what: str) -> None:
        """Shows what is being done, how far it is and how long it will still take."""
        now = time.monotonic()
        if self._stage is None or self._stage[0] != total or done < self._stage[2]:
            self._stage = (total, now, done)
        self._latest = {"done": done, "total": total, "what": what}
        if now - self._shown < SHOW_EVERY and done < total:
            return
        self._shown = now
        self._show(min(done / total, 1.0) if total else 0.0, self._label(done, total, what, now))

    def _label(self, done: int, total: int, what: str, now: float) -> str:
        label = f"{what}: {done:,} of {total:,}" if total else what
        _, began, before = self._stage or (0, now, 0)
        seconds, units = now - began, done - before
        if seconds > 3 and units > 0 and done < total:
            label += f", about {duration(seconds / units * (total - done))} left"
        return label

    def stopping(self) -> bool:
        """Whether `stop_run` asked for an end or the delegated operation was marked failed."""
        return self.stop_reason is not None

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_EVERY):
            try:
                self._ask()
            except Exception as error:  # a database that is away for a while is no reason to end a run
                logger.warning("Could not update the record of run %s: %s", self._id, error)

    def _ask(self) -> None:
        signs = {"alive_at": _now(), "progress": self._latest}
        record = self._runs.find_one_and_update({"_id": self._id}, {"$set": signs}, {"stop": 1})
        if self.stop_reason is not None:
            return
        if record and record.get("stop"):
            self.stop_reason = f"stopped by {record['stop'].get('by') or 'a person'}"
        elif self._cancelled():
            self.stop_reason = "its delegated operation was marked as failed"

    def keep(self, what: Mapping[str, Any]) -> None:
        """Keeps things by name in the run's record, at once, for a run that goes on where this one may end."""
        changes = {f"kept.{name}": value for name, value in what.items()}
        if changes:
            persist(lambda: self._runs.update_one({"_id": self._id}, {"$set": changes}))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Records the outcome: completed, or stopped when somebody asked for that."""
        self._end("completed" if self.stop_reason is None else "stopped", result=dict(result))

    def fail(self, error: BaseException) -> None:
        """Records why the run failed: one sentence for our own errors, else with a traceback."""
        own = isinstance(error, SuiteError)
        message = str(error) if own else f"{type(error).__name__}: {error}"
        trace = None if own else "".join(traceback.format_exception(error))
        self._end("failed", error={"message": message, "traceback": trace})

    def _end(self, state: str, **outcome: Any) -> None:
        self._ended.set()
        seconds = round(time.monotonic() - self._began, 3)
        changes = {"state": state, "finished_at": _now(), "seconds": seconds, **outcome}
        persist(lambda: self._runs.update_one({"_id": self._id}, {"$set": changes}))  # the account must not be lost


def request_stop(db: Database, run: str, by: str | None) -> dict[str, Any]:
    """Asks a running run to end at its next safe point.

    Returns:
        the run's record, with `lost` as in `running`

    Raises:
        InputError: if there is no such run, or it is not running
    """
    from bson import ObjectId

    runs = db[COLLECTION]
    known = ObjectId.is_valid(run) and runs.find_one({"_id": ObjectId(run)})
    if not known:
        raise InputError(f"There is no run {run!r}; choose one of the running ones in the form.")
    asked = {"$set": {"stop": {"by": by, "at": _now()}}}
    record = runs.find_one_and_update({"_id": known["_id"], "state": "running"}, asked)
    if record is None:
        raise InputError(f"The run {known['name']!r} is not running: it is {known['state']}.")
    return {**record, "lost": _lost(record)}


def claim(db: Database, run: str, key: str, watch: float = 10 * BEAT_EVERY) -> None:
    """Says that this run works on `key` too, unless an older run that is alive does.

    The record of a killed run goes on saying "running", so another run counts as alive only if it gives
    a fresh sign of life while this one watches.

    Raises:
        InputError: another run works on the same thing
    """
    from bson import ObjectId

    runs, mine = db[COLLECTION], ObjectId(run)
    runs.update_one({"_id": mine}, {"$addToSet": {"keys": key}})
    # Both of two runs that start together write first and look then: the younger one gives way.
    older = {"keys": key, "state": "running", "_id": {"$lt": mine}}
    until = time.monotonic() + watch
    before = {r["_id"]: r["alive_at"] for r in runs.find(older, {"alive_at": 1})}
    fresh = _now() - timedelta(seconds=LOST_AFTER)
    while any(alive_at > fresh for alive_at in before.values()) and time.monotonic() < until:
        time.sleep(BEAT_EVERY / 2)
        for record in runs.find(older, {"alive_at": 1, "name": 1}):
            if record["alive_at"] > before.get(record["_id"], _now()):
                raise InputError(
                    f"The same is being done already by the run {record['name']!r} ({record['_id']}); wait for it, "
                    "or end it with the operator 'Stop a run'."
                )


def left_by(db: Database, run: str, key: str) -> dict[str, Any]:
    """What runs before this one kept of the same work, if none has completed it since; see `claim`.

    A run that ended before it had kept anything, or that was refused, is passed over.
    """
    from bson import ObjectId

    telling = {"$or": [{"state": "completed"}, {"kept": {"$exists": True}}]}
    earlier = db[COLLECTION].find({"keys": key, "_id": {"$lt": ObjectId(run)}, **telling}, {"state": 1, "kept": 1})
    last = next(iter(earlier.sort("_id", -1).limit(1)), None)
    return last.get("kept", {}) if last and last["state"] != "completed" else {}


def running(db: Database) -> list[dict[str, Any]]:
    """The records of runs under way, newest first; each gets `lost`: it gave no sign of life for long."""
    records = list(db[COLLECTION].find({"state": "running"}).sort("started_at", -1).limit(100))
    for record in records:
        record["lost"] = _lost(record)
    return records


def _lost(record: Mapping[str, Any]) -> bool:
    return (_now() - record["alive_at"]).total_seconds() > LOST_AFTER


def duration(seconds: float) -> str:
    """A length of time as a person says it, such as "40 s", "3 min" or "2.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _now() -> datetime:
    # MongoDB hands back naive times in UTC; keep to the same, so that they compare.
    return datetime.now(UTC).replace(tzinfo=None)
