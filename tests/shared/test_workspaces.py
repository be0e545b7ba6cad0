"""Workspaces that the suite saves: made once, never over another's, laid out so that the App draws them."""

import fiftyone as fo
import pytest

from shared import workspaces

PANELS = {
    workspaces.MAP: ["Embeddings"],
    workspaces.REVIEW: [workspaces.EVALUATION, "Embeddings"],
    workspaces.TRAIN: ["model_lineage", "Histograms"],
}


def kinds(dataset, name):
    """The panels at the left of a workspace, and at its right."""
    return [[panel.type for panel in space.children] for space in dataset.load_workspace(name).children]


@pytest.mark.parametrize("name", PANELS)
def test_a_workspace_is_saved_once_and_says_which_panels_are_on_top(dataset, name):
    assert workspaces.save(dataset, name)
    assert kinds(dataset, name) == [["Samples"], PANELS[name]]
    spaces = dataset.load_workspace(name).children
    assert [space.active_child for space in spaces] == [space.children[0].component_id for space in spaces]

    theirs = fo.Space(children=[fo.Panel(type="Embeddings")])
    said = dataset.get_workspace_info(name)["description"]
    dataset.save_workspace(name, theirs, description=said, overwrite=True)
    assert workspaces.save(dataset, name)
    assert dataset.load_workspace(name) == theirs
    assert dataset.list_workspaces() == [name]


@pytest.mark.parametrize("name", [workspaces.MAP, "Embeddings Map"])
def test_a_workspace_of_others_stays(dataset, name):
    theirs = fo.Space(children=[fo.Panel(type="Histograms")])
    dataset.save_workspace(name, theirs, description="mine")
    assert not workspaces.save(dataset, workspaces.MAP)
    assert dataset.list_workspaces() == [name]
    assert dataset.load_workspace(name) == theirs


def test_a_panel_whose_plugin_is_not_installed_is_left_out(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    assert workspaces.save(dataset, workspaces.TRAIN)
    assert kinds(dataset, workspaces.TRAIN) == [["Samples"], ["Histograms"]]
