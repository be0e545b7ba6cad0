"""The last verdict on each version's training data, kept for those who look at many versions at once.

One collection of FiftyOne's database: `mbari_freshness`, _id "<model>/<version>", then the fields of `Freshness`.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pymongo.database import Database

from .registry import Time

COLLECTION = "mbari_freshness"

logger = logging.getLogger(__name__)


class Freshness(BaseModel):
    """What was found when somebody last looked at the training data of a version."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    verdict: Literal["fresh", "ageing", "stale"]
    rule: str  # the verdict with its figures, as a sentence
    counts: dict[str, int | str]  # ROIs by what became of them; "not checked" where that was not looked at
    at: Time
    by: str | None = None


def save(db: Database, name: str, verdict: str, rule: str, counts: Mapping[str, Any], by: str | None) -> Freshness:
    """Keeps the verdict on a version, in place of an earlier one.

    Args:
        db: FiftyOne's database
        name: `<model>/<version>`
        verdict: as `drift.Drift` gives it, like the next two
        rule: see there
        counts: see there
        by: who looked
    """
    found = Freshness.model_validate(
        {"verdict": verdict, "rule": rule, "counts": dict(counts), "at": datetime.now(UTC), "by": by}
    )
    db[COLLECTION].replace_one({"_id": name}, found.model_dump(), upsert=True)
    return found


def read(db: Database, names: Iterable[str]) -> dict[str, Freshness]:
    """The last verdicts on these versions, by name; a version that nobody looked at, or one in vain, is not in it."""
    verdicts = {}
    for entry in db[COLLECTION].find({"_id": {"$in": list(names)}}):
        try:
            verdicts[entry["_id"]] = Freshness.model_validate(entry)
        except ValidationError:
            logger.warning("What is known of the training data of %s cannot be read; look at it again.", entry["_id"])
    return verdicts
