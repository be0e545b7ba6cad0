"""The lineage package's door to FiftyOne: its registry lives in FiftyOne's own database."""

import fiftyone.core.odm as foo

from .registry import Registry


def registry() -> Registry:
    """The registry of model versions that every worker of this FiftyOne deployment shares."""
    return Registry(foo.get_db_conn())
