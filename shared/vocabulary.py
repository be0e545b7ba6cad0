"""The names that a label may have: read from a file, added to it, and found again when nearly typed right.

Names are kept byte for byte. Only the question whether a text is nearly a name looks past upper and lower case,
separators, unicode's forms and a letter or two.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from . import disk
from .artifacts import fetch_uri, open_root, scratch
from .errors import InputError

LARGEST = 16 << 20  # bytes; a file beyond that was named by mistake

_SEPARATORS = re.compile(r"[\s_\-/.\u2010-\u2015]+")
# Characters at either end of a name by which it is looked up: more are more exact, and more entries.
_END = 8


@dataclass(frozen=True)
class Vocabulary:
    """The names a label may have.

    Attributes:
        names: each once, in the order of whoever keeps them
        origin: where they come from, as a person would say it
    """

    names: tuple[str, ...]
    origin: str

    def __contains__(self, name: object) -> bool:
        return name in self._set

    def __len__(self) -> int:
        return len(self.names)

    def why_not(self, name: str) -> str | None:
        """The sentence for somebody who gave a name that is not here; None for one that is."""
        if name in self:
            return None
        near = self.nearest(name)
        meant = (
            f"; did you mean {' or '.join(map(repr, near))}?" if near else "; 'Add a name to the vocabulary' adds one."
        )
        return f"{name!r} is not in the vocabulary ({self.origin}){meant}"

    def nearest(self, text: str, n: int = 3) -> list[str]:
        """The names that `text` may have been meant for, nearest first; empty when none is near.

        Near is: the same but for upper and lower case, separators and unicode's forms; or one edit away (a
        character missing, added, replaced, or two swapped) from four characters on, two from eight on.
        """
        folded = fold(text)
        found = []
        for candidate in self._candidates(folded):
            edits = _edits(folded, candidate, _tolerated(folded, candidate))
            if edits is not None:
                found += [(edits, place) for place in self._folded[candidate]]
        return [self.names[place] for _, place in sorted(found)[:n]]

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def _folded(self) -> dict[str, list[int]]:
        """Places of the names, by what `fold` makes of them."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.names):
            places.setdefault(fold(name), []).append(place)
        places.pop("", None)
        return places

    @cached_property
    def _ends(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Folded names by what is left of their ends, start and tail, when up to two characters are left out."""
        starts: dict[str, list[str]] = {}
        tails: dict[str, list[str]] = {}
        for folded in self._folded:
            for key in _thinned(folded[:_END]):
                starts.setdefault(key, []).append(folded)
            for key in _thinned(folded[-_END:]):
                tails.setdefault(key, []).append(folded)
        return starts, tails

    def _candidates(self, folded: str) -> set[str]:
        """Every folded name within two edits, and some others.

        Two texts within two edits become the same when up to two characters are left out of each, and so do
        their first (last) eight: that finds them without comparing with every name.
        """
        starts, tails = self._ends
        by_start = [starts[key] for key in _thinned(folded[:_END]) if key in starts]
        by_tail = [tails[key] for key in _thinned(folded[-_END:]) if key in tails]
        # Many names begin alike (a genus), or end alike (a stage): the end that says more.
        return set().union(*min(by_start, by_tail, key=lambda found: sum(map(len, found))))


def fold(text: str) -> str:
    """What is left of a text for comparing: without case, kind of separator, unicode's form, invisible characters."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not text.isascii():
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return _SEPARATORS.sub(" ", text).strip()


def _tolerated(one: str, other: str) -> int:
    shorter = min(len(one), len(other))
    return 2 if shorter >= 8 else 1 if shorter >= 4 else 0


def _thinned(text: str) -> set[str]:
    """A text with none, one or two of its characters left out, in every way."""
    return {"".join(kept) for count in range(3) for kept in combinations(text, max(len(text) - count, 0))}


def _edits(one: str, other: str, limit: int) -> int | None:
    """The smallest number of edits between two texts, or None if it is over the limit."""
    if not _within(one, other, limit):
        return None
    return next(count for count in range(limit + 1) if _within(one, other, count))


def _within(one: str, other: str, edits: int) -> bool:
    pairs = enumerate(zip(one, other, strict=False))
    same = next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
    one, other = one[same:], other[same:]
    if not one or not other or not edits:
        return len(one) + len(other) <= edits
    return (
        _within(one[1:], other[1:], edits - 1)
        or _within(one[1:], other, edits - 1)
        or _within(one, other[1:], edits - 1)
        or (one[:2] == other[1::-1] and _within(one[2:], other[2:], edits - 1))
    )


def parse(text: str, where: str) -> list[str]:
    """The names in a file: plain text with one a line (`#` begins a comment line), or a YAML list.

    Args:
        text: its content
        where: what to call it in an error; `.yaml` or `.yml` at its end says that it is YAML

    Raises:
        InputError: it is neither, is empty, or has a name twice
    """
    names = _parse_yaml(text, where) if _is_yaml(text, where) else _lines(text)
    if not names:
        raise InputError(f"The vocabulary {where} is empty: write one name a line.")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"The vocabulary {where} has '{name}' twice: remove one of them.")
        seen.add(name)
    return names


