"""Tables of plain values, in operators' forms and in their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone.operators.types as types


def show_table(target: types.Object, name: str, rows: Sequence[Mapping[str, Any]], label: str) -> None:
    """Adds a read-only table of rows (dicts with the same keys) to a form or an output."""
    view = types.TableView()
    for key in rows[0]:
        view.add_column(key, label=key.replace("_", " ") if key.isidentifier() else key)
    row_type = types.Object()
    for key in rows[0]:
        row_type.str(key)
    cells = [{key: _cell(value) for key, value in row.items()} for row in rows]
    target.list(name, row_type, label=label, view=view, default=cells, read_only=True)


def _cell(value: Any) -> str:
    """A value as a table shows it: FiftyOne's own leaves booleans blank and floats with all their digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return "" if value is None else str(value)
