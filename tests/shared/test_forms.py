"""Forms and validation come from one declaration, and say the same."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from shared import forms
from shared.errors import InputError


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=2, title="The name")
    epochs: int = Field(50, ge=1, le=100)
    share: float = Field(0.5, ge=0, le=1)
    mode: Literal["fast", "exact"] = "fast"
    flag: bool = True
    classes: list[str] | None = None
    field: str | None = None


class Context:
    def __init__(self, dataset=None, **params):
        self.dataset, self.params = dataset, params


def drawn(form):
    return form.inputs.to_json()["properties"]


def test_every_parameter_is_drawn_from_its_declaration():
    form = forms.Form(Context(), Params)
    form.fields(*Params.model_fields)
    inputs = drawn(form)
    assert list(inputs) == list(Params.model_fields)
    assert inputs["name"]["required"]
    assert inputs["name"]["view"]["label"] == "The name"
    assert inputs["epochs"]["type"] | {"min": 1, "max": 100, "int": True} == inputs["epochs"]["type"]
    assert inputs["epochs"]["default"] == 50
    assert inputs["mode"]["type"]["values"] == ["fast", "exact"]
    assert inputs["flag"]["default"] is True
    assert not inputs["field"]["required"]


def test_validation_gives_the_defaults():
    params = forms.validate(
        Params, {"name": "ab", "field": "", "_notice_1": "x", "view_target": "DATASET", "classes": None}
    )
    assert params == Params(name="ab")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "The parameter 'name' is required"),
        ({"name": "ab", "epoch": 3}, "There is no parameter 'epoch'; did you mean 'epochs'"),
        ({"name": "ab", "epochs": 0}, "The parameter 'epochs' cannot be 0: input should be greater than or equal to 1"),
        ({"name": "ab", "epochs": "many"}, "The parameter 'epochs' cannot be 'many': input should be a valid integer"),
        ({"name": "ab", "mode": "slow"}, "The parameter 'mode' cannot be 'slow': input should be 'fast' or 'exact'"),
        ({"name": "a", "share": 2}, "(?s)'name' cannot be 'a'.*; The parameter 'share' cannot be 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(given, said):
    with pytest.raises(InputError, match=said) as caught:
        forms.validate(Params, given)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_form_keeps_it_from_being_started():
    form = forms.Form(Context(), Params)
    form.warning("look")
    form.error("no")
    views = list(drawn(form).values())
    assert [view["invalid"] for view in views] == [False, True]
    assert views[1]["error_message"] == "no"


def test_a_label_field_that_does_not_exist_is_an_error(dataset):
    form = forms.Form(Context(dataset, field="ground_truth"), Params)
    assert form.label_field("field") is None
    assert "no Classification field 'ground_truth'" in drawn(form)["_notice_1"]["error_message"]


def test_a_slow_answer_is_remembered_for_a_while():
    calls = []

    def compute():
        calls.append(1)
        return len(calls)

    assert [forms.cached("key", compute) for _ in range(3)] == [1, 1, 1]
    assert forms.cached("other key", compute) == 2
    assert forms.cached("key", compute, seconds=0) == 3