def _lines(text: str) -> list[str]:
    # Not splitlines(), which also breaks at characters that a name may have.
    lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _is_yaml(text: str, where: str) -> bool:
    if where.lower().endswith((".yaml", ".yml")):
        return True
    first = next(iter(_lines(text)), "")
    return first.startswith(("- ", "[", "%YAML")) or first in ("-", "---")


def _parse_yaml(text: str, where: str) -> list[str]:
    import yaml

    try:
        names = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f" (line {line + 1})"
        raise InputError(f"The vocabulary {where} is not the YAML list it looks like{place}: correct it.") from None
    if names is None:
        return []
    if not isinstance(names, list):
        raise InputError(f"The vocabulary {where} is YAML, but not a list of names: write one name a line.")
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"The vocabulary {where} has {name!r:.80}, which is not text: put it in quotes.")
        if not name.strip():
            raise InputError(f"The vocabulary {where} has an empty name: remove it.")
    return names


def load(uri: str, secrets: Mapping[str, str]) -> Vocabulary:
    """The vocabulary in a file.

    Args:
        uri: a local path or `s3://bucket/key`, the value of the secret `MBARI_VOCABULARY`
        secrets: see `s3.client`

    Raises:
        InputError: it has no usable names
        StorageError: it cannot be read
    """
    with _fetched(uri, secrets) as path:
        return Vocabulary(tuple(parse(_read(path, uri), uri)), uri)


def add(uri: str, name: str, secrets: Mapping[str, str]) -> None:
    """Adds a name at the end of the vocabulary in a file; its comments, order and layout stay.

    Whoever reads meanwhile sees the file before, or after. In S3 the later of two who add at the very same
    moment wins; a local file is locked meanwhile.

    Raises:
        InputError: the name is there already, or cannot stand in such a file
        StorageError: the file cannot be read or written
    """
    if not name or name != name.strip():
        raise InputError(f"'{name}' cannot be a name: it is empty, or begins or ends with a space.")
    with _fetched(uri, secrets) as path:
        if uri.startswith("s3://"):
            _rewrite(path, uri, name)
            folder, _, key = uri.rpartition("/")
            open_root(folder, secrets).put(key, path)
        else:
            path = path.resolve()
            with disk.explaining(path), disk.locked(path.with_name(f".{path.name}.lock")):
                _rewrite(path, uri, name)


@contextlib.contextmanager
def _fetched(uri: str, secrets: Mapping[str, str]) -> Iterator[Path]:
    with scratch("vocabulary-") as folder:
        yield fetch_uri(uri, folder / "fetched", secrets)


def _read(path: Path, uri: str) -> str:
    with disk.explaining(uri):
        if path.is_dir():
            raise InputError(f"The vocabulary {uri} is a folder: name the file in it.")
        if path.stat().st_size > LARGEST:
            raise InputError(f"The vocabulary {uri} is too large to be a list of names: name another file.")
        try:
            # Not read_text(), which would turn every line end into one kind.
            return path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"The vocabulary {uri} is not text in UTF-8: save it as that.") from None


def _rewrite(path: Path, uri: str, name: str) -> None:
    text = _read(path, uri)
    names = parse(text, uri)
    if name in names:
        raise InputError(f"'{name}' is in the vocabulary {uri} already.")
    longer = _with_yaml(text, name) if _is_yaml(text, uri) else _with_line(text, name)
    try:
        data, right = longer.encode(), parse(longer, uri) == [*names, name]
    except (InputError, UnicodeEncodeError):
        right = False
    if not right:
        raise InputError(f"{name!r} cannot be written into {uri} as that is laid out: use another name, or edit it.")
    _replace(path, data)


def _with_line(text: str, name: str) -> str:
    end = _line_end(text)
    return f"{text}{'' if text.endswith(chr(10)) else end}{name}{end}"


def _with_yaml(text: str, name: str) -> str:
    import yaml

    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    last = node.value[-1]
    style = last.style if last.style in ("'", '"') else None
    item = yaml.safe_dump(
        [name], allow_unicode=True, width=float("inf"), default_flow_style=node.flow_style, default_style=style
    ).rstrip("\n")
    end = last.end_mark.index
    if node.flow_style:
        return f"{text[:end]}, {item[1:-1]}{text[end:]}"
    # After the line of the last item; a block of text is over only where the next thing begins.
    end = end if text[end - 1] == "\n" else text.find("\n", end) + 1 or len(text)
    return _with_line(text[:end], " " * node.start_mark.column + item) + text[end:]


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _replace(path: Path, data: bytes) -> None:
    """Puts other content in place of a file at once; who may use it stays as it was."""
    with disk.explaining(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        new = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                was = path.stat()
                with contextlib.suppress(OSError):  # only root may give a file away
                    os.fchown(file.fileno(), was.st_uid, was.st_gid)
                os.fchmod(file.fileno(), was.st_mode & 0o7777)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
