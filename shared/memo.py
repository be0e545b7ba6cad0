"""Slow answers that are remembered for a short while, since a form is drawn again at every key stroke."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 60.0
_answers: dict[Any, tuple[float, Any]] = {}


def cached(key: Any, compute: Callable[[], T], seconds: float = SECONDS) -> T:
    """The answer for a key: the one of a moment ago, or `compute()`."""
    now = time.monotonic()
    hit = _answers.get(key)
    if hit is not None and now - hit[0] < seconds:
        return hit[1]
    value = compute()
    for old in [k for k, (then, _) in _answers.items() if now - then > seconds]:
        _answers.pop(old, None)
    _answers[key] = (now, value)
    return value


def forget(what: str | None = None) -> None:
    """Drops the answers whose key begins with `what`, after something that changes them; without it, all."""
    for key in [key for key in _answers if what is None or (isinstance(key, tuple) and key[0] == what)]:
        _answers.pop(key, None)
