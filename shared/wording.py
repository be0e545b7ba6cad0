"""Numbers in sentences."""

from __future__ import annotations


def many(count: int, one: str, several: str | None = None) -> str:
    """A count and what is counted, such as "1 label", "1,200 labels", "2 classes" and "3 labels do".

    Args:
        count: how many
        one: what a single one is called
        several: what others are called; by default `one` with an s, or es after an s
    """
    regular = f"{one}es" if one.endswith("s") else f"{one}s"
    return f"{count:,} {one if count == 1 else several or regular}"
