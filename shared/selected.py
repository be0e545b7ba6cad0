"""The door to what was chosen for review in a FiftyOne dataset: its tags, reasons and saved views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
from fiftyone import ViewField
from fiftyone.core.collections import SampleCollection

from . import samples
from .review.select import KINDS

TAG = "review"  # of the samples that a person should look at
DONE = "reviewed"  # of those that a person has looked at
REASON = "review_reason"  # the field that says why: the kind, a colon, and more
INFO = "mbari_review"  # the key of that field's info: which predictions were chosen from
VIEWS = "review: "  # how the names of the suite's saved views begin
SAID = "Made by the suite; each selection replaces it"
UNLABELLED = "Only unlabelled"  # the box of the form
UNTICK = f"untick {UNLABELLED!r} to choose among those as well"


def refusal(dataset: fo.Dataset) -> str | None:
    """Why a selection must not be written, if it must not."""
    found = dataset.get_field(REASON)
    if found is not None and INFO not in (found.info or {}):
        return f"The field {REASON!r} exists and no selection of this suite made it: rename it."
    needed = {fou.to_slug(f"{VIEWS}{what}") for what in ("all", *KINDS)}
    for saved in dataset._doc.get_saved_views():
        if saved.slug in needed and saved.description != SAID:
            return f"The saved view {saved.name!r} is none of this suite's, which needs that name: rename it."
    return None


def goes_on(dataset: fo.Dataset, predictions: str, confident: float) -> bool:
    """Whether the last selection was made from the same predictions, with no higher bound of confidence."""
    made = last(dataset)
    return made.get("model") == _model(dataset, predictions) and made.get("confident", 2) <= confident


def last(dataset: fo.Dataset) -> Mapping[str, Any]:
    """What is known of the selection that the dataset has; empty where there is none."""
    found = dataset.get_field(REASON)
    return {} if found is None else (found.info or {}).get(INFO) or {}


def reviewed(dataset: fo.Dataset, kind: str) -> SampleCollection:
    """The samples that were chosen for a kind of reason, and that a person has looked at."""
    return dataset.match_tags(DONE).match(ViewField(REASON).starts_with(f"{kind}: "))


def write(
    dataset: fo.Dataset, predictions: str, confident: float, reasons: Mapping[str, str], kinds: Sequence[str]
) -> list[str]:
    """Tags what was chosen and says why, in place of the last selection.

    The reasons of what a person has looked at stay as long as the predictions are the same: they say which were drawn
    at random.

    Args:
        dataset: the dataset
        predictions: the field that was chosen from
        confident: the bound of confidence
        reasons: why each sample was chosen, by its id
        kinds: the kinds of reasons, each of which gets a view

    Returns:
        the names of the saved views, that of all first
    """
    keep = set(dataset.match_tags(DONE).values("id")) if goes_on(dataset, predictions, confident) else set()
    before = dataset.exists(REASON).values("id") if dataset.has_sample_field(REASON) else []
    samples.set_tags(dataset, before, [None] * len(before), (TAG,))
    others = [identity for identity in before if identity not in keep]
    samples.write_values(dataset, REASON, others, [None] * len(others))
    samples.write_values(dataset, REASON, list(reasons), list(reasons.values()))
    samples.set_tags(dataset, list(reasons), [TAG] * len(reasons), (TAG,))
    field = dataset.get_field(REASON)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    field.info = {INFO: {"model": _model(dataset, predictions), "field": predictions, "confident": confident, "at": at}}
    field.save()
    return _save_views(dataset, kinds)


def _model(dataset: fo.Dataset, predictions: str) -> str:
    """What made the predictions: a version, or at least a field."""
    return samples.writer(dataset, predictions) or f"field {predictions}"


def _save_views(dataset: fo.Dataset, kinds: Sequence[str]) -> list[str]:
    """Saves views of what waits for a person, in place of the last ones; others' stay."""
    for name in dataset.list_saved_views():
        if name.startswith(VIEWS) and dataset.get_saved_view_info(name)["description"] == SAID:
            dataset.delete_saved_view(name)
    # By tag and field: what a person has looked at leaves them by itself.
    waiting = dataset.match_tags(TAG).match_tags(DONE, bool=False).exists(REASON).sort_by(REASON)
    views = {"all": waiting}
    views |= {kind: waiting.match(ViewField(REASON).starts_with(f"{kind}: ")) for kind in kinds}
    for what, view in views.items():
        dataset.save_view(f"{VIEWS}{what}", view, description=SAID)
    return [f"{VIEWS}{what}" for what in views]
