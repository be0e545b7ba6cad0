"""The focus list: each weakness that was put in is in it, with its rows, and in the order of what could be won."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from shared.intervals import class_f1
from shared.review import focus

CLASSES = ("Calanus", "Metridia", "detritus", "Oithona")


def right(n: int = 1200, seed: int = 1) -> focus.Predictions:
    """A model that is right but for 30 mistakes by chance, on images of two cameras at four depths."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, n, p=[0.4, 0.3, 0.25, 0.05])
    predicted = truth.copy()
    wrong = rng.choice(n, 30, replace=False)
    predicted[wrong] = rng.integers(0, 4, 30)
    return focus.Predictions(
        CLASSES,
        truth,
        predicted,
        np.full(n, 0.7),
        np.zeros(n, bool),
        {"camera": rng.choice(["A", "B"], n).tolist(), "depth": rng.choice(["0", "10", "20", "40"], n).tolist()},
    )


def of(items: list[focus.Item], kind: str) -> focus.Item:
    (found,) = [item for item in items if item.kind == kind]
    return found


def macro(found: focus.Predictions, predicted: np.ndarray) -> float:
    judged = found.judged
    labels = np.unique(found.truth[judged])
    return f1_score(found.truth[judged], predicted[judged], labels=labels, average="macro", zero_division=0)


def test_a_pair_that_is_confused_has_its_direction_and_what_could_be_won():
    found = right()
    taken = np.flatnonzero(found.truth == 0)[:40]
    found.predicted[taken] = 1
    item = of(focus.rank(found), "confused")
    rows = np.flatnonzero((found.truth == 0) & (found.predicted == 1))
    assert item.name == "Calanus taken for Metridia"
    assert sorted(item.rows) == rows.tolist()
    assert f"{len(rows)} of {(found.truth == 0).sum()} Calanus are taken for Metridia" in item.sentence
    better = np.where((found.truth == 0) & (found.predicted == 1), 0, found.predicted)
    assert item.macro_f1 == pytest.approx(macro(found, better) - macro(found, found.predicted))
    assert item.top1 == pytest.approx(len(rows) / 1200)
    assert item.labels == len(rows)


def test_what_was_learned_from_is_left_out_of_all_but_the_wrong_labels():
    found = right()
    taken = np.flatnonzero(found.truth == 0)[:40]
    found.predicted[taken] = 1
    found.confidence[taken] = 0.95
    found.learned[taken] = True
    suspects = focus.Suspects(taken[:3], np.array([1, 1, 2]), np.array([0.8, 0.5, 0.2]))
    items = focus.rank(found, suspects)
    assert {item.kind for item in items} == {"wrong labels"}
    assert items[0].rows.tolist() == taken[:3].tolist()
    assert "3 labels do not fit" in items[0].sentence
    assert "about 1.5 or more are likely wrong" in items[0].sentence
    assert "3 were learned from" in items[0].sentence
    assert "Calanus like Metridia (2)" in items[0].sentence
    assert items[0].labels == pytest.approx(1.5)
    assert items[0].top1 == items[0].macro_f1 == 0  # of what is judged nothing is won before the next training
    assert items[0].gain == pytest.approx(1.5 / 40)


def test_a_mistake_whose_label_looks_wrong_is_not_the_models():
    found = right()
    sure = np.flatnonzero((found.truth == 2) & (found.predicted == 2))[:10]
    found.predicted[sure] = 0
    found.confidence[sure] = np.linspace(0.99, 0.91, 10)
    suspects = focus.Suspects(sure[:4], np.zeros(4, int), np.ones(4))
    items = focus.rank(found, suspects)
    item = of(items, "confident")
    assert item.rows.tolist() == sure[4:].tolist()  # the most confident first
    assert "6 of 10 predictions" in item.sentence
    assert "0.5 would be" in item.sentence
    assert "4 more are not counted" in item.sentence
    labels = of(items, "wrong labels")
    assert "In 4 the model says so too" in labels.sentence
    better = replace(found, truth=found.truth.copy())
    better.truth[sure[:4]] = 0
    gain = macro(better, found.predicted) - macro(found, found.predicted)
    assert labels.macro_f1 == pytest.approx(gain)
    assert labels.top1 == pytest.approx(4 / found.judged.sum())
    unlikely = focus.rank(found, replace(suspects, chances=np.full(4, 0.2)))
    assert 0.1 * gain < of(unlikely, "wrong labels").macro_f1 < 0.3 * gain
    assert of(unlikely, "confident").count == 10  # by then it is sooner the model that is wrong


