import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.sync.corrections import MARKER, OWN_TAGS, Correction, Status, applicable, resolve, sort_tags
from shared.vocabulary import Vocabulary

NFC, NFD = (unicodedata.normalize(form, "Nodulária") for form in ("NFC", "NFD"))
ODD = ('{"$ne": null}', "$label", 'it\'s 100%, "sure"', "tab\there", "=SUM(A1)", NFC, NFD)
NAMES = ("Calanus", "Oithona", "Pseudo-nitzschia", "fecal_pellet", "calanus", *ODD)
VOCABULARY = Vocabulary(NAMES, "the test")
TAGS = sort_tags([*NAMES, "Calanu", "pseudo nitzschia", MARKER, "cruise 7", "train"], VOCABULARY)


def one(label=None, tags=(), *, stored=None, on_label=(), source_id="e1", known=TAGS) -> Correction | None:
    """What the tags of one sample come to."""
    row = {"id": "s1", "source_id": source_id, "label": label, "stored": stored, "tags": tags, "label_tags": on_label}
    found = resolve({name: [value] for name, value in row.items()}, known, VOCABULARY)
    assert len(found) <= 1
    return found[0] if found else None


def said(correction: Correction | None) -> tuple:
    assert correction is not None
    return correction.wanted, correction.expected, correction.problem, correction.tags


# --- tags ---


def test_tags_are_names_or_nearly_so_or_have_nothing_to_do_with_it():
    assert dict(TAGS.names) == {name: name for name in NAMES}
    assert dict(TAGS.unknown) == {"Calanu": ["Calanus", "calanus"], "pseudo nitzschia": ["Pseudo-nitzschia"]}
    assert TAGS.marker == MARKER
    assert set(TAGS.relevant) == {*NAMES, "Calanu", "pseudo nitzschia", MARKER}


def test_with_a_prefix_only_what_follows_it_counts_and_must_be_a_name():
    tags = ["fix:Calanus", "fix:Calanu", "fix:whatever", "Oithona", "Oithon", "fix:", MARKER, "fix:train"]
    sorted_ = sort_tags(tags, VOCABULARY, prefix="fix:")
    assert dict(sorted_.names) == {"fix:Calanus": "Calanus"}
    assert dict(sorted_.unknown) == {
        "fix:Calanu": ["Calanus", "calanus"],
        "fix:whatever": [],
        "fix:": [],
        "fix:train": [],
    }
    assert sort_tags(["Calanus"], VOCABULARY, prefix="") == sort_tags(["Calanus"], VOCABULARY)


@pytest.mark.parametrize("prefix", [None, "re", "t"])
def test_the_suites_own_tags_are_neither_names_nor_unknown(prefix):
    vocabulary = Vocabulary(("test", "trains", "Reviewed", "viewed", "send", "sent"), "the test")
    tags = sort_tags([*OWN_TAGS, "send"], vocabulary, marker="send", prefix=prefix)
    assert not tags.names
    assert not tags.unknown


# --- one sample ---


def test_a_tag_that_differs_from_the_label_is_what_it_should_be():
    assert said(one("Calanus", ["train", "Oithona"])) == ("Oithona", "Calanus", None, ("Oithona",))
    assert said(one("Calanus", on_label=["Oithona"])) == ("Oithona", "Calanus", None, ("Oithona",))
    # The stored label is what the store should hold, not what somebody made of it here.
    assert said(one("edited", ["Oithona"], stored="Calanus")) == ("Oithona", "Calanus", None, ("Oithona",))


def test_the_same_on_sample_and_label_or_beside_the_old_label_is_one_correction():
    assert said(one("Calanus", ["Oithona"], on_label=["Oithona"]))[0] == "Oithona"
    assert said(one("Calanus", ["Oithona", "Calanus"])) == ("Oithona", "Calanus", None, ("Oithona", "Calanus"))


def test_two_names_are_two_corrections():
    correction = one("Calanus", ["Oithona"], on_label=["fecal_pellet"], stored="Calanus")
    assert said(correction) == (None, "Calanus", Status.TWO, ("Oithona", "fecal_pellet"))
    assert correction.reason == "tagged 'Oithona' and 'fecal_pellet'"
    assert not applicable(correction)
    # Unicode's two forms of a name are two names, if the vocabulary has both.
    assert one("Calanus", [NFC, NFD]).problem is Status.TWO


def test_a_tag_that_equals_the_label_is_still_the_stores_to_have():
    assert said(one("Oithona", ["Oithona"], stored="Calanus")) == ("Oithona", "Calanus", None, ("Oithona",))
    assert said(one("Oithona", ["Oithona"])) == ("Oithona", "Oithona", None, ("Oithona",))
    assert applicable(one("Oithona", ["Oithona"]))


def test_the_marker_says_that_the_label_as_it_stands_is_right():
    assert said(one("Oithona", [MARKER], stored="Calanus")) == ("Oithona", "Calanus", None, (MARKER,))
    assert not applicable(one("Oithona", [MARKER], stored="Calanus"))


def test_the_marker_cannot_say_so_without_a_label_a_name_or_what_is_stored():
    assert said(one(None, [MARKER], stored="Calanus")) == (None, "Calanus", Status.CANNOT, (MARKER,))
    correction = one("Oithon", [MARKER], stored="Calanus")
    assert correction.problem is Status.NOT_IN_VOCABULARY
    assert correction.reason == "'Oithon' is not in the vocabulary: did you mean 'Oithona'?"
    correction = one("Oithona", [MARKER])
    assert said(correction) == ("Oithona", None, Status.NO_STORED, (MARKER,))
    assert "Pull labels" in correction.reason


