"""What every label store is: read many by id, compare-and-set many, say what it cannot hold, check itself.

A store is a folder or module beside this one and passes the conformance suite of the tests. It answers for
single requests only; retrying, settling who won and accounting are the work of `send.py`, once for all stores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from ...errors import StorageError

# The id of a label in the database of record, as FiftyOne holds it: a string, or a whole number.
SourceId = str | int


class Unreachable(StorageError):
    """The store gave no answer, or one that passes: whether a write took effect is not known until it is read again.

    Attributes:
        taken: the ids of the changes that the store said it made, before its next answer was none
    """

    __module__ = "mbari"
    taken: Collection[SourceId] = ()


def said(label: str | None) -> str:
    """A label in a sentence."""
    return f"'{label}'" if label else "no label"


class Found(NamedTuple):
    """What a store holds under one id.

    Attributes:
        label: the label; "" where it has none; None where that is not text (then `other` says it)
        copies: how many records have this id; more than one cannot be told apart and are never written
        ours: whether the run that was asked for has written this record, where the store keeps a history of
            each record; None where it does not
        other: a value that is not text, as a person can read it; else None
        row: the id of the record as it is now, in a store where each write gives it a new one; else None
    """

    label: str | None
    copies: int = 1
    ours: bool | None = None
    other: str | None = None
    row: int | None = None

    @property
    def said(self) -> str:
        """What it holds, in words."""
        if self.label is None:
            return f"{self.other}, which is not text"
        return said(self.label)


class Change(NamedTuple):
    """One conditional write: `wanted` replaces the label of `id` if that is still `expected`; "" is no label."""

    id: SourceId
    expected: str
    wanted: str


class Stamp(NamedTuple):
    """Who writes: kept by stores that have a place for it. `how` is "sync", or "revert" for what takes one back."""

    run: str
    by: str | None
    at: datetime
    how: str = "sync"


@dataclass(frozen=True)
class Written:
    """A store's answer to `write`.

    Attributes:
        done: how many records matched id and expected label, and were written
        refused: reason by id, for changes that the store will never take (a rule of its own, for one)
        rows: the ids of the records written, by id, in a store where each write gives a record a new one
        taken: the ids of changes that it made and that a look afterwards found changed or put back, where a store
            looks; they are not among `done`, and are never to be offered again
    """

    done: int
    refused: Mapping[SourceId, str] = field(default_factory=dict)
    rows: Mapping[SourceId, int] = field(default_factory=dict)
    taken: Collection[SourceId] = frozenset()


class Store(Protocol):
    """A database of record.

    Attributes:
        name: what people and journals call it, such as `mongodb://host/db.collection`; never a secret in it.
            The same store has the same name in every run: leases and journals go by it
        chunk: how many changes one `write` takes at most
    """

    name: str
    chunk: int

    def check(self, writing: bool = True) -> str:
        """Reads a little and says in one line what it found; writes nothing.

        Args:
            writing: whether a user who may only read is an error

        Raises:
            StorageError: it cannot be reached, read or written, as far as can be seen without writing
        """
        ...

    def refuses(self, label: str) -> str | None:
        """Why the store cannot hold this label, or None."""
        ...

    def count(self) -> int | None:
        """How many records there are, whatever they hold; None where that cannot be asked for.

        Raises:
            Unreachable: no answer
            StorageError: it refuses
        """
        ...

    def read(self, ids: Sequence[SourceId], run: str | None = None) -> dict[SourceId, Found]:
        """What the store holds now under each of these ids; those it does not have are left out.

        Args:
            ids: any number, in requests of a bounded size
            run: fills `Found.ours`

        Raises:
            Unreachable: no answer
            StorageError: it refuses: no permission, wrong settings
        """
        ...

    def write(self, changes: Sequence[Change], stamp: Stamp) -> Written:
        """Makes at most `chunk` conditional writes, each exactly once or not at all; never repeats one by itself.

        Returns once the store will not forget what it took.

        Raises:
            Unreachable: no answer: each of the changes may have been made or not
            StorageError: the store took none of them
        """
        ...

    def close(self) -> None:
        """Gives connections back."""
        ...


def is_text(text: str) -> bool:
    """Whether it is whole characters, and not half of one (a lone surrogate)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cannot_hold(label: str, most_bytes: int | None = None) -> str | None:
    """Why no store can hold a label, or none can that takes so many bytes at most (or any number); None where it can.

    This is about labels to be written; one that a store holds already may be longer.
    """
    if not is_text(label):
        return "it holds half a character (a lone surrogate), which is no text"
    if most_bytes is None or len(label.encode()) <= most_bytes:
        return None
    return f"it is longer than {most_bytes:,} bytes"


def readable(value: Any) -> str:
    """A value of any kind in a few words, for a person."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
