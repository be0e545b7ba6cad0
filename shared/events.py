"""Events of the model registry, posted to the webhook of whoever wants to know: in a form that Slack takes.

The body is an incoming webhook's of Slack: `text` for people, and `metadata` (`event_type`, `event_payload`) for
programs. A post that fails costs some seconds and a warning, never the run.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

VERSION_CREATED = "version_created"
PROMOTED = "promoted"
GATE_FAILED = "gate_failed"

SECRET = "MBARI_WEBHOOK_URL"
SECONDS = 5.0  # for a connection, and for each part of an answer
PAUSES = (1.0, 3.0)  # seconds before the second and the third attempt
LONGEST_PAUSE = 10.0  # that a server may ask for
LONGEST = 3_000  # characters of a text; Slack cuts longer ones

logger = logging.getLogger(__name__)


def post(secrets: Mapping[str, str], event: str, text: str, **facts: Any) -> str | None:
    """Posts an event, where there is a webhook.

    Args:
        secrets: of which `MBARI_WEBHOOK_URL` says where to; without it nothing is posted
        event: one of the names above
        text: a sentence for people
        **facts: JSON-ready, for programs

    Returns:
        why it was not posted, a sentence without the webhook's address; None where it was, or nobody wants it
    """
    url = secrets.get(SECRET)
    if not url:
        return None
    body = {"text": _escaped(text)[:LONGEST], "metadata": {"event_type": event, "event_payload": facts}}
    try:
        why_not = _post(url, body)
    except Exception as error:  # an address that is none, a proxy that is broken: a run must not depend on it
        why_not = type(error).__name__
    if why_not is None:
        return None
    # The path of a webhook is its password, and errors name it: so only what is known to be harmless is said.
    said = f"The event {event!r} was not posted to the webhook ({why_not})."
    logger.warning("%s", said)
    return said


def _post(url: str, body: Mapping[str, Any]) -> str | None:
    """Tries a few times; returns why the last attempt failed."""
    if not url.startswith(("https://", "http://")):
        return "its address is none of http or https"
    # Not httpx, which writes every address that it asks into the log.
    request = Request(url, json.dumps(body, default=str).encode(), {"Content-Type": "application/json"})
    why_not = None
    for pause in (*PAUSES, None):
        wait = pause
        try:
            with urlopen(request, timeout=SECONDS):
                return None
        except HTTPError as error:
            with error:
                why_not, asked = f"it answered {error.code}", error.headers.get("Retry-After", "")
            if error.code != 429 and error.code < 500:
                return why_not  # it would answer the same again
            if wait is not None and asked.isdigit():
                wait = min(float(asked), LONGEST_PAUSE)
        except OSError as error:
            why_not = type(getattr(error, "reason", error)).__name__
        if wait is not None:
            time.sleep(wait)
    return why_not


def _escaped(text: str) -> str:
    """The text with the three characters that mean something to Slack as it asks for them."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
