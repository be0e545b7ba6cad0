"""From the list of models to a card, figures, the family and a filled-in form, in FiftyOne's App and a real browser."""

import fiftyone as fo
import pytest

from tests import browser, versions

IMAGES = 12  # of each of three classes
TOTAL = 3 * IMAGES
HEADER = ("Version", "Alias", "Top-1", "Macro F1", "Data", "Data since", "Trained (UTC)", "Dataset", "Judged on")


@pytest.fixture(scope="module")
def plankton(module_registry):
    browser.chromium()
    dataset = fo.Dataset("plankton-with-models")
    dataset.persistent = True
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="module")
def trained(plankton, folder, module_registry):
    """Two versions, the younger one fine-tuned from the older, which is in production; older first."""
    versions.fill(plankton, folder / "rois", IMAGES)
    first = versions.trained(plankton, folder)
    module_registry.set_alias("m", "production", first.version, by="ann")
    return first, versions.trained(plankton, folder, base_weights="m@production")


@pytest.fixture(scope="module")
def person(plankton, trained, folder):
    secrets = {"MBARI_ARTIFACTS": str(folder / "artifacts")}
    with browser.app(plankton.name, folder / "app.log", **secrets) as url, browser.person(url) as person:
        yield person


def test_a_model_is_looked_up_read_and_applied(person, trained):
    first, second = trained
    person.open_app(TOTAL)
    sent = person.events("model_lineage")
    person.open_panel("Model lineage", "Click a version")
    listed = person.table(*HEADER)
    assert [row[:2] for row in listed] == [[second.name, "candidate"], [first.name, "production"]]
    assert {row[4] for row in listed} == {first.manifest_digest[:8]}
    person.look("lineage-list")

    person.open_row(second.name)
    person.see("m@candidate")
    person.figures(1)
    person.look("lineage-version")
    person.press("Figures")
    person.see("F1 by class")
    person.figures(6)
    person.look("lineage-figures")

    person.press("Overview")
    person.see("m@candidate")
    # Of what FiftyOne sends by itself, late answers would take back what a person has clicked in the meantime.
    assert [event for event in sent if event != "on_load"] == ["open_row", "choose_part", "choose_part"]
    person.open_box(first.version[-6:])
    person.see("m@production")
    person.press("Apply to the current view")
    person.see(f"The predictions go to '{first.prediction_field}'")
    person.can_press("Schedule")
    person.look("lineage-apply")
    person.press("Cancel")
    person.press("Compare")
    person.see("Works on all")
    assert all(person.page.get_by_role("button", name=each.name).count() for each in trained)  # both are chosen
    person.look("lineage-compare")
    person.press("Cancel")

    for _ in range(2):  # the second time it replaces the view that is open
        person.press("Show training data")
        person.see("images are read")
        person.press("Execute")
        person.see("Fresh: of the 36 ROIs it was made of")
        person.look("lineage-training-data")
        person.press("Close")
    person.press("All versions")
    person.press("Runs")
    person.see("How far to look back")
    person.press("Execute")
    person.see("runs in the last 30 days")
    person.see(f"Show the training data of {first.name}")
    person.look("lineage-runs")
