"""Plain text as Markdown that shows exactly this text, whatever characters it has.

Names of classes, fields and datasets, and what people write, may hold anything. CommonMark's and GitHub's rules for
what a character can start are many; each character that can start something is escaped, wherever it stands.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

NONE = "\N{EN DASH}"  # in a cell without a value

# Entities where a backslash is not enough everywhere: HTML, the cells of tables, formulas between dollar signs.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "$": "&#36;"}
_ESCAPED = re.compile(r"[\\`*\[\]~^]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word starts nothing
_LINE_START = re.compile(r"^(\s*\d{1,9})([.)])(?=\s|$)|^([#=:]|[+\-](?=[\s+\-]|$))")
_BREAK = re.compile(r"\r\n|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")
_ENDS = re.compile(r"^[ \t]+|[ \t]+$")
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")  # text around from right to left, which would mix up a line


def inline(text: str) -> str:
    """Text inside a line or a cell.

    Names that differ in what cannot be seen must not look the same: a line break is shown as "↵", a space or tab at
    either end as "␣", another control character as "\ufffd".
    """
    text = _BREAK.sub("↵", text)
    return _line(_ENDS.sub(lambda found: "␣" * len(found[0]), text))


def paragraph(text: str) -> str:
    """Text of several lines, each a line of its own, empty ones between paragraphs."""
    lines = [_line(line.strip()) for line in _BREAK.split(text.strip())]
    blocks = re.split(r"\n{2,}", "\n".join(lines))
    return "\n\n".join(block.replace("\n", "\\\n") for block in blocks if block)


def quoted(text: str) -> str:
    """The same as a quotation."""
    return "\n".join(f"> {line}".rstrip() for line in paragraph(text).split("\n"))


def code(text: str) -> str:
    """Text that has no back tick and no pipe, such as a hash or a key, in letters of equal width."""
    return f"`{text}`" if re.fullmatch(r"[\w.:/@+,-][\w.:/@+, -]*", text) else inline(text)


def bullets(items: Iterable[str]) -> str:
    """A list; the items are Markdown."""
    return "\n".join(f"- {item}" for item in items)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table; all cells are Markdown.

    Args:
        header: of each column
        rows: of as many cells as the header
        numbers: columns to be set to the right
    """
    rules = ["---:" if place in numbers else "---" for place in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def utc(iso: str) -> str:
    """Such as "2026-03-01 12:00 UTC", from a time in ISO 8601 and UTC."""
    return inline(f"{iso[:16].replace('T', ' ')} UTC")


def _line(text: str) -> str:
    text = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text.replace("\t", " "))
    text = _ESCAPED.sub(lambda found: f"\\{found[0]}", _TURNS.sub("\ufffd", text))
    text = "".join(_ENTITIES.get(c, c) for c in text)
    return _LINE_START.sub(lambda found: f"{found[1] or ''}\\{found[2] or found[3]}", text)
