"""What of a model's lineage lives in FiftyOne itself: a link from the dataset, and its snapshot."""

import logging
import re
from datetime import UTC, datetime
from types import ModuleType

import fiftyone as fo

from .card import Card, Snapshot

logger = logging.getLogger(__name__)


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
    management = _management()
    if management is None:
        return Snapshot(why_not="this is not FiftyOne Enterprise, which alone has snapshots")
    name = f"mbari {now or datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    try:
        management.create_snapshot(dataset.name, name, description)
    except Exception as error:  # no connection, no permission, too many: a training must not depend on it
        logger.warning("No snapshot of %s was taken: %s", dataset.name, error)
        return Snapshot(why_not=f"FiftyOne Enterprise refused it ({type(error).__name__}: {error})"[:500])
    return Snapshot(name=name)


def _management() -> ModuleType | None:
    """FiftyOne Enterprise's management SDK, which the open-source build does not have."""
    try:
        import fiftyone.management as management
    except ImportError:
        return None
    return management if hasattr(management, "create_snapshot") else None
