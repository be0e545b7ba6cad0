"""What becomes of a value that Tator pastes into the SQL text of a bulk change (08, 03 B13).

Only the first line of PostgreSQL's messages is made; the line that follows shows a piece of Tator's own SQL.
"""

import json
import re
from typing import Any

from tests.tator.search import Refused

_WORD = re.compile(r"[A-Za-z_\x80-\U0010ffff][\w$]*|.?", re.DOTALL)


def pasted(value: Any) -> Any:
    """What PostgreSQL stores of a value, which may be another one.

    Raises:
        Refused: the SQL makes no sense, with PostgreSQL's message
    """
    text = (
        _quoted(value) if isinstance(value, str) else json.dumps(value) if not isinstance(value, list) else str(value)
    )
    if re.search("%(?!%)", text.replace("%%", "")):
        raise Refused("tuple index out of range")  # psycopg looks for a parameter
    text = text.replace("%%", "%")
    if "\0" in text:
        before = text[: text.index("\0")]
        raise _error(f'unterminated quoted string at or near "\'{before}"')
    end = _end(text)
    if end is not None:
        raise _error(f'syntax error at or near "{_WORD.match(text, end + 1).group()}"')  # type: ignore[union-attr]
    text = text.replace("''", "'")
    control = re.search("[\x01-\x1f]", text)
    if control:
        raise _error(
            "invalid input syntax for type json", f"Character with value 0x{ord(control[0]):02x} must be escaped."
        )
    return json.loads(text)


def _quoted(value: str) -> str:
    """As Tator writes it: quotes, backslashes and line ends are escaped, other control characters are not."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        value = value.replace(plain, escaped)
    return f'"{value}"'


def _end(text: str) -> int | None:
    """Where an apostrophe ends the SQL string too early; two in a row are one."""
    at = 0
    while (at := text.find("'", at)) >= 0:
        if text[at + 1 : at + 2] != "'":
            return at
        at += 2
    return None


def _error(line: str, detail: str = "") -> Refused:
    message = f"{line}\nLINE 1: ...\n" + (f"DETAIL:  {detail}\n" if detail else "")
    return Refused(message, message)
