"""What the operators that say labels share: the name, chosen from the vocabulary, and the tag that says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import samples
from .errors import InputError, SuiteError
from .forms import Form, cached
from .operators import secrets
from .sync.corrections import OWN_TAGS
from .sync.store import LabelField, vocabulary
from .vocabulary import Vocabulary


def names_of_form(form: Form, field: str) -> Vocabulary | None:
    """The vocabulary of a label field for a form, or None after an error was shown."""
    dataset, given = form.ctx.dataset, secrets(form.ctx)
    try:
        return cached(("vocabulary", dataset.name, field), lambda: vocabulary(dataset, field, given), seconds=10)
    except SuiteError as error:
        form.error(str(error))
        return None


def choose_name(form: Form, field: str, parameter: str = "label", **more: Any) -> None:
    """Draws a list of names to choose from, and says what is wrong with a typed one."""
    words = names_of_form(form, field)
    if words is None:
        return
    form.choice(parameter, [(name, name) for name in words.names], free=True, **more)
    given = form.value(parameter)
    if given and (problem := words.why_not(given)):
        form.error(problem)
    elif not len(words):
        form.error("There is no name to choose yet: add one with 'Add a name to the vocabulary'.")


def not_applied(view: Any, label_field: str, given: Mapping[str, str]) -> int:
    """How many samples of a view have a correction that is not their label yet, doubtful ones included.

    Raises:
        SuiteError: the vocabulary cannot be read, or the view shows parts of samples
    """
    dataset = view._root_dataset
    field = LabelField(dataset, label_field, samples.source_path(dataset, label_field))
    words = vocabulary(dataset, label_field, given)
    found = field.corrections(view, words, field.tags(words))
    return sum(correction.label != correction.wanted for correction in found if not correction.marked)


def correction_tag(label: str, words: Vocabulary, prefix: str | None, marker: str) -> str:
    """The tag that says a label.

    Raises:
        InputError: the label is no name of the vocabulary, or the tag would mean something else
    """
    if problem := words.why_not(label):
        raise InputError(problem)
    if not prefix and label in OWN_TAGS | {marker}:
        raise InputError(f"The tag {label!r} has a meaning of its own here; give a tag prefix, such as 'fix:'.")
    return (prefix or "") + label


def correction_tags(words: Vocabulary, prefix: str | None) -> list[str]:
    """All tags that are a correction."""
    return [(prefix or "") + name for name in words.names if prefix or name not in OWN_TAGS]