def test_a_weak_slice_is_named_with_its_mistakes():
    found = right()
    bad = np.flatnonzero(np.array(found.slices["camera"]) == "B")[::3]
    found.predicted[bad] = (found.truth[bad] + 1 + np.arange(len(bad)) % 3) % 4
    item = of(focus.rank(found), "weak slice")
    inside = np.array(found.slices["camera"]) == "B"
    wrong = found.truth != found.predicted
    assert item.name == "Weak where camera B"
    assert sorted(item.rows) == np.flatnonzero(inside & wrong).tolist()
    share = (inside & ~wrong).sum() / inside.sum()
    assert f"{(inside & ~wrong).sum()} of {inside.sum()} are right: {100 * share:.1f} %" in item.sentence
    elsewhere = 1 - wrong[~inside].mean()
    assert item.labels == pytest.approx(inside.sum() * (elsewhere - share))


def test_classes_of_a_few_images_are_named_with_unlabelled_ones_that_may_be_more():
    found = right()
    rare = np.flatnonzero(found.truth == 3)
    found.truth[rare[6:]] = -1
    found.predicted[rare] = 3
    item = of(focus.rank(found), "few examples")
    assert sorted(item.rows) == rare.tolist()
    assert "1 class has too few judged images" in item.sentence
    assert "Oithona (6 judged" in item.sentence
    assert f"{len(rare) - 6} unlabelled images may be" in item.sentence
    assert item.labels == len(rare) - 6
    judged = found.judged
    (low, high), *_ = class_f1(confusion_matrix(found.truth[judged], found.predicted[judged]))[3:]
    assert item.macro_f1 == pytest.approx((high - low) / 2 / 4)


def test_a_change_of_mix_is_held_against_the_same_season():
    found = right()
    days = np.where(np.arange(1200) < 800, np.datetime64("2014-07-01"), np.datetime64("2015-07-01"))
    days = days.astype("datetime64[D]") + np.arange(1200) // 4 % 20
    found = replace(found, days=days, kinds=("camera",))
    changed = np.flatnonzero((np.arange(1200) >= 800) & (np.array(found.slices["camera"]) == "A"))[::2]
    found.truth[changed] = -1
    found.predicted[changed] = 2
    item = of(focus.rank(found), "class mix")
    assert item.name == "More detritus than before, camera A, June to August 2015"
    assert set(changed) <= set(item.rows.tolist())


def test_the_list_is_in_the_order_of_what_could_be_won():
    found = right()
    rare, common = np.flatnonzero(found.truth == 3), np.flatnonzero(found.truth == 0)
    found.predicted[rare[:-4]] = 2  # costs more macro F1 than twice as many Calanus
    found.predicted[common[: 2 * len(rare)]] = 1
    items = focus.rank(found)
    assert [item.gain for item in items] == sorted((item.gain for item in items), reverse=True)
    names = [item.name for item in items if item.kind == "confused"]
    assert names == ["Oithona taken for detritus", "Calanus taken for Metridia"]


def test_nothing_judged_and_nothing_wrong_are_no_findings():
    found = right()
    assert focus.rank(replace(found, learned=np.ones(1200, bool))) == []
    assert focus.rank(replace(found, predicted=found.truth)) == []
