"""Limitations follow from the data: each is said where it holds, and only there."""

import pytest

from shared.lineage import limits
from shared.lineage.card import Vocabulary
from tests import cards


def said(**more):
    return cards.made(**more).limitations


def test_a_class_with_few_images_and_none_to_measure_on_is_named():
    found = said(group_field="haul")
    assert any("nothing else" in sentence for sentence in found)
    assert "Never measured, for want of test images: rare." in found
    assert "Hardly learned, from fewer than 20 training images each: rare (2)." in found


def test_without_a_test_split_the_figures_are_called_too_good():
    assert not any("no test split" in sentence for sentence in said())
    [sentence] = [sentence for sentence in said(splits=("val",)) if "no test split" in sentence]
    assert "60 val images" in sentence


def test_a_version_that_was_never_measured_says_so():
    assert "It was never measured on images it had not seen." in said(splits=())


LEAKS = {
    "groups": (
        {"group_field": "haul", "groups_across_splits": 2},
        "2 groups of related images (haul) have images",
    ),
    "one group": ({"group_field": "haul", "groups_across_splits": 1}, "1 group of related images (haul) has images"),
    "no groups": ({}, "The splits did not keep related images together."),
    "identical": ({"identical_across_splits": 3}, "3 groups of identical images stood in several splits"),
    "labels": ({"identical_other_label": 1}, "1 group of identical images has different labels"),
}


@pytest.mark.parametrize("kind", sorted(LEAKS))
def test_what_leaked_is_said(kind):
    given, sentence = LEAKS[kind]
    assert any(s.startswith(sentence) for s in said(**given))
    assert not any(s.startswith(sentence) for s in said(group_field="cruise"))


def test_weak_classes_are_named_the_weakest_first():
    found = cards.scores(cards.rows(), "test")
    for row, f1 in zip(found["per_class"], (0.4, 0.1, 0.9, 0.0), strict=True):
        row["f1"] = f1
    [sentence] = [s for s in said(metrics={"test": found}) if s.startswith("Weak")]
    assert sentence == "Weak (F1 below 0.5) on: Detonula_Cerataulina_Lauderia (0.10), Akashiwo (0.40)."


def test_confidence_that_is_far_off_is_mentioned_and_one_that_is_near_is_not():
    found = cards.scores(cards.rows(), "test")
    far = said(metrics={"test": {**found, "ece": 0.21}})
    assert any("21 points away" in sentence for sentence in far)
    assert not any("points away" in sentence for sentence in said(metrics={"test": {**found, "ece": 0.05}}))


def test_uneven_classes_and_names_outside_the_vocabulary_are_mentioned():
    table = cards.rows(480)
    found = said(table=table, vocabulary=Vocabulary(origin="x", names=cards.CLASSES[:3]))
    assert "Not names of the vocabulary it was trained with: rare." in found
    assert not any("uneven" in sentence for sentence in found)  # 80 against 2
    assert any("from 2 to 160 training images" in sentence for sentence in said(table=cards.rows(960)))


def test_of_many_names_a_sentence_has_some():
    names = [f"class {i}" for i in range(40)]
    found = said(table=cards.rows(480, names), classes=names)
    [sentence] = [s for s in found if s.startswith("Hardly learned")]
    assert sentence.endswith(" and 28 more.")
    assert sentence.count("class ") == limits.NAMED
