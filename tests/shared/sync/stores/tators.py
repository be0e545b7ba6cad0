"""Stand-in Tator servers for the tests of the store, with more trouble, and stores on them."""

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from shared.sync.stores.tator import TatorStore, open_tator
from tests.tator.api import Answer, Request
from tests.tator.http import Cut
from tests.tator.server import Tator

PROJECT = "Planktivore%20lab"
PLACE = "version=Baseline&type=Boxes&attribute=Label"


# What a request may be: an address that reads or writes, and never one of the lists that a GET can hang on.
READS = ("Projects", "Project/7", "Versions/7", "LocalizationTypes/7", "MediaTypes/7", "LocalizationCount/7")


def element(number: int) -> str:
    """An elemental id."""
    return str(UUID(int=number + (4 << 76) + (8 << 60)))


def uri(tator: Tator, query: str = PLACE, more: str = "timeout=2", project: str = PROJECT) -> str:
    return f"tator+http://127.0.0.1:{tator.port}/{project}?{query}&{more}"


@contextmanager
def opened(
    tator: Tator, query: str = PLACE, more: str = "timeout=2", user: str = "syncbot", project: str = PROJECT
) -> Iterator[TatorStore]:
    with contextlib.closing(open_tator(uri(tator, query, more, project), tator.token(user))) as store:
        yield store


class Troubled(Tator):
    """A server that can lose the answer to the next write that it makes, or answer what a test wants.

    Attributes:
        losing: whether that answer gets lost; unlike `answer_lost`, not one to a write that it refuses
        cuts: how many of the next requests do not arrive, whatever they are to do
        asked: called with each request, gives the one that is carried out
        instead: called with each request and its answer, gives the one that goes out
    """

    losing = False
    cuts = 0
    asked: Callable[[Request], Request] | None = None
    instead: Callable[[Request, Answer], Answer] | None = None

    def serve(self, request: Request) -> Answer:
        if self.cuts:
            self.cuts -= 1
            raise Cut
        answer = super().serve(request if self.asked is None else self.asked(request))
        if self.losing and request.method == "PATCH" and answer.status == 200:
            self.losing = False
            raise Cut
        if self.instead is not None:
            answer = self.instead(request, answer)
            answer.encode()
        return answer

    def count(self, method: str, path: str = "") -> int:
        """How many requests there were of a method, to addresses that begin so."""
        return sum(n for asked, n in self.requests.items() if asked.startswith(f"{method} /rest/{path}"))

    def bodies(self, method: str) -> list[tuple[str, dict[str, str], Any]]:
        """Address, query and body of each request of a method that was seen."""
        return [
            (request.path.removeprefix("/rest/"), dict(request.pairs), json.loads(request.raw))
            for request in self.seen
            if request.method == method
        ]
