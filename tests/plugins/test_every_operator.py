"""What holds for every operator of the manifests: with a form or without, the same validation in the same words."""

import asyncio
import re
from functools import cache
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
import yaml
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionError, resolve_type
from fiftyone.operators.registry import OperatorRegistry

from tests import labels

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


def _uris():
    for manifest in sorted(PLUGINS.glob("*/fiftyone.yml")):
        declared = yaml.safe_load(manifest.read_text())
        yield from (f"{declared['name']}/{name}" for name in declared["operators"])


URIS = [uri for uri in _uris() if not uri.endswith("/model_lineage")]  # a panel
every = pytest.mark.parametrize("uri", URIS, ids=lambda uri: uri.split("/")[-1])


@pytest.fixture(scope="module")
def rois(module_registry):
    """Six labelled samples, three of each class, and predictions."""
    dataset = fo.Dataset()
    labels.fill(dataset, ["Calanus", "Metridia"] * 3)
    dataset.set_values("guess", [fo.Classification(label="Calanus", confidence=0.9)] * 6)
    yield dataset
    dataset.delete()


@cache
def registry():
    return OperatorRegistry()  # FiftyOne makes one at each request; these tests need but one


def operator(uri):
    return registry().get_operator(uri)


def drawn(uri, dataset=None, params=None, **more):
    """The inputs of a form by their names, as the App gets them."""
    request = {"dataset_name": None if dataset is None else dataset.name, "params": {**(params or {})}, **more}
    form = asyncio.run(resolve_type(registry(), uri, request)).to_json()
    assert "type" in form, form["error"]
    return form["type"]["properties"]


def refusals(inputs):
    """Why a form cannot be started, each reason without its full stop."""
    return [one["error_message"].rstrip(".") for one in inputs.values() if one["invalid"]]


def refused(uri, dataset=None, params=None):
    """What an execution without a form is refused for: the sentence, and by FiftyOne the input that it is about.

    FiftyOne draws the form for such a call too, and refuses what the form would; the run itself sees to the rest.
    """
    context = {"params": params or {}, "request_delegation": False, **({} if dataset is None else {"dataset": dataset})}
    with pytest.raises(ExecutionError) as caught:
        foo.execute_operator(uri, context)
    found = re.match(
        r"(?:mbari\.InputError: |Validation error\. Path: (\w+)\. Reason: )(.*?)\.?\n", f"{caught.value}\n"
    )
    assert found, str(caught.value)
    return found[2], found[1]


def given(uri):
    """Values for the parameters that an operator cannot do without."""
    known: dict[str, Any] = {"models": ["m"], "prediction_field": "guess", "label": "Calanus"}
    known |= {"alias": "m@staging" if uri.endswith("/rollback_alias") else "staging"}
    if uri.endswith("/correct_labels"):  # this one or a label
        return {"clear": True}
    fields = operator(uri).Params.model_fields
    return {name: known.get(name, "m") for name, field in fields.items() if field.is_required()}


@every
def test_a_misspelt_parameter_is_refused(uri, rois):
    params = {**given(uri), "modle_name": "ptvr"}
    said, _ = refused(uri, rois, params)
    assert said.startswith("There is no parameter 'modle_name'")
    assert said == refusals(drawn(uri, rois, params))[0]


@every
def test_a_value_of_another_type_is_refused(uri, rois):
    for name in operator(uri).Params.model_fields:
        params = {**given(uri), name: {"not": "a value"}}
        found = refusals(drawn(uri, rois, params))
        assert any(said.startswith(f"The parameter '{name}' cannot be {{'not': 'a value'}}") for said in found), name
    if operator(uri).Params.model_fields:  # the last one stands for all
        assert refused(uri, rois, params)[0] in found


@every
def test_what_is_required_is_said(uri, rois):
    for name in given(uri):
        params = {key: value for key, value in given(uri).items() if key != name}
        inputs = drawn(uri, rois, params)
        said, where = refused(uri, rois, params)
        if where is None:  # the run says it where the form has a default
            assert said.startswith(f"The parameter '{name}' is required")
            assert inputs[name]["default"] is not None
        elif said == "Required property":  # FiftyOne's words, in the form as well
            assert inputs[where]["required"]
        else:
            assert said in refusals(inputs)


@every
def test_without_a_dataset(uri):
    if not operator(uri).spec.needs_dataset:
        assert "Open a dataset first" not in refusals(drawn(uri))
        return
    assert refusals(drawn(uri)) == ["Open a dataset first"]
    assert refused(uri, params=given(uri))[0] == "Open a dataset first"


def test_what_can_only_be_scheduled_is_scheduled_and_checked_first(rois):
    only = [uri for uri in URIS if operator(uri).spec.execution == "delegated"]
    assert [uri.split("/")[-1] for uri in only] == ["iterate_model", "train_classifier"]
    rois.set_values("tags", [["train"], ["train"], ["val"], ["val"], ["train"], ["train"]])
    for uri in only:
        params = {**given(uri), "min_per_class": 1}
        with pytest.raises(ExecutionError, match="cannot be 0: input should be greater than or equal to 1"):
            foo.execute_operator(uri, {"dataset": rois, "params": {**params, "epochs": 0}})
        done = foo.execute_operator(uri, {"dataset": rois, "params": params, "request_delegation": False})
        service = DelegatedOperationService()
        assert service.get(done.result["id"]).run_state == "queued"
        service.delete_operation(done.result["id"])


# --- forms, whatever the dataset ---


@pytest.fixture(scope="module")
def datasets(rois):
    """Datasets as a person may have them, by what they are."""
    made = {name: fo.Dataset() for name in ("empty", "no labels", "boxes")}
    made["no labels"].add_sample(fo.Sample(filepath="/a.png"))
    box = fo.Detection(label="a", bounding_box=[0, 0, 1, 1])
    made["boxes"].add_sample(fo.Sample(filepath="/b.png", boxes=fo.Detections(detections=[box]), dive="one"))
    yield {**made, "labels": rois}
    for dataset in made.values():
        dataset.delete()


@every
def test_no_form_raises_whatever_is_open(uri, datasets):
    boxes, rois = datasets["boxes"], datasets["labels"]
    shown = [{"view": boxes.to_patches("boxes")._serialize()}, {"view": boxes.group_by("dive")._serialize()}]
    states = [(dataset, {}) for dataset in datasets.values()] + [(boxes, more) for more in shown]
    states += [(rois, {"selected": rois.limit(1).values("id")}), (None, {})]
    for dataset, more in states:
        opened = drawn(uri, dataset, **more)
        ticked = {name: True for name in opened if name.startswith("_show_")}
        for inputs in (opened, drawn(uri, dataset, {**given(uri), **ticked}, **more)):
            said = [one["view"]["label"] for name, one in inputs.items() if name.startswith(("_notice", "_problem"))]
            assert all(text.endswith((".", ":", "?")) for text in said), said
            # Else the App calls missing what it has not filled in yet.
            assert not [name for name, one in inputs.items() if one["required"] and one["default"] is not None]
