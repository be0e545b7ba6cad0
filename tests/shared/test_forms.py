"""Forms come from the declaration that the run validates with, and say the same."""

from typing import Literal

import fiftyone as fo
from fiftyone.operators.executor import ExecutionContext
from pydantic import BaseModel, ConfigDict, Field

from shared import forms


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


def test_what_has_a_default_is_not_called_missing_before_the_app_has_filled_it_in():
    form = forms.Form(Context(), Params)
    form.field("name", default="ab")
    form.check()
    assert (drawn(form)["name"]["required"], drawn(form)["name"]["invalid"]) == (False, False)
    emptied = forms.Form(Context(name=""), Params)
    emptied.field("name", default="ab")
    emptied.check()
    assert drawn(emptied)["name"]["error_message"] == "The parameter 'name' is required"


def test_what_has_no_input_is_said_above_all_others():
    form = forms.Form(Context(nmae="ab", epochs=0), Params)
    form.field("name")
    form.check()
    said = [one["error_message"] for one in drawn(form).values() if one["invalid"]]
    assert [text.split(";")[0].split(":")[0] for text in said] == [
        "The parameter 'epochs' cannot be 0",
        "There is no parameter 'nmae'",
    ]
    assert list(drawn(form))[-1] == "name"


def test_an_error_in_a_form_keeps_it_from_being_started():
    form = forms.Form(Context(), Params)
    form.warning("look")
    form.error("no")
    views = list(drawn(form).values())
    assert [view["invalid"] for view in views] == [False, True]
    assert views[1]["error_message"] == "no"


def test_an_input_that_the_run_would_refuse_is_marked_in_the_form():
    form = forms.Form(Context(mode="slow", epochs=7), Params)
    form.fields("name", "mode", "epochs")
    form.check()
    inputs = drawn(form)
    assert [inputs[name]["invalid"] for name in inputs] == [False, True, False]
    assert inputs["mode"]["error_message"].startswith("The parameter 'mode' cannot be 'slow'")


def test_a_ticked_box_stays_ticked_when_a_notice_appears_above():
    plain, noticed = (forms.Form(Context(_show_it=True), Params) for _ in range(2))
    noticed.warning("look")
    assert plain.on_request("Show it")
    assert noticed.on_request("Show it")


def test_a_form_says_how_many_samples_it_works_on(dataset):
    def says(view, counted=None):
        form = forms.Form(ExecutionContext({"dataset_name": dataset.name, "params": {"name": "ab"}}), Params)
        form.target(view)
        if counted is not None:
            form.counted(counted)
        form.check()
        return next(v["view"]["label"] for name, v in drawn(form).items() if name.startswith(("_notice", "_problem")))

    assert says(dataset.view()).startswith("There is no sample")
    dataset.add_samples([fo.Sample(filepath=f"{i}.png") for i in range(3)])
    assert says(dataset.view()) == "Works on all 3 ROIs."
    assert says(dataset.limit(1)) == "Works on 1 of 3 ROIs."
    assert says(dataset.limit(2), counted=2) == "Works on 2 of 3 ROIs."
    dataset.delete_samples(dataset.skip(1))
    assert says(dataset.view()) == "Works on the only ROI of the dataset."


def test_the_only_label_field_is_the_default(dataset):
    dataset.add_sample_field("species", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    form = forms.Form(Context(dataset), Params)
    assert form.label_field("field") == "species"
    assert drawn(form)["field"]["default"] == "species"


def test_a_table_is_made_for_reading():
    form = forms.Form(Context(), Params)
    row = {"class": "Calanus", "n": 12345, "top1": 2 / 3, "used": True, "why": None, "ptvr/2026_1": 1}
    form.table([row], "Classes")
    table = drawn(form)["_table_1"]
    assert list(table["default"][0].values()) == ["Calanus", "12,345", "0.667", "yes", "", "1"]
    assert [column["label"] for column in table["view"]["columns"]][-1] == "ptvr/2026_1"


def test_a_label_field_that_does_not_exist_is_an_error(dataset):
    form = forms.Form(Context(dataset, field="ground_truth"), Params)
    assert form.label_field("field") is None
    assert "No field of this dataset has labels yet" in drawn(form)["_problem_1"]["error_message"]
    dataset.add_sample_field("species", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    form = forms.Form(Context(dataset, field="ground_truth"), Params)
    assert form.label_field("field") is None
    assert "no Classification field 'ground_truth'" in drawn(form)["_problem_1"]["error_message"]
