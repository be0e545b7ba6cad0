"""Where a model is weak, and what to look at: found, opened, corrected and judged again in FiftyOne's App."""

from datetime import date

import cv2
import fiftyone as fo
import fiftyone.operators as foo
import pytest

from tests import browser, rois
from tests.published import fitted, version

EACH = 40  # ROIs of each of three classes
TOTAL = 3 * EACH
LEARNED = 12  # of each class, which the model is fitted to
BLUR = 3.0  # of camera B, in pixels: it makes bars down look like bars across
FIELD = "pred_m"
FOCUS = ("number", "where to look", "what was found", "ROIs", "labels to win", "score to win")
_, DOWN, DISC = rois.CLASSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("review")


@pytest.fixture(scope="module")
def secrets(folder):
    return {"MBARI_ARTIFACTS": str(folder / "artifacts")}


@pytest.fixture(scope="module")
def plankton(folder, secrets, module_registry):
    """ROIs of two cameras, of which B is out of focus, with a model applied; five labels are wrong on purpose."""
    browser.chromium()
    dataset = fo.Dataset("plankton-to-review")
    dataset.persistent = True
    rois.fill(dataset, folder / "rois", dict.fromkeys(rois.CLASSES, EACH))
    dataset.classes["ground_truth"] = list(rois.CLASSES)
    dataset.save()
    number = [row % EACH for row in range(TOTAL)]
    dataset.set_values("camera", ["AB"[n % 2] for n in number])
    dataset.set_values("captured", [date(2015, 7, 1 + n % 20) for n in number])
    dataset.set_values("tags", [["train"] if n < LEARNED else [] for n in number])
    paths, labels = dataset.values(["filepath", "ground_truth.label"])
    learned = [label if n < LEARNED else "" for n, label in zip(number, labels, strict=True)]
    weights = fitted(folder / "m.pt", paths, learned)
    for path in dataset.match_tags("train", bool=False).match({"camera": "B"}).values("filepath"):
        cv2.imwrite(path, cv2.GaussianBlur(cv2.imread(path), (0, 0), BLUR))
    named = dataset.match({"camera": "A", "ground_truth.label": DOWN}).values("id")
    dataset.select(named[-5:]).set_values("ground_truth.label", [DISC] * 5)
    record = version(module_registry, folder, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*next(iter(secrets.items())))
        params = {"model": record.name, "prediction_field": FIELD, "store_logits": True}
        foo.execute_operator("@mbari/apply_model/apply_model", {"dataset": dataset, "params": params})
    dataset.reload()
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def person(plankton, secrets, folder):
    with browser.app(plankton.name, folder / "app.log", **secrets) as url, browser.person(url) as person:
        yield person


def evaluate(person, everywhere=False):
    """Evaluates what is open, or the whole dataset whatever is."""
    person.open_form("Evaluate predictions")
    if everywhere:
        person.tick("Entire dataset")
    person.choose("Slices", "camera")
    person.look("review-evaluate")
    person.execute_now()
    person.see("ROIs not learned from")


def test_from_a_weakness_to_what_the_review_won(person, plankton):
    person.open_app(TOTAL)
    names = _evaluate(person, plankton)
    _accept_and_mark(person, plankton, names)
    _select_and_review(person, plankton)
    _see_what_was_won(person, plankton)


def _evaluate(person, plankton):
    """Evaluates, and opens the first view of the list by its button; returns the names of the views."""
    evaluate(person)
    rows = person.table(*FOCUS)
    plankton.reload()
    names = [name for name in plankton.list_saved_views() if name.startswith("focus ")]
    assert [f"focus {int(row[0]):02d}: {row[1]} ({row[3]})" for row in rows] == names
    assert any("Weak where camera B" in name for name in names)
    person.look("review-evaluated")
    person.press(f"Open '{names[0]}'")
    person.press("Close")
    person.sees_view(names[0])
    person.see(f"{plankton.load_saved_view(names[0]).count()} samples")
    person.tiles(plankton.load_saved_view(names[0]).count())
    person.look("review-focus")
    return names


def _accept_and_mark(person, plankton, names):
    """Accepts what wrong labels look like, and marks what is right in the first view."""
    ids = plankton.load_saved_view(names[0]).values("id")
    wrong = next(name for name in names if "look wrong" in name)
    person.open_saved_view(wrong)
    count = plankton.load_saved_view(wrong).count()
    person.see(f"{count} samples")
    person.open_form_by_button("how_to_reg")
    person.see(f"Works on {count} of {TOTAL} ROIs.")
    person.see("can be expected to be wrong: select the ROIs whose label is.")
    person.look("review-accept")
    person.press("Execute")
    noun = "ROI" if count == 1 else "ROIs"
    person.see(f"{count} {noun} with a label got the prediction as a correction.")
    person.look("review-accepted")
    person.press("Close")
    plankton.reload()
    suspects = plankton.load_saved_view(wrong)
    assert all(suggested in tags for suggested, tags in zip(*suspects.values(["focus_suggested", "tags"]), strict=True))

    person.open_saved_view(names[0])
    person.see(f"{len(ids)} samples")
    person.select(2)
    person.press_icon("task_alt")
    person.see("1 of 1 ROI got the tag 'reviewed'.")
    person.look("review-marked")
    plankton.reload()
    assert plankton.match_tags("reviewed").values("id") == [ids[2]]


def _select_and_review(person, plankton):
    """Has a person look at twelve ROIs, of whom two leave the view once they were seen."""
    person.clear_view(TOTAL)
    person.open_form("Select for review")
    person.write("Budget", "12")
    person.see("All ROIs of the target have a label in 'ground_truth': untick 'Only unlabelled'")
    person.look("review-select-labelled")
    person.tick("Only unlabelled")
    person.look("review-select")
    person.execute_now()
    person.see("are tagged 'review' for a person to look at")
    person.look("review-selected")
    person.press("Open 'review: all'")
    person.press("Close")
    person.sees_view("review: all")
    person.tiles(12)
    plankton.reload()
    ids = plankton.load_saved_view("review: all").values("id")
    person.select(0, 1)
    person.press_icon("task_alt")
    person.see("2 of 2 ROIs got the tag 'reviewed'. Still to be looked at in this view: 10.")
    person.tiles(10)
    person.look("review-left")
    plankton.reload()
    assert plankton.load_saved_view("review: all").values("id") == ids[2:]


def _see_what_was_won(person, plankton):
    """Evaluates again from within a view of the last list, which the new list replaces."""
    person.clear_view(TOTAL)
    person.open_form("Apply corrections")
    person.press("Execute")
    person.see("corrections")
    person.press("Close")
    plankton.reload()
    name = next(name for name in plankton.list_saved_views() if name.startswith("focus 01: "))
    person.open_saved_view(name)
    person.sees_view(name)
    evaluate(person, everywhere=True)
    person.see("have another label now")
    person.look("review-won")
    plankton.reload()
    now = next(name for name in plankton.list_saved_views() if name.startswith("focus 01: "))
    assert now != name  # that view is gone with its list, which the App must not mind
    person.press(f"Open '{now}'")
    person.press("Close")
    person.sees_view(now)
    person.see(f"{plankton.load_saved_view(now).count()} samples")
    person.open_panel("Model Evaluation", f"eval_{FIELD}")
    person.look("review-panel")
