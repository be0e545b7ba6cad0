"""What the fork server of the torture test imports, once for all syncers; nothing here connects to a database."""

import fiftyone  # noqa: F401
import httpx  # noqa: F401
from fiftyone.operators.registry import OperatorRegistry

import tests.shared.sync.torture_syncer
import tests.worker  # noqa: F401

OperatorRegistry()  # imports the plugins