def test_marker_and_name_agree_or_are_two_corrections():
    assert said(one("Oithona", [MARKER, "Oithona"], stored="Calanus")) == (
        "Oithona",
        "Calanus",
        None,
        ("Oithona", MARKER),
    )
    # The marker says that the label was changed here: it is not what the store should still hold.
    assert said(one("Oithona", [MARKER, "Oithona"]))[1:3] == (None, Status.NO_STORED)
    correction = one("Calanus", [MARKER], on_label=["Oithona"], stored="Calanus")
    assert said(correction) == (None, "Calanus", Status.TWO, ("Oithona", MARKER))
    assert MARKER in correction.reason
    assert "'Oithona'" in correction.reason


def test_an_unlabelled_sample_is_sent_where_the_store_has_no_label_either():
    correction = one(None, ["Oithona"])
    assert said(correction) == ("Oithona", "", None, ("Oithona",))
    assert applicable(correction)
    assert said(one(None, ["Oithona"], stored="Calanus")) == ("Oithona", "Calanus", None, ("Oithona",))


def test_a_tag_that_is_nearly_a_name_is_reported_and_never_used():
    correction = one("Oithona", ["Calanu"], on_label=["pseudo nitzschia"], stored="Oithona")
    assert said(correction) == (None, "Oithona", Status.NOT_IN_VOCABULARY, ())
    assert correction.reason == (
        "'Calanu' is not in the vocabulary: did you mean 'Calanus' or 'calanus'?; "
        "'pseudo nitzschia' is not in the vocabulary: did you mean 'Pseudo-nitzschia'?"
    )
    assert not applicable(correction)
    # Beside a name, or the marker, it may have been meant to say something else.
    for beside in ("Calanus", MARKER):
        correction = one("Oithona", ["Calanu", beside], stored="Oithona")
        assert said(correction) == (None, "Oithona", Status.NOT_IN_VOCABULARY, (beside,))
        assert not applicable(correction)


def test_the_tag_with_its_prefix_is_what_is_removed():
    tags = sort_tags(["fix:Oithona", "fix:nothing"], VOCABULARY, prefix="fix:")
    assert said(one("Calanus", ["fix:Oithona", "Pseudo-nitzschia"], known=tags)) == (
        "Oithona",
        "Calanus",
        None,
        ("fix:Oithona",),
    )
    correction = one("Calanus", ["fix:nothing"], known=tags)
    assert correction.problem is Status.NOT_IN_VOCABULARY
    assert correction.reason == "'fix:nothing' is not in the vocabulary"


def test_a_sample_that_no_correction_is_on_is_left_out():
    assert one("Calanus", ["train", "cruise 7"], stored="Oithona") is None
    assert one("Calanus", None, on_label=None) is None


@pytest.mark.parametrize("name", ODD)
def test_any_label_is_a_label_and_stays_as_it_is(name):
    correction = one("Calanus", [name])
    assert correction.wanted == name
    assert correction.tags == (name,)
    assert one(name, [MARKER], stored=name).wanted == name


def test_columns_of_different_lengths_are_a_bug_and_said():
    rows = {name: ["a", "b"] for name in ("id", "source_id", "label", "stored", "tags")} | {"label_tags": [[]]}
    with pytest.raises(ValueError, match="shorter"):
        resolve(rows, TAGS, VOCABULARY)


# --- any samples ---

labels = st.none() | st.sampled_from([*NAMES, "Oithon", "not ours"])
tag_lists = st.none() | st.lists(st.sampled_from([*NAMES, "Calanu", MARKER, "train", "cruise 7"]), max_size=4)
samples = st.lists(st.tuples(labels, labels, tag_lists, tag_lists), max_size=20)


@settings(deadline=None)
@given(samples)
def test_every_sample_with_a_relevant_tag_gives_one_correction_and_no_other_does(drawn):
    label, stored, tags, label_tags = zip(*drawn, strict=True) if drawn else ((), (), (), ())
    ids = [str(place) for place in range(len(drawn))]
    rows = {"id": ids, "source_id": ids, "label": label, "stored": stored, "tags": tags, "label_tags": label_tags}
    corrections = resolve(rows, TAGS, VOCABULARY)

    relevant = set(TAGS.relevant)
    present = [{*(a or ()), *(b or ())} for a, b in zip(tags, label_tags, strict=True)]
    assert [c.sample_id for c in corrections] == [i for i, found in zip(ids, present, strict=True) if found & relevant]
    for c in corrections:
        found = present[int(c.sample_id)]
        assert set(c.tags) == found & {*NAMES, MARKER}
        assert len(set(c.tags)) == len(c.tags)
        assert (c.problem is None) == (c.reason is None)
        # What would be sent is a name, and somebody tagged it or marked it; what is expected is known.
        if c.problem is None:
            assert c.wanted in VOCABULARY
            assert c.expected is not None
        assert c.wanted is None or c.wanted in found or (c.wanted == c.label and MARKER in found)
        assert c.wanted is None or c.wanted in VOCABULARY or c.wanted == c.label
        if applicable(c):
            assert c.wanted in found
            assert (found & set(NAMES)) <= {c.wanted, c.label}
        # Nothing but the stored label, or else the label as it stands, is ever expected.
        assert c.expected in (c.stored, c.label, None if c.label else "")
        assert c.stored is None or c.expected == c.stored
