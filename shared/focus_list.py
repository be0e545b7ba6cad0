"""The focus list of an evaluation, kept beside the model version that it is about: one object a time, never changed.

They lie at `focus/<model>/<version>/<time>_<8 hex>.json` below the artifact root; the newest one is on the card.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from .artifacts import Artifacts, scratch

_NAME = re.compile(r"\d{8}T\d{12}_[0-9a-f]{8}\.json")
_TIME = "%Y%m%dT%H%M%S%f"
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#])")


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class FocusItem(BaseModel):
    """One thing to look into; see `review.focus.Item`."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer suite may have written more

    number: int
    kind: str
    name: str
    sentence: str
    count: int
    labels: float
    top1: float
    macro_f1: float
    p: float | None = None


class FocusList(BaseModel):
    """What an evaluation found."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: Annotated[datetime, AfterValidator(_utc)]
    by: str | None = None
    dataset: str
    dataset_id: str
    label_field: str
    prediction_field: str
    eval_key: str
    evaluated: int
    learned_from: int
    top1: float
    macro_f1: float
    remarks: Sequence[str] = ()
    items: Sequence[FocusItem] = ()


def folder(name: str) -> str:
    """Where the focus lists of the version `<model>/<version>` lie, below the artifact root."""
    return f"focus/{name}"


def add(root: Artifacts, name: str, found: FocusList) -> str:
    """Stores a focus list beside a version; returns where it lies.

    Args:
        root: the artifact root
        name: `<model>/<version>`
        found: what to store

    Raises:
        StorageError: the root cannot be written
    """
    key = f"{folder(name)}/{found.at:{_TIME}}_{secrets.token_hex(4)}.json"
    with scratch("focus-") as local:
        path = local / "focus.json"
        path.write_text(found.model_dump_json(indent=1), encoding="utf-8")
        root.put(key, path)
    return root.uri(key)


def newest(root: Artifacts, name: str) -> FocusList | None:
    """The newest focus list of a version that can be read; None where there is none.

    Raises:
        StorageError: the root cannot be read
    """
    with scratch("focus-") as local:
        for key in sorted(keys(root, name), reverse=True):
            path = local / Path(key).name
            if root.get(key, path):
                try:
                    return FocusList.model_validate_json(path.read_bytes())
                except ValidationError:
                    continue  # damaged, or of a newer suite: the one before says more than nothing
    return None


def keys(root: Artifacts, name: str) -> list[str]:
    """Where the focus lists of a version lie, one by one; cheaper than `newest` to see whether there is a new one."""
    return [key for key in root.list(folder(name)) if _NAME.fullmatch(key.rpartition("/")[2])]


def markdown(found: FocusList) -> str:
    """A section of a card: what to look into first, by what could be won."""
    lines = [
        "## Where to look",
        "",
        f"From {found.at:%d %B %Y}, on {found.evaluated:,} labelled ROIs of {_plain(found.dataset)} that it was not "
        f"trained on: top-1 {found.top1:.3f}, macro F1 {found.macro_f1:.3f}. The most that could be won comes first.",
        "",
    ]
    if not found.items:
        lines.append("Nothing stands out.")
    lines += [f"{item.number}. {_plain(item.name)} ({item.count:,}): {_plain(item.sentence)}" for item in found.items]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
