"""Tator over HTTP: one request, its answer, and what an answer means where it is none of the asker's business.

Whether a write took effect is never guessed: no answer, half an answer or a server error is `Unreachable`, and
nothing but a throttled request, which the server did not carry out, is sent again when it was to write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any, NamedTuple

import httpx

from ...errors import InputError, StorageError
from .base import Unreachable

CONNECT = 10.0  # seconds
PATIENCE = 60.0  # seconds for which a throttled request is sent again
AGENT = "mbari-fiftyone"
IDLE = 1.5  # seconds after which a connection is not used again: gunicorn ends those that are idle for two

# All of these come as a 400, and only the words tell them apart.
_THROTTLED = re.compile(r"^Request was throttled\.(?: Expected available in (\d+) seconds?)?")
_TOKEN = re.compile(
    r"^(Invalid token|Authentication credentials were not provided|User inactive or deleted|'AnonymousUser' object has)"
)


class Reply(NamedTuple):
    """An answer that the asker can make something of.

    Attributes:
        status: 200 or 201, 400, 403 or 404
        body: the JSON of a good answer
        message: what the server says, for people
    """

    status: int
    body: Any
    message: str

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked."""
        return self.status in (200, 201)


class Api:
    """A Tator server.

    Attributes:
        requests: how many were made so far
        run: on whose behalf requests write; the server's own log of requests has it, which Tator itself has not

    Args:
        name: of the store, for messages
        base: `https://host[:port]`
        token: of the user
        timeout: seconds to wait for an answer
        pause: seconds between two requests that write
    """

    def __init__(self, name: str, base: str, token: str | None, timeout: float, pause: float) -> None:
        if not token or not re.fullmatch(r"[!-~]+", token):
            raise InputError(
                "The token of the label store is missing or cannot be one: set the secret MBARI_LABEL_STORE_TOKEN to "
                "the API token of a Tator user who may edit the project."
            )
        self.name = name
        self.requests = 0
        self.run: str | None = None
        self._token, self._pause, self._next_write = token, pause, 0.0
        self._client = httpx.Client(
            base_url=f"{base}/rest/",
            headers={"Authorization": f"Token {token}", "Accept": "application/json", "User-Agent": AGENT},
            timeout=httpx.Timeout(timeout, connect=min(CONNECT, timeout)),
            limits=httpx.Limits(max_connections=4, keepalive_expiry=IDLE),
            follow_redirects=False,
        )

    def __repr__(self) -> str:
        return f"Api({self.name!r})"

    def close(self) -> None:
        """Gives connections back."""
        self._client.close()

    def ask(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Reply:
        """One request; only one that was throttled is sent again, or one that merely reads and met a broken connection.

        Args:
            method: "GET", "PUT" (reads as well, in Tator) or "PATCH", which writes
            path: below `/rest/`
            query: of the URL
            body: becomes JSON

        Raises:
            Unreachable: no answer, or one that is cut, or a server error: a write may have been made
            StorageError: the token is not accepted, or this is no Tator
        """
        until = monotonic() + PATIENCE
        while True:
            answer = self._send(method, path, query, body)
            message = _message(answer)
            wait = _throttled(answer, message)
            if wait is None:
                return self._reply(answer, message)
            if monotonic() + wait > until:
                raise self.unknown("it was asked too often, and still is")
            sleep(wait)

    def _send(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any) -> httpx.Response:
        writes = method == "PATCH"
        if writes:
            sleep(max(0.0, self._next_write - monotonic()))
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content else {}
        if writes and re.fullmatch(r"[\w-]{1,60}", self.run or "", re.ASCII):
            headers["User-Agent"] = f"{AGENT} (run {self.run})"
        tries = 1 if writes else 2
        while True:
            tries -= 1
            self.requests += 1
            try:
                return self._client.request(method, path, params=query, content=content, headers=headers)
            except (httpx.TimeoutException, httpx.ConnectError) as error:
                raise self.unknown(_kind(error)) from error
            except httpx.HTTPError as error:
                if not tries:
                    raise self.unknown(_kind(error)) from error
            finally:
                if writes:
                    self._next_write = monotonic() + self._pause

    def _reply(self, answer: httpx.Response, message: str) -> Reply:
        status = answer.status_code
        if status >= 500 or status == 408:
            raise self.unknown(f"a server error, {status}")
        if status in (400, 401) and (status == 401 or _TOKEN.match(message)):
            raise StorageError(
                f"The label store {self.name} does not accept the token of MBARI_LABEL_STORE_TOKEN "
                f"({self._short(message)}): put in a valid token of its user."
            )
        if status in (200, 201):
            try:
                return Reply(status, answer.json(), message)
            except ValueError as error:  # a list that failed on the server after its status was sent, or was cut
                raise self.unknown("the answer is empty or cut") from error
        if status in (400, 403, 404) and _is_json(answer):
            return Reply(status, None, self._short(message))
        raise StorageError(
            f"What answers for the label store {self.name} is no Tator server, or not at this address (HTTP status "
            f"{status}): correct the host in MBARI_LABEL_STORE."
        )

    def unknown(self, why: str) -> Unreachable:
        """The error for no answer."""
        return Unreachable(f"The label store {self.name} gave no answer ({why}); try again when it can be reached.")

    def _short(self, message: str) -> str:
        message = " ".join(message.split()).replace(self._token, "<token>")
        return message if len(message) <= 200 else f"{message[:197]}..."


def _is_json(answer: httpx.Response) -> bool:
    """Whether it says so; what gateways and other servers say of their own is a page."""
    return answer.headers.get("Content-Type", "").startswith("application/json")


def _message(answer: httpx.Response) -> str:
    if not _is_json(answer):
        return ""
    try:
        body = answer.json()
    except ValueError:
        return ""
    message = body.get("message") if isinstance(body, dict) else None
    details = body.get("details") if isinstance(body, dict) else None
    if message == "Request body validation error" and isinstance(details, str):
        return f"{message}: {details}"
    return message if isinstance(message, str) else ""


def _throttled(answer: httpx.Response, message: str) -> float | None:
    """Seconds after which a throttled request may be sent again; None for any other answer."""
    said = _THROTTLED.match(message)
    if answer.status_code == 429 or (answer.status_code == 400 and said):
        # It rounds what is left, to 0 too: asked again at once, it would be asked a thousand times over.
        return max(1.0, float(said[1])) if said and said[1] else 1.0
    return None


def _kind(error: Exception) -> str:
    """What a person needs of an error of httpx's."""
    text = str(error) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return text if len(text) <= 200 else f"{text[:197]}..."
