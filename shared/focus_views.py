"""The door to the focus list of a FiftyOne dataset: marks on its samples, and saved views that select by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.utils as fou
from bson import ObjectId
from pymongo import UpdateMany

from . import samples
from .errors import InputError

if TYPE_CHECKING:
    from .review.focus import Item

FIELD = "focus"  # a sample's marks: the numbers of the items it belongs to
QUALITY = "focus_quality"  # how well a label that looks wrong fits, 0 to 1
SUGGESTED = "focus_suggested"  # what such an ROI looks like instead
INFO = "mbari_focus"  # the key of those fields' info
VIEWS = "focus "  # how the names of the suite's saved views begin
SAID = "Made by the suite; each evaluation replaces it"
LONGEST = 100  # characters of a saved view's name that FiftyOne takes
CHUNK = 20_000  # samples that an update names at most

KINDS = {FIELD: fo.ListField, QUALITY: fo.FloatField, SUGGESTED: fo.StringField}


def refusal(dataset: fo.Dataset) -> str | None:
    """Why a focus list cannot be written to a dataset, if so."""
    for name in KINDS:
        field = dataset.get_field(name)
        if field is not None and INFO not in (field.info or {}):
            return f"The field {name!r} exists and no evaluation of this suite made it: rename it."
    return None


def is_one(view: Any) -> bool:
    """Whether a view is one of those that a list has saved, or made from one; the App may have forgotten its name."""
    filters = [stage.filter for stage in view.view()._all_stages if isinstance(stage, fo.Match)]
    return any(isinstance(f, Mapping) and isinstance(f.get(FIELD), str) for f in filters)


def last(dataset: fo.Dataset) -> Mapping[str, Any]:
    """What is known of the evaluation whose list the dataset has; empty where there is none."""
    field = dataset.get_field(FIELD)
    return {} if field is None else (field.info or {}).get(INFO) or {}


def leave_out(dataset: fo.Dataset, key: str, sample_ids: Sequence[str]) -> dict[str, Any]:
    """Marks samples as no part of an evaluation, in place of those marked for it before.

    Args:
        dataset: the dataset
        key: of the evaluation
        sample_ids: which ones

    Returns:
        what a view's `match` takes to leave them out, however many they are

    Raises:
        InputError: the field of the marks is somebody else's
    """
    mark = f"left out of {key}"
    if problem := refusal(dataset):
        raise InputError(problem)
    if sample_ids or dataset.has_sample_field(FIELD):
        _prepare(dataset, (FIELD,))
        _replace(dataset, [mark], {mark: sample_ids})
    return {FIELD: {"$ne": mark}}


def write(
    dataset: fo.Dataset,
    ids: Sequence[str],
    items: Sequence[Item],
    prediction_field: str,
    doubts: Mapping[str, tuple[float, str]],
    what: Mapping[str, Any],
) -> list[str]:
    """Marks what is in a focus list and saves a view of each item, in place of the last list.

    Args:
        dataset: the dataset
        ids: N sample ids, which the rows of the items are positions of
        items: in the order in which they are to be numbered
        prediction_field: by whose confidence a view is sorted
        doubts: for each sample whose label looks wrong how well the label fits, and what it looks like instead
        what: a summary that is kept with the field

    Returns:
        the names of the saved views, in the order of the items

    Raises:
        InputError: one of the fields is somebody else's
    """
    if problem := refusal(dataset):
        raise InputError(problem)
    _delete_views(dataset)  # before the marks change, so that no view shows what its name does not say
    _prepare(dataset, KINDS, {})
    numbers = {f"{number:02d}": item for number, item in enumerate(items, start=1)}
    had = [mark for mark in dataset.distinct(FIELD) if mark.isdigit()]
    _replace(dataset, had, {number: [ids[row] for row in item.rows.tolist()] for number, item in numbers.items()})
    _write_doubts(dataset, doubts)
    names = []
    for number, item in numbers.items():
        name = _free(dataset, _name(number, item))
        by, reverse = (QUALITY, False) if item.kind == "wrong labels" else (f"{prediction_field}.confidence", True)
        view = dataset.match({FIELD: number}).sort_by(by, reverse=reverse)
        dataset.save_view(name, view, description=SAID)
        names.append(name)
    likely = [item.labels for item in items if item.kind == "wrong labels"]
    _prepare(dataset, KINDS, {**what, "likely_wrong": sum(likely)} if likely else what)
    return names


def _prepare(dataset: fo.Dataset, names: Sequence[str] | Mapping[str, Any], what: Mapping | None = None) -> None:
    """Makes the fields where there are none, and says in their `info` whose they are; `what` of the list in it."""
    for name in names:
        if not dataset.has_sample_field(name):
            more = {"subfield": fo.StringField} if name == FIELD else {}
            dataset.add_sample_field(name, KINDS[name], **more)
        field = dataset.get_field(name)
        field.info = {**(field.info or {}), INFO: dict(last(dataset) if what is None else what)}
        field.save()


def _replace(dataset: fo.Dataset, old: Sequence[str], new: Mapping[str, Sequence[str]]) -> None:
    """Takes marks away wherever they are, and gives others; those of other evaluations stay."""
    now = datetime.now(UTC)
    if old:
        change = {"$pullAll": {FIELD: list(old)}, "$set": {"last_modified_at": now}}
        dataset._bulk_write([UpdateMany({FIELD: {"$in": list(old)}}, change)])
    for mark, chosen in new.items():
        # A field that was never set is null, which `$addToSet` refuses.
        joined = {"$setUnion": [{"$ifNull": [f"${FIELD}", []]}, [mark]]}
        for start in range(0, len(chosen), CHUNK):
            these = {"_id": {"$in": [ObjectId(i) for i in chosen[start : start + CHUNK]]}}
            dataset._bulk_write([UpdateMany(these, [{"$set": {FIELD: joined, "last_modified_at": now}}])])


def _write_doubts(dataset: fo.Dataset, doubts: Mapping[str, tuple[float, str]]) -> None:
    gone = [i for i in dataset.exists(SUGGESTED).values("id") if i not in doubts]
    for position, (field, kind) in enumerate(((QUALITY, fo.FloatField), (SUGGESTED, fo.StringField))):
        samples.write_values(dataset, field, gone, [None] * len(gone), kind)
        samples.write_values(dataset, field, list(doubts), [doubt[position] for doubt in doubts.values()], kind)


def _delete_views(dataset: fo.Dataset) -> None:
    for name in dataset.list_saved_views():
        if name.startswith(VIEWS) and dataset.get_saved_view_info(name)["description"] == SAID:
            dataset.delete_saved_view(name)


def _name(number: str, item: Item) -> str:
    """Such as "focus 01: Calanus taken for Metridia (31)"; too long a name loses its middle."""
    start, end = f"{VIEWS}{number}: ", f" ({item.count:,})"
    room = LONGEST - len(start) - len(end) - len(" (9)")
    return start + (item.name if len(item.name) <= room else f"{item.name[: room - 1]}…") + end


def _free(dataset: fo.Dataset, name: str) -> str:
    """The name, or the next one of which nobody has a view."""
    taken = {saved.slug for saved in dataset._doc.get_saved_views()}
    names = [name, *(f"{name} ({n})" for n in range(2, 10))]
    return next((one for one in names if fou.to_slug(one) not in taken), names[-1])
