"""Training a version again from what is published with it: its rows, its arguments, its base weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..artifacts import scratch
from ..errors import StorageError
from ..lineage.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

    from .training import Options, Surroundings

FOUND = ("sha256", "used", "why_left_out")  # the manifest's columns that reading the images gives again


def rows_and_options(params: Any, where: Surroundings) -> tuple[pa.Table, Options, Surroundings]:
    """What a version was trained on and how, for training it again under `params.model_name`.

    Labels and splits are those of the manifest, whatever they are now; the images are read anew, so one that was
    replaced meanwhile gives another data digest.

    Args:
        params: of `train_classifier`; only `repeat`, `model_name`, `device` and `resume` count
        where: the surroundings, of which those that the version was trained in take the place of some

    Raises:
        InputError: there is no such version
        StorageError: what is published with it cannot be read
    """
    from ..lineage import manifest
    from ..lineage.card import Card
    from .publishing import fetch_version
    from .training import Options

    record = Registry(where.db).resolve(params.repeat)
    with scratch("repeat-") as folder:
        fetch_version(record, where.root, folder, ("manifest.parquet", "model.json", "card.json"))
        rows = manifest.read(folder / "manifest.parquet")
        model = json.loads((folder / "model.json").read_text())
        card = Card.model_validate_json((folder / "card.json").read_text())
    named = {name: value for name, value in model["options"].items() if name in Options.__dataclass_fields__}
    try:
        options = Options(**named)
    except TypeError as error:
        raise StorageError(f"The arguments of {record.name} cannot be read ({error}): it cannot be repeated.") from None
    options = replace(
        options,
        model_name=params.model_name,
        base_weights=model["base_version"] or options.base_weights,  # an alias may have moved since
        batch=model["training_args"]["batch"],  # what was fitted to the memory then
        classes=tuple(options.classes),
        device=params.device,
        resume=params.resume,
    )
    where = replace(
        where,
        dataset=record.dataset,
        dataset_id=record.dataset_id,
        label_field=record.label_field,
        extra_views=tuple(record.extra_views),
        context=_context(card),
        base_sha256=record.base_sha256,
        repeats=record,
    )
    return rows.drop_columns([name for name in FOUND if name in rows.column_names]), options, where


def _context(card: Any) -> Any:
    """What the card said of the data then, for the card of the repetition."""
    from ..lineage.card import Context

    data = card.data
    return Context(
        view=data.view,
        saved_view=data.saved_view,
        vocabulary=data.vocabulary,
        synced=data.synced,
        snapshot=data.snapshot,
        group_field=data.group_field,
        groups_across_splits=data.groups_across_splits,
        price_per_hour=card.cost.price_per_hour,
    )
