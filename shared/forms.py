"""The inputs of operators' forms, drawn from one declaration: the operator's pydantic parameters.

A parameter's type, default, bounds, title and description are written once, in the operator's
`Params`; the form shows them and the run validates with them, so both say the same.
"""

from __future__ import annotations

import re
import types as python_types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.operators.types as types
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from . import parameters
from .errors import SuiteError
from .lineage.registry import Registry, is_registered
from .memo import cached
from .tables import show_table
from .wording import many

SELECTED = "_selected"  # how many samples were selected when the form was opened
SLOW = 200_000  # samples from which on what reads all of them is shown on request


class Form:
    """Builds an operator's form from its parameters.

    Args:
        ctx: FiftyOne's execution context
        params: the operator's pydantic model
    """

    def __init__(self, ctx: Any, params: type[BaseModel]) -> None:
        self.ctx = ctx
        self.inputs = types.Object()
        self._params = params
        self._wrong = {str(error["loc"][0]) for error in parameters.errors(params, ctx.params) if error["loc"]}
        self._notices = 0
        self._target: Any = None
        self._counted: int | None = None
        self._target_notice: types.Property | None = None

    @property
    def db(self) -> Any:
        """FiftyOne's database, for the suite's own collections."""
        return odm.get_db_conn()

    def value(self, name: str, first: Any = None) -> Any:
        """What the person has entered for a parameter so far, else its default (None when there is none).

        A value that the run would refuse counts as not entered, so that a form may compute with what it gets; `check`
        says what is wrong with it.

        Args:
            name: the parameter
            first: what stands in its input at first instead of its default; until the App has sent it, it counts
        """
        entered = self.ctx.params.get(name)
        if entered is not None and entered != "" and name not in self._wrong:
            return entered
        if first is not None and (name not in self.ctx.params or name in self._wrong):
            return first
        default = self._params.model_fields[name].get_default(call_default_factory=True)
        return None if default is PydanticUndefined else default

    @property
    def slow(self) -> bool:
        """Whether the dataset has so many samples that to read a field of all takes longer than a person waits."""
        return self.ctx.dataset.count() > SLOW

    def target(self, view: Any) -> bool:
        """Lets the person choose the samples (selection, view or dataset), and says how many `view` has.

        Returns:
            whether these are samples that an operator can work on
        """
        from .samples import not_samples

        self.inputs.view_target(self.ctx)
        # The App may lose the selection while a form is open, and the target would silently become the whole dataset.
        # (The App does not send what stands in a `HiddenView`.)
        unseen = types.FieldView(componentsProps={"container": {"sx": {"display": "none"}}})
        selected = self.ctx.selected or []  # FiftyOne 1.12 may say None
        self.inputs.int(SELECTED, default=len(selected), view=unseen)
        if gone := lost_selection(self.ctx):
            self.error(gone)
        if problem := not_samples(view):
            self.error(problem)
            return False
        self._target = view
        self._target_notice = self._view(types.Notice(label=""))  # `check` says it: what the form counts may tell it
        return True

    def counted(self, count: int) -> None:
        """Takes over how many samples the target has, from what has read all of it: they are not counted again."""
        self._counted = count

    @property
    def count(self) -> int:
        """How many samples the target has."""
        from .samples import state

        if self._counted is None:
            self._counted = cached(("count", *state(self._target)), self._target.count)
        return self._counted

    @property
    def all(self) -> bool:
        """Whether nothing was chosen, and the whole dataset is the target."""
        return not self.ctx.selected and self.count == self._target._root_dataset.count()

    def warn_of_all(self) -> None:
        """Says so where nothing was chosen, and the whole dataset is the target of something that changes much."""
        if self.all:
            self.warning("No ROI is selected, and no view is open: this is for every ROI of the dataset.")

    def fields(self, *names: str) -> None:
        """Adds the inputs of several parameters, each drawn from its declaration."""
        for name in names:
            self.field(name)

    def field(self, name: str, **more: Any) -> types.Property:
        """Adds one parameter's input, drawn from its declaration.

        Args:
            name: the parameter
            **more: overrides for FiftyOne's property, such as `default` or `view`
        """
        declared = self._params.model_fields[name]
        kind, optional = _unwrap(declared.annotation)
        options = self._options(name, more)
        if get_origin(kind) is Literal:
            return self.choice(name, [(v, str(v)) for v in get_args(kind)], **more)
        if kind is bool:
            return self.inputs.bool(name, **{"view": types.CheckboxView(), **options})
        if kind in (int, float):
            low, high = _bounds(declared.metadata)
            add = self.inputs.int if kind is int else self.inputs.float
            return add(name, min=low, max=high, **options)
        if get_origin(kind) is list:
            return self.inputs.list(name, types.String(), **options)
        return self.inputs.str(name, allow_empty=optional, **options)

    def _options(self, name: str, more: dict[str, Any]) -> dict[str, Any]:
        """What FiftyOne's property of a parameter gets: what was declared, and what a form knows better."""
        declared = self._params.model_fields[name]
        default = more.get("default", declared.get_default(call_default_factory=True))
        default = None if default is PydanticUndefined else default
        return {
            "label": declared.title or name.replace("_", " ").capitalize(),
            "description": declared.description,
            # The App says that something is missing until it has filled in the default.
            "required": declared.is_required() and default is None,
            **more,
            "default": default,
        }

    def choice(
        self, name: str, choices: Sequence[tuple[Any, str]], *, free: bool = False, several: bool = False, **more: Any
    ) -> types.Property:
        """Adds a parameter that is chosen from a list.

        Args:
            name: the parameter
            choices: (value, label) pairs
            free: whether another value may be typed
            several: whether any number may be chosen
            **more: overrides for FiftyOne's property
        """
        options = self._options(name, more)
        kind = types.AutocompleteView if free or several else types.DropdownView
        view = kind(multiple=several, allow_user_input=free, allow_duplicates=False) if free or several else kind()
        for value, label in choices:
            view.add_choice(value, label=label)
        if several:
            return self.inputs.list(name, types.String(), view=view, **options)
        if free:
            return self.inputs.str(name, view=view, **options)
        values = [value for value, _ in choices]
        input_ = self.inputs.enum(name, values, view=view, **options)
        given = self.ctx.params.get(name)
        if given not in (None, "") and given not in values:
            some = ", ".join(str(value) for value in values[:10]) or "none"
            _refuse(input_, f"The parameter {name!r} cannot be {given!r}: there is {some}.")
        return input_

    def label_field(self, name: str = "label_field") -> str | None:
        """Adds the choice of a `Classification` field; returns the chosen one if it exists."""
        from .samples import label_fields

        if self.ctx.dataset is None:
            self.error("Open a dataset first.")
            return None
        have = label_fields(self.ctx.dataset)
        chosen = self.value(name)
        if not self.ctx.params.get(name) and chosen not in have and len(have) == 1:
            chosen = have[0]
        input_ = self.choice(name, [(field, field) for field in have], default=chosen if chosen in have else None)
        if chosen in have:
            return chosen
        none = "No field of this dataset has labels yet: 'Label clusters' and 'Accept predictions' can make one."
        other = f"The dataset has no Classification field {chosen!r} (it has: {', '.join(have)})."
        _refuse(input_, other if have else none)
        self.error(input_.error_message)
        return None

    def predictions(self, name: str = "prediction_field", more: Sequence[tuple[str, str]] = (), **options: Any) -> Any:
        """Adds the choice of a field of predictions; that of the last list or selection, or the newest, comes first.

        Args:
            name: the parameter
            more: further choices
            **options: see `choice`; a `default` wins

        Returns:
            the one that is chosen so far, else what stands there first
        """
        from . import focus_views, samples, selected

        dataset = self.ctx.dataset
        have = samples.predictions(dataset)
        if not have:
            self.notice("No field has predictions of this suite yet: run 'Apply a classifier' first.")
        last = [focus_views.last(dataset).get(name), selected.last(dataset).get("field"), *have[:1]]
        first = next((field for field in last if field in have), None)
        have = have or samples.label_fields(dataset)
        options = {"default": first, **options}
        self.choice(name, [(field, field) for field in have] + list(more), **options)
        return self.value(name) or options["default"]

    def registered(self, name: Any) -> Any:
        """The registry's record that a model's name means, or None for files and hubs; an unknown one is an error."""
        if not isinstance(name, str) or not is_registered(name):
            return None
        try:
            return Registry(self.db).resolve(name)
        except SuiteError as error:
            self.error(str(error))
            return None

    def models(self) -> list[tuple[str, str]]:
        """The names that mean a version of the registry, with a text for each: aliases first, then the newest."""

        def look() -> list[tuple[str, str]]:
            registry = Registry(self.db)
            named = []
            for model in registry.models():
                for alias, version in registry.aliases(model).items():
                    named.append((f"{model}@{alias}", f"{model}@{alias} ({version})"))
            return named + [(record.name, record.name) for record in registry.versions()[:50]]

        return cached("forms/models", look, seconds=5)

    def version(self, name: str = "model", **more: Any) -> None:
        """Adds the choice of a version of the registry, or of `several`."""
        have = self.models()
        self.choice(name, have, free=True, **more)
        if not have:
            self.error("No model is registered yet: train one with 'Train a classifier'.")

    def vectors_field(self, name: str) -> None:
        """Adds the choice of a field of vectors: the usual one, else the first that has some."""
        from . import vectors
        from .samples import state

        dataset, usual = self.ctx.dataset, self.value(name)
        first = usual
        if dataset.get_field(usual) is None:
            first = cached(("vectors", *state(dataset.view())), lambda: vectors.first(dataset)) or usual
        self.sample_field(name, fo.VectorField, how=vectors.RUN, default=first)

    def sample_field(self, name: str, *kinds: type[fo.Field], how: str | None = None, **more: Any) -> None:
        """Adds the optional choice of one of the dataset's fields of these types, FiftyOne's own left out.

        Args:
            name: the parameter
            *kinds: the types
            how: what to do where there is no such field
            **more: see `choice`
        """
        from .samples import FIFTYONES_OWN, fields, has_path

        have = [field for field in fields(self.ctx.dataset, *kinds) if field not in FIFTYONES_OWN]
        self.choice(name, [(field, field) for field in have], free=True, **more)
        chosen = self.value(name, more.get("default"))
        if chosen and not has_path(self.ctx.dataset, chosen):
            there = f"(it has: {', '.join(have) or 'none of this kind'}){f'; {how} first' if how else ''}"
            self.error(f"The dataset has no field {chosen!r} {there}.")

    def slices(self, name: str = "slices") -> None:
        """Adds the choice of the dataset's fields to measure a model apart by."""
        from .samples import sliced_fields

        have = sliced_fields(self.ctx.dataset)
        self.choice(name, [(field, field) for field in have], free=True, several=True)

    def notice(self, text: str) -> None:
        """Shows a neutral remark."""
        self._view(types.Notice(label=text))

    def warning(self, text: str) -> None:
        """Shows something the person should know before starting; the run is still possible."""
        self._view(types.Warning(label=text))

    def error(self, text: str) -> None:
        """Shows why the run is not possible as it stands, and keeps it from being started."""
        self._notices += 1
        _refuse(self.inputs.view(f"_problem_{self._notices}", types.Error(label=text)), text)

    def table(self, rows: Sequence[Mapping[str, Any]], label: str) -> None:
        """Shows rows of equal keys as a table."""
        if rows:
            self._notices += 1
            name = f"_table_{self._notices}"
            show_table(self.inputs, name, rows, label)

    def on_request(self, question: str) -> bool:
        """Adds a check box for something that takes long, or few need, to show; True once it is ticked."""
        # By what it asks: other boxes come and go, and must not tick this one or untick it.
        name = "_show_" + re.sub(r"\W+", "_", question.partition(":")[0].lower()).removeprefix("show_")
        self.inputs.bool(name, label=question, default=False, view=types.CheckboxView())
        return bool(self.ctx.params.get(name))

    def check(self) -> None:
        """Keeps from starting what the run would refuse, in the same words, with the form or without."""
        self._say_target()
        drawn = self.inputs.properties
        ended = any(input_.invalid for input_ in drawn.values())
        self.inputs.properties = {}
        for error in parameters.errors(self._params, self.ctx.params):
            name = str(error["loc"][0]) if error["loc"] else ""
            # A form that ends early has said why; what is required would be asked for further down.
            if error["type"] == "missing" and (not name or ended or self._left_to_fiftyone(drawn.get(name), name)):
                continue
            if error["type"] == "extra_forbidden":
                self.error(parameters.unknown(name, self._params.model_fields))
            elif name in drawn:
                _refuse(drawn[name], parameters.sentence(self._params, error))
            else:
                self.error(parameters.sentence(self._params, error) + ".")
        self.inputs.properties |= drawn  # what has no input of its own is said first

    def _say_target(self) -> None:
        if self._target_notice is None:
            return
        if not self.count:
            why = "There is no sample in the chosen view; choose another target."
            self._target_notice.view = types.Error(label=why)
            _refuse(self._target_notice, why)
            return
        of = self._target._root_dataset.count()
        self._target_notice.view = types.Notice(label=_works_on(self.count, of))

    def _left_to_fiftyone(self, input_: types.Property | None, name: str) -> bool:
        """Whether the App itself says that an input is required, or is about to fill in its default."""
        return input_ is not None and (input_.required or name not in self.ctx.params)

    def _view(self, view: types.View) -> types.Property:
        self._notices += 1
        return self.inputs.view(f"_notice_{self._notices}", view)


def _works_on(count: int, of: int) -> str:
    if count < of:
        return f"Works on {count:,} of {many(of, 'ROI')}."
    return f"Works on all {many(of, 'ROI')}." if of > 1 else "Works on the only ROI of the dataset."


def lost_selection(ctx: Any) -> str | None:
    """Why a form that was opened for selected samples must not be run: they are selected no more."""
    count = ctx.params.get(SELECTED)
    if not count or ctx.selected:
        return None
    return f"The selection of {count:,} is gone: close this form, select the ROIs again and open it anew."


def _refuse(input_: types.Property, why: str) -> None:
    """Keeps a form from being started because of one of its inputs."""
    input_.invalid = True
    input_.error_message = why


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """The type inside `X | None`, and whether None was allowed."""
    if get_origin(annotation) in (Union, python_types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        return inner[0], len(inner) < len(get_args(annotation))
    return annotation, False


def _bounds(metadata: Iterable[Any]) -> tuple[float | None, float | None]:
    low = high = None
    for constraint in metadata:
        low = getattr(constraint, "ge", getattr(constraint, "gt", low))
        high = getattr(constraint, "le", getattr(constraint, "lt", high))
    return low, high
