"""Focus lists of evaluations, kept beside the version they are about (see `dated`); the newest is on its card."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from ..artifacts import Artifacts
from ..wording import many
from . import dated
from .markdown import inline

_KIND = "focus"


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


class FocusList(dated.Dated):
    """What an evaluation found."""

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


def add(root: Artifacts, name: str, found: FocusList) -> str:
    """Stores a focus list beside the version `<model>/<version>`; returns where it lies.

    Raises:
        StorageError: the root cannot be written
    """
    return dated.add(root, _KIND, name, found)


def newest(root: Artifacts, name: str) -> FocusList | None:
    """The newest focus list of a version that can be read; None where there is none.

    Raises:
        StorageError: the root cannot be read
    """
    for key in reversed(keys(root, name)):
        try:
            if (data := dated.read(root, key)) is not None:
                return FocusList.model_validate_json(data)
        except ValidationError:
            continue  # damaged, or of a newer suite: the one before says more than nothing
    return None


def keys(root: Artifacts, name: str) -> list[str]:
    """Where the focus lists of a version lie, oldest first; cheaper than `newest` to see whether there is a new one."""
    return dated.keys(root, _KIND, name)


def markdown(found: FocusList) -> str:
    """A section of a card: what to look into first, by what could be won."""
    lines = [f"{item.number}. {inline(item.name)} ({item.count:,}): {inline(item.sentence)}" for item in found.items]
    return "\n".join(
        [
            "## Where to look",
            "",
            f"From {found.at:%d %B %Y}, on {many(found.evaluated, 'labelled ROI')} of {inline(found.dataset)} that it "
            f"was not trained on: top-1 {found.top1:.3f}, macro F1 {found.macro_f1:.3f}. The most that could be won "
            "comes first.",
            "",
            *(lines or ["Nothing stands out."]),
        ]
    )
