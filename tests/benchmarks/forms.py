"""How long the forms take: opened on 100,000 samples, and while a person types on 1,000,000.

As the App's server does it: FiftyOne resolves the form from the parameters so far, and turns it into JSON. Opened is
the first look of a process at one form, on the dataset, a view and a selection, with and without a model chosen; typing
is every later one, each with one parameter changed. What a check box shows is measured apart, when the form is opened.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks import _dataset, _labels, _registry

ROOT = Path(__file__).resolve().parent.parent.parent
OPENED, TYPED = 100_000, 1_000_000
VERSIONS = 60
GOAL = 0.5
STROKES = ("g", "ge", "Genus07_species0")
# Arguments of the process that opens one form: the operator, the dataset, and what stands in the form.
CHILD = "import sys; from tests.benchmarks import forms; forms.child(*sys.argv[1:])"


def run() -> list[dict[str, Any]]:
    """The benchmarks `forms` (opened) and `forms_typing`, each by its slowest form."""
    import fiftyone.core.odm as odm

    db = odm.get_db_conn()
    names = _registry.register(db, VERSIONS)
    try:
        with _surroundings(db):
            with _dataset.worked_on(OPENED, names[-1]) as dataset:
                opened = {uri: _opened(uri, dataset.name, names[-1]) for uri in _operators()}
            with _dataset.worked_on(TYPED, names[-1]) as dataset:
                typed = {uri: _typed(uri, dataset, names[-1]) for uri in _operators()}
    finally:
        _registry.forget(db, names)
    what = f"seconds until a form is open, {OPENED:,} samples, the slowest of {len(opened)}"
    typing = f"seconds for a key stroke in a form, {TYPED:,} samples, the slowest of {len(typed)}"
    return [_result("forms", what, opened), _result("forms_typing", typing, typed)]


def _result(name: str, unit: str, found: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    plain, boxes = (_slowest(found, ticked) for ticked in (False, True))
    return {
        "name": name,
        "ours": plain[0],
        "peer": None,
        "ratio": None,
        "unit": f"{unit}: {plain[1]}",
        "goal": f"<= {GOAL}",
        "slowest_with_boxes_ticked": boxes,
        "seconds": found,
    }


def _slowest(found: Mapping[str, Mapping[str, float]], ticked: bool) -> tuple[float, str] | None:
    """The longest time, and of which operator and case; None where nothing of the kind was measured."""
    cases = {
        f"{uri.split('/')[-1]}, {case}": seconds
        for uri, cases in found.items()
        for case, seconds in cases.items()
        if case.endswith("boxes ticked") == ticked
    }
    return max(((seconds, case) for case, seconds in cases.items()), default=None)


def _operators() -> list[str]:
    from fiftyone.operators.registry import OperatorRegistry

    found = OperatorRegistry().list_operators(builtin=False, type="operator")
    return sorted(operator.uri for operator in found if operator.uri.startswith("@mbari/"))


@contextmanager
def _surroundings(db: Any) -> Iterator[None]:
    """A vocabulary, a label store and an artifact root, for this process and those that it starts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-forms-")))
        (folder / "names.txt").write_text("\n".join(_dataset.CLASSES) + "\n")
        stack.enter_context(
            _labels.secrets(
                MBARI_VOCABULARY=str(folder / "names.txt"),
                MBARI_ARTIFACTS=str(folder),
                MBARI_LABEL_STORE=_labels.labels.store_uri("bench-forms"),
            )
        )
        yield


# --- opening ---


def _opened(uri: str, dataset: str, version: str) -> dict[str, float]:
    """Seconds of one form's first look in a process of its own, by case."""
    command = [sys.executable, "-c", CHILD, uri, dataset, version]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(uri: str, name: str, version: str) -> None:
    """Opens a form in each case, the first look of all first, nothing remembered between them; prints the seconds."""
    import fiftyone as fo
    from fiftyone import ViewField

    _operators()
    dataset = fo.load_dataset(name)
    _seconds("@voxel51/operators/edit_field_info", dataset, {})  # FiftyOne's own part has been used before
    view = dataset.match(ViewField("depth") < 100)
    spent: dict[str, float] = {}
    given = _given(uri, version)
    places = {
        "dataset": {},
        "view": {"view": view._serialize()},
        "selection": {"selected": dataset.limit(3).values("id")},
    }
    for place, more in places.items():
        for what, params in {"": {}, ", chosen": given}.items():
            _forget()
            spent[f"{place}{what}"] = round(_seconds(uri, dataset, params, **more), 4)
            if boxes := _boxes(uri, dataset, params, **more):
                _forget()
                spent[f"{place}{what}, boxes ticked"] = round(_seconds(uri, dataset, {**params, **boxes}, **more), 4)
    print(json.dumps(spent))


def _given(uri: str, version: str) -> dict[str, Any]:
    """What a person chooses first in a form: a model, or predictions."""
    chosen = {"model": version, "models": [version], "prediction_field": _dataset.PREDICTIONS}
    return {name: value for name, value in chosen.items() if name in _parameters(uri)}


def _parameters(uri: str) -> Mapping[str, Any]:
    from fiftyone.operators.registry import OperatorRegistry

    return OperatorRegistry().get_operator(uri).Params.model_fields


def _forget() -> None:
    """Empties what the plugins' forms remember."""
    for name, module in list(sys.modules.items()):
        if name.endswith(".shared.memo"):
            module.forget()


def _seconds(uri: str, dataset: Any, params: Mapping[str, Any], **more: Any) -> float:
    """The time of one request for a form."""
    began = time.perf_counter()
    _drawn(uri, dataset, params, **more)
    return time.perf_counter() - began


def _drawn(uri: str, dataset: Any, params: Mapping[str, Any], **more: Any) -> Mapping[str, Any]:
    """The inputs of a form, as the App's server gets them: it looks for the plugins at each request."""
    from fiftyone.operators.executor import resolve_type
    from fiftyone.operators.registry import OperatorRegistry

    request = {"dataset_name": dataset.name, "target": "inputs", "params": {**params}, "view": [], **more}
    form = asyncio.run(resolve_type(OperatorRegistry(), uri, request)).to_json()
    assert "type" in form, form["error"]
    return form["type"]["properties"]


def _boxes(uri: str, dataset: Any, params: Mapping[str, Any], **more: Any) -> dict[str, bool]:
    """The check boxes that show what takes longer, or few need, ticked; one may bring others."""
    ticked: dict[str, bool] = {}
    while new := {n for n in _drawn(uri, dataset, {**params, **ticked}, **more) if n.startswith("_show_")} - {*ticked}:
        ticked |= dict.fromkeys(new, True)
    return ticked


# --- typing ---


def _typed(uri: str, dataset: Any, version: str) -> dict[str, float]:
    """Seconds of a form on which one parameter after the other changes; the slowest stroke of each."""
    given, found = _given(uri, version), {}
    _seconds(uri, dataset, given)  # to open it is no stroke
    for name, field in _parameters(uri).items():
        strokes = [{**given, name: value} for value in _values(field)]
        found[name] = round(max(_seconds(uri, dataset, params) for params in strokes), 4)
    return found or {"nothing": round(_seconds(uri, dataset, {}), 4)}  # without parameters


def _values(field: Any) -> tuple[Any, ...]:
    """What a person enters one after the other, or the App sends while they do: texts grow, numbers change."""
    kind = str(field.annotation)
    if "bool" in kind:
        return (True, False)
    if "int" in kind or "float" in kind:
        return (1, 12, 0.5)
    if "list" in kind:
        return ([], list(STROKES[2:]))
    return STROKES
