"""The suite's runs as rows for people: what, on what, by whom, outcome, duration, cost; see `runs`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .runs import COLLECTION, LOST_AFTER, duration

if TYPE_CHECKING:
    from pymongo.database import Database

LOST = "lost"  # said to be running, and gave no sign of life for long
LONGEST = 120  # characters of an error that a row shows
_SHOWN = {"params": 0, "result": 0, "error.traceback": 0, "kept": 0}


def find(
    db: Database,
    since: datetime,
    now: datetime,
    *,
    operator: str | None = None,
    state: str | None = None,
    dataset: str | None = None,
    most: int = 300,
) -> tuple[list[dict[str, Any]], int]:
    """Records of runs, newest first.

    Args:
        db: FiftyOne's database
        since: runs that began before this are left out; naive UTC, like `now`
        now: what running ones are held against
        operator: only those of this one, by its name or its whole URI
        state: only "running", "completed", "stopped", "failed" or "lost" ones
        dataset: only those on this one, by name
        most: so many records at most

    Returns:
        the records, each with `state` also saying that a run is lost, and how many runs there are without `most`
    """
    asked: dict[str, Any] = {"started_at": {"$gte": since}}
    if operator:
        asked["operator"] = {"$in": [uri for uri in db[COLLECTION].distinct("operator") if _means(operator, uri)]}
    if dataset:
        asked["dataset"] = dataset
    alive = now - timedelta(seconds=LOST_AFTER)
    if state in ("running", LOST):
        asked |= {"state": "running", "alive_at": {"$lt": alive} if state == LOST else {"$gte": alive}}
    elif state:
        asked["state"] = state
    records = list(db[COLLECTION].find(asked, _SHOWN).sort("started_at", -1).limit(most))
    for record in records:
        if record["state"] == "running" and record["alive_at"] < alive:
            record["state"] = LOST
    return records, db[COLLECTION].count_documents(asked)


def known(db: Database) -> tuple[list[str], list[str]]:
    """The names of the operators, and of the datasets, that there are runs of, sorted."""
    runs = db[COLLECTION]
    operators = {uri.rpartition("/")[2] for uri in runs.distinct("operator")}
    return sorted(operators), sorted(name for name in runs.distinct("dataset") if name)


def row(record: Mapping[str, Any], now: datetime, price: float | None) -> dict[str, Any]:
    """A record as a row of a table.

    Args:
        record: as `find` gives it
        now: naive UTC
        price: of an hour of a worker; None leaves the cost out. What ran at once cost no worker, and has none.
    """
    seconds = lasted(record, now)
    error = " ".join(str((record.get("error") or {}).get("message") or "").split())
    told = {
        "started": f"{record['started_at']:%Y-%m-%d %H:%M}",
        "what": record["name"],
        "outcome": record["state"],
        "took": f"{duration(seconds)}{' so far' if record['state'] == 'running' else ''}",
    }
    if price is not None:
        told["cost"] = cost(record, now, price)
    return {
        **told,
        "why": error if len(error) <= LONGEST else f"{error[: LONGEST - 1]}…",
        "dataset": record.get("dataset"),
        "by": record.get("by"),
        "operator": record["operator"].rpartition("/")[2],
        "run": str(record["_id"]),
    }


def lasted(record: Mapping[str, Any], now: datetime) -> float:
    """How many seconds a run took; of one under way, until now; of a lost one, until its last sign of life."""
    if isinstance(record.get("seconds"), int | float):
        return float(record["seconds"])
    end = record["alive_at"] if record["state"] == LOST else now
    return max((end - record["started_at"]).total_seconds(), 0.0)


def cost(record: Mapping[str, Any], now: datetime, price: float) -> float | None:
    """What the worker cost; None for a run that was executed at once, in the App's own process."""
    return round(lasted(record, now) / 3600 * price, 2) if record.get("operation") else None


def price_per_hour(secret: str | None) -> float | None:
    """The value of the secret `MBARI_PRICE_PER_HOUR`, None where it is not set; InputError where it is no price."""
    if not secret:
        return None
    try:
        price = float(secret)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise InputError("The secret MBARI_PRICE_PER_HOUR is no price: set it to a number such as 1.20, or remove it.")
    return price


def _means(name: str, uri: str) -> bool:
    return name in (uri, uri.rpartition("/")[2])
