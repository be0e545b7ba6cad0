"""The panel `model_lineage`, driven as the App drives it; a browser does so in test_app_lineage."""

from pathlib import Path

import fiftyone.core.odm as odm
import pytest

from shared.lineage.registry import Registry
from tests import records
from tests.panel import Panel

URI = "@mbari/lineage_card/model_lineage"


@pytest.fixture
def panel(registry, dataset):
    return Panel(URI, dataset)


@pytest.fixture
def versions(registry, tmp_path, monkeypatch):
    """Two versions, the younger one fine-tuned from the older, which is in production; oldest first."""
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    db = odm.get_db_conn()
    metrics = {"test": {"n": 60, "top1": 0.75, "macro_f1": 0.7}}
    first = records.add(db, tmp_path, files=records.files(), metrics=metrics)
    second = records.add(db, tmp_path, days=1, files=records.files(1), metrics=metrics, base_version=first.name)
    registry.set_alias("m", "production", first.version)
    return [first.name, second.name]


def rows(panel):
    return [row["version"] for row in panel.data[next(name for name in panel.shown if name.startswith("rows_"))]]


def test_without_a_version_it_says_what_to_do(panel):
    assert "No model version yet" in panel.do("on_load").texts()
    assert "Train a classifier" in panel.texts()


def test_the_list_is_shown_and_narrowed(panel, versions, tmp_path):
    other = records.add(odm.get_db_conn(), tmp_path, model="isiis").name
    assert rows(panel.do("on_load")) == [versions[1], *sorted([other, versions[0]], reverse=True)]
    assert rows(panel.do("choose_model", value="m")) == versions[::-1]
    assert rows(panel.do("choose_named", value=True)) == versions[:1]
    assert rows(panel.do("choose_model", value="isiis")) == []
    assert panel.data["rows_0"] == []


def test_long_lists_come_in_pages(panel, registry, tmp_path):
    names = [records.add(odm.get_db_conn(), tmp_path, days=day).name for day in range(27)][::-1]
    assert rows(panel.do("on_load")) == names[:25]
    assert "Page 1 of 2, 27 versions" in str(panel.shown["foot"])
    assert rows(panel.do("older")) == names[25:]
    assert rows(panel.do("older")) == names[25:]
    panel.do("open_row", row=1)
    assert panel.state["version"] == names[26]
    assert rows(panel.do("close")) == names[25:]
    assert rows(panel.do("newer")) == names[:25]


def test_a_version_is_opened_by_its_row_or_its_box(panel, versions):
    panel.do("on_load").do("open_row", row=1)
    assert panel.state["version"] == versions[0]
    assert "m@production" in panel.texts()
    assert versions[1] in panel.shown["family"]["view"]["data"][0]["ids"]
    panel.do("open_box", id=versions[1])
    assert panel.state["version"] == versions[1]
    panel.do("open_box", id=f"data of {versions[0]}")
    assert panel.state["version"] == versions[1]
    assert rows(panel.do("close")) == versions[::-1]


def test_its_figures_and_its_card_have_tabs_of_their_own(panel, versions):
    panel.do("on_load").do("open_row", row=0).do("choose_part", part="figures")
    assert "Judged on the 60 ROIs of the test split" in panel.texts()
    assert {"per_class", "confusion", "reliability", "loss", "accuracy"} <= set(panel.shown)
    panel.do("choose_part", part="card")
    assert "no card" in panel.texts()  # these were made without one


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(panel, versions, monkeypatch):
    monkeypatch.delenv("MBARI_ARTIFACTS")
    panel.do("on_load").do("open_row", row=0)
    assert "set the secret MBARI_ARTIFACTS" in panel.texts()
    assert "top-1 **0.750**" in panel.texts()
    assert "nothing that could be drawn" in panel.do("choose_part", part="figures").texts()


def test_a_version_that_went_away_is_said(panel, versions):
    panel.do("on_load").do("open_row", row=0)
    odm.get_db_conn()["mbari_versions"].delete_one({"_id": versions[1]})
    assert panel.do("choose_part", part="overview").shown["back"]
    panel.do("open_row", row=0)
    assert "has no version" in panel.texts()


@pytest.mark.parametrize(
    ("button", "operator"),
    [
        ("apply", "@mbari/apply_model/apply_model"),
        ("promote", "@mbari/lineage_card/promote_model"),
        ("show_training_data", "@mbari/lineage_card/show_training_data"),
        ("verify", "@mbari/lineage_card/verify_version"),
        ("write_note", "@mbari/lineage_card/write_card"),
    ],
)
def test_a_button_opens_the_form_of_an_operator_with_the_version(panel, versions, button, operator):
    panel.do("on_load").do("open_row", row=0).do(button)
    assert panel.prompted == [(operator, {"model": versions[1]})]


def test_what_a_form_has_changed_is_shown_once_it_was_executed(panel, versions, registry):
    panel.do("on_load").do("open_row", row=0).do("promote")
    assert "m@best" not in panel.texts()
    assert "who moved them" not in panel.texts()
    version = versions[1].rpartition("/")[2]
    registry.set_alias("m", "best", version, by="anna", reason="*Better* on copepods")
    assert "m@best" in panel.do(panel.afterwards).texts()
    assert "who moved them" in panel.texts()
    (row,) = panel.data["moves_1"]
    assert (row["alias"], row["version"], row["by"], row["reason"]) == (
        "m@best",
        version,
        "anna",
        "*Better* on copepods",
    )


def test_compare_proposes_what_is_in_production(panel, versions):
    panel.do("on_load").do("open_row", row=0).do("compare")
    assert panel.prompted == [("@mbari/lineage_card/compare_models", {"models": versions})]


def test_the_runs_are_a_button_away(panel, versions):
    assert panel.do("on_load").do("show_runs").prompted == [("@mbari/lineage_card/show_runs", {})]


def test_a_plugin_that_is_not_installed_is_named(panel, versions, monkeypatch, tmp_path):
    import fiftyone as fo

    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "lineage_card").symlink_to(Path(fo.config.plugins_dir) / "lineage_card")
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    panel.do("on_load").do("open_row", row=0).do("apply")
    assert panel.prompted == []
    assert panel.told == ["The operator @mbari/apply_model/apply_model is not installed here."]


def test_what_a_button_fills_in_is_taken_by_the_operators_form(panel, versions, dataset):
    from tests.worker import form

    panel.do("on_load").do("open_row", row=0).do("apply")
    uri, params = panel.prompted[0]
    said = form(uri, dataset, **params, panel_id="p", panel_state={})  # as the App sends them
    assert not [text for text in said if "parameter" in text]
    assert Registry(odm.get_db_conn()).resolve(params["model"]).prediction_field in " ".join(said)
