from collections.abc import Iterator

import pytest

from tests.shared.sync.stores.tators import Troubled


@pytest.fixture
def tator() -> Iterator[Troubled]:
    """A stand-in Tator server with the project of the recordings, which notes every request."""
    with Troubled() as server:
        server.project()
        server.watching = True
        yield server
