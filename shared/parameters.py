"""Checks an operator's raw parameters against its pydantic model, and says in words what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from .errors import InputError

# Keys that FiftyOne itself puts among an operator's parameters.
_SYSTEM_KEYS = {"view_target", "custom_view_target", "panel_id", "panel_state", "delegation_target"}

LONGEST_SAID = 100  # characters of a wrong value that an error repeats


def validate(model: type[BaseModel], params: Mapping[str, Any]) -> Any:
    """Turns an operator's raw parameters into its pydantic model.

    Raises:
        InputError: one sentence for all that is wrong, misspelt names of parameters included
    """
    given = _given(params)
    strange = [name for name in given if name not in model.model_fields]
    if strange:
        raise InputError(" ".join(unknown(name, model.model_fields) for name in strange))
    wrong = errors(model, params)
    if wrong:
        raise InputError("; ".join(sentence(model, error) for error in wrong) + ".")
    return model.model_validate(given)


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the person gave; an emptied text box is no value: the default stands, as the form says."""
    return {
        name: value
        for name, value in params.items()
        if not name.startswith("_") and name not in _SYSTEM_KEYS and value is not None and value != ""
    }


def errors(model: type[BaseModel], params: Mapping[str, Any]) -> Sequence[Any]:
    """What is wrong with an operator's raw parameters, as pydantic says it."""
    try:
        model.model_validate(_given(params))
    except ValidationError as error:
        return error.errors()
    return []


def unknown(name: str, known: Iterable[str]) -> str:
    """A sentence for a parameter that there is not."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"There is no parameter {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")


def sentence(model: type[BaseModel], error: Any) -> str:
    """One of `errors` for a person, without a full stop."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # of several parameters together
        return f"{message[0].upper()}{message[1:]}"
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"The parameter {where!r} is required"
    if error["type"] == "string_pattern_mismatch":  # the description is what a person can read
        return f"The parameter {where!r} cannot be {_short(error['input'])} ({model.model_fields[where].description})"
    return f"The parameter {where!r} cannot be {_short(error['input'])}: {message[0].lower()}{message[1:]}"


def _short(value: Any) -> str:
    """A value as an error names it, without all of a long text."""
    said = repr(value)
    return said if len(said) <= LONGEST_SAID else f"{said[:LONGEST_SAID]}…"
