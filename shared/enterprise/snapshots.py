"""Snapshots of a dataset, which FiftyOne Enterprise's management SDK takes."""

import logging
from types import ModuleType

logger = logging.getLogger(__name__)


def take(dataset: str, name: str, description: str) -> str | None:
    """Takes a snapshot of a dataset; never fails.

    Args:
        dataset: the dataset's name
        name: of the snapshot, which no other one of the dataset may have
        description: for whoever finds it

    Returns:
        why there is none, or None where it was taken
    """
    management = _management()
    if management is None:
        return "this is not FiftyOne Enterprise, which alone has snapshots"
    try:
        management.create_snapshot(dataset, name, description)
    except Exception as error:  # no connection, no permission, too many: a training must not depend on it
        logger.warning("No snapshot of %s was taken: %s", dataset, error)
        return f"FiftyOne Enterprise refused it ({type(error).__name__}: {error})"[:500]
    return None


def _management() -> ModuleType | None:
    """The management SDK, which the open-source build does not have."""
    try:
        import fiftyone.management as management
    except ImportError:
        return None
    return management if hasattr(management, "create_snapshot") else None
