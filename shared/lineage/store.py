"""What of a model's lineage lives in FiftyOne itself: a link from the dataset, and its snapshot."""

import re
from datetime import UTC, datetime

import fiftyone as fo

from ..enterprise import snapshots
from .card import Card, Snapshot


def run_key(model: str, version: str) -> str:
    """The key of the dataset's custom run that stands for a version, such as `model_ptvr_1a2b3c`."""
    return f"model_{re.sub(r'[^A-Za-z0-9]', '_', model)}_{version[-6:]}"


def link(dataset: fo.Dataset, card: Card, uri: str) -> str:
    """Notes on the dataset, as a custom run, that a version was trained on it; replaces an earlier note.

    Args:
        dataset: the dataset
        card: of the version
        uri: where the version's files lie

    Returns:
        the run's key, for `dataset.get_run_info` and `dataset.load_run_results`
    """
    key = run_key(card.model, card.version)
    config = dataset.init_run(
        method="mbari_model_version",
        name=card.name,
        uri=uri,
        data_digest=card.data.digest,
        label_field=card.data.label_field,
        created_at=card.created_at,
        created_by=card.created_by,
    )
    dataset.register_run(key, config, overwrite=True)
    results = dataset.init_run_results(key, card=card.model_dump(mode="json"))
    dataset.save_run_results(key, results, overwrite=True)
    return key


def snapshot(dataset: fo.Dataset, description: str, now: datetime | None = None) -> Snapshot:
    """Takes a snapshot of the dataset where FiftyOne Enterprise allows it; says why not elsewhere, never fails.

    Args:
        dataset: the dataset
        description: for whoever finds the snapshot
        now: its time, which its name carries
    """
    name = f"mbari {now or datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    why_not = snapshots.take(dataset.name, name, description)
    return Snapshot(why_not=why_not) if why_not else Snapshot(name=name)
