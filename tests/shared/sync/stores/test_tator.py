"""Tator as a label store: the conformance suite on a stand-in server that behaves as a real one was recorded to."""

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import pytest

from shared.sync.stores import open_store
from shared.sync.stores.base import Change, Found, SourceId, Stamp, Store, Written
from tests.shared.sync.stores.conformance import Conformance, Harness
from tests.tator.api import Answer, Request
from tests.tator.http import Cut
from tests.tator.server import Tator

PROJECT = "Planktivore%20lab"
PLACE = "version=Baseline&type=Boxes&attribute=Label"


def uri(tator: Tator, query: str = PLACE, more: str = "timeout=2") -> str:
    return f"tator+http://127.0.0.1:{tator.port}/{PROJECT}?{query}&{more}"


@contextmanager
def opened(tator: Tator, query: str = PLACE, more: str = "timeout=2", user: str = "syncbot") -> Iterator[Store]:
    with contextlib.closing(open_store(uri(tator, query, more), tator.token(user))) as store:
        yield store


def named(name: SourceId) -> str:
    """The UUID that stands for a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(name)))


class Named:
    """A store in which each record has the UUID of a name; nothing else is done here."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name, self.chunk = store.name, store.chunk
        self.check, self.refuses, self.close = store.check, store.refuses, store.close

    def __repr__(self) -> str:
        return repr(self._store)

    def read(self, ids: Sequence[SourceId], run: str | None = None) -> dict[SourceId, Found]:
        found = self._store.read([named(source) for source in ids], run)
        return {source: found[named(source)] for source in ids if named(source) in found}

    def write(self, changes: Sequence[Change], stamp: Stamp) -> Written:
        written = self._store.write([change._replace(id=named(change.id)) for change in changes], stamp)
        names = {named(change.id): change.id for change in changes}
        return Written(written.done, {names[source]: why for source, why in written.refused.items()}, written.rows)


class Losing(Tator):
    """A server that can lose the answer to the next write that it makes, and not to one that it refuses."""

    losing = False

    def serve(self, request: Request) -> Answer:
        answer = super().serve(request)
        if self.losing and request.method == "PATCH" and answer.status == 200:
            self.losing = False
            raise Cut
        return answer


class TatorHarness:
    """A server of its own with one project.

    Records that share an id are two rows of the same mark: what two writers leave that add a mark at one moment.
    """

    others: ClassVar = [42, 2.5]  # an attribute for text takes numbers; lists and nulls it refuses
    patience = 10.0

    def __init__(self, tator: Losing, more: str = "timeout=1.5") -> None:
        tator.project()
        self.tator = tator
        self.secrets = (tator.token(),)
        self.store = Named(open_store(uri(tator, more=more), tator.token()))

    def put(self, records: Iterable[tuple[SourceId, Any]]) -> None:
        self.tator.put([(named(source), label) for source, label in records])

    def peek(self, source: SourceId) -> list[Any]:
        return self.tator.labels(named(source))

    def times(self, source: SourceId) -> int | None:
        return self.tator.times(named(source))

    def forbid(self, label: str) -> None:
        self.tator.forbid(label)

    @contextmanager
    def answer_lost(self) -> Iterator[None]:
        self.tator.losing = True
        yield
        assert not self.tator.losing

    def request_lost(self) -> AbstractContextManager[None]:
        return self.tator.request_lost()

    def down(self) -> AbstractContextManager[None]:
        return self.tator.down()

    def slow(self) -> AbstractContextManager[None]:
        return self.tator.hanging()

    def read_only(self) -> AbstractContextManager[None]:
        return self.tator.right("syncbot", "View Only")

    def locked_out(self) -> AbstractContextManager[None]:
        return self.tator.locked_out()


@pytest.fixture
def tator() -> Iterator[Losing]:
    with Losing() as server:
        yield server


class TestTator(Conformance):
    @pytest.fixture
    def harness(self, tator: Losing) -> Iterator[Harness]:
        made = TatorHarness(tator)
        yield made
        made.store.close()
