"""Dated objects kept beside a model version: one object each, added and never changed.

They lie at `<kind>/<model>/<version>/<time>_<8 hex>.json` below the artifact root. A version itself is immutable, and
two people who add something at once add two objects.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from ..artifacts import Artifacts, scratch

_NAME = re.compile(r"\d{8}T\d{12}_[0-9a-f]{8}\.json")
_TIME = "%Y%m%dT%H%M%S%f"


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class Dated(BaseModel):
    """What was said at one time, and by whom; a naive time is UTC."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer suite may have written more

    at: Annotated[datetime, AfterValidator(_utc)]
    by: str | None = None


def folder(kind: str, name: str) -> str:
    """Where the objects of a kind beside the version `<model>/<version>` lie, below the artifact root."""
    return f"{kind}/{name}"


def add(root: Artifacts, kind: str, name: str, what: Dated) -> str:
    """Stores an object beside those that are there; returns where it lies.

    Args:
        root: the artifact root
        kind: of the object, the first folder
        name: `<model>/<version>`
        what: the object

    Raises:
        StorageError: the root cannot be written
    """
    key = f"{folder(kind, name)}/{what.at:{_TIME}}_{secrets.token_hex(4)}.json"
    with scratch("dated-") as local:
        path = local / "object.json"
        path.write_text(what.model_dump_json(indent=1), encoding="utf-8")
        root.put(key, path)
    return root.uri(key)


def keys(root: Artifacts, kind: str, name: str) -> list[str]:
    """Where the objects of a kind lie, oldest first; cheaper than `read` to see whether there are new ones.

    Raises:
        StorageError: the root cannot be read
    """
    return sorted(key for key in root.list(folder(kind, name)) if _NAME.fullmatch(key.rpartition("/")[2]))


def read(root: Artifacts, key: str) -> bytes | None:
    """The bytes of an object; None where somebody has removed it meanwhile.

    Raises:
        StorageError: the root cannot be read
    """
    with scratch("dated-") as local:
        path = local / Path(key).name
        return path.read_bytes() if root.get(key, path) else None


def time_of(key: str) -> datetime:
    """When an object was added, by its name."""
    return datetime.strptime(Path(key).name[:21], _TIME).replace(tzinfo=UTC)
