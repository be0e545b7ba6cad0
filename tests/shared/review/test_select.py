"""What a person should look at: four kinds, each for its reason, within a budget."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from shared.errors import InputError
from shared.review import select, spread
from shared.review.novelty import Novelty
from shared.review.select import Predictions, choose

CLASSES = ["Calanus", "detritus", "Metridia", "Tomopteris"]
TOMOPTERIS = np.array([3])


def predictions(count: int = 2000, seed: int = 0) -> Predictions:
    """Distributions over four classes, most of them detritus, of which Tomopteris is rare."""
    rng = np.random.default_rng(seed)
    alpha = np.array([[6, 1, 1, 0.2], [1, 9, 1, 0.2], [1, 1, 4, 0.2], [0.5, 1, 0.5, 2]])
    of = rng.choice(4, count, p=[0.2, 0.6, 0.19, 0.01])
    probabilities = np.stack([rng.dirichlet(alpha[kind] * 1.5) for kind in of])
    return from_probabilities(probabilities)


def from_probabilities(probabilities: np.ndarray) -> Predictions:
    predicted = probabilities.argmax(axis=1)
    return Predictions(CLASSES, predicted, rare=TOMOPTERIS, **select.summarise(probabilities, predicted, TOMOPTERIS))


@pytest.fixture(scope="module")
def made() -> Predictions:
    return predictions()


def of_kind(selection, kind):
    return selection.rows[np.array(selection.kinds) == kind]


def test_a_batch_of_distributions_is_summarised():
    probabilities = np.array([[0.5, 0.2, 0.3, 0.0], [0.1, 0.2, 0.3, 0.4]])
    found = select.summarise(probabilities, np.array([0, 2]), TOMOPTERIS)  # of the second the label is not the largest
    assert found["confidence"].tolist() == pytest.approx([0.5, 0.3])
    assert found["second"].tolist() == [2, 3]
    assert found["margin"].tolist() == pytest.approx([0.2, -0.1])
    assert found["chances"].ravel().tolist() == pytest.approx([0.0, 0.4], abs=1e-3)


def test_rare_classes_are_those_named_or_under_a_share():
    counts = {"Calanus": 500, "detritus": 480, "Metridia": 20}
    assert select.rare_classes(CLASSES, counts, [], 0.01).tolist() == [3]
    assert select.rare_classes(CLASSES, counts, [], 0.05).tolist() == [2, 3]
    assert select.rare_classes(CLASSES, counts, ["Metridia", "Calanus"], 0.01).tolist() == [0, 2]
    with pytest.raises(InputError, match="'Tomoptris'"):
        select.rare_classes(CLASSES, counts, ["Tomoptris"], 0.01)


def test_the_budget_is_used_and_nothing_is_chosen_twice(made):
    found = choose(made, 100)
    assert len(found.rows) == len(set(found.rows.tolist())) == len(found.kinds) == len(found.reasons) == 100
    counts = Counter(found.kinds)
    assert counts["novel"] == 0
    assert counts["confident"] > 30  # novel ones are not known here, and their part goes to the others
    assert counts["rare"] > 30
    assert all(reason.startswith(f"{kind}: ") for kind, reason in zip(found.kinds, found.reasons, strict=True))


def test_spot_checks_have_an_equal_quota_a_class(made):
    rows = of_kind(choose(made, 200), "confident")
    assert (made.confidence[rows] >= 0.9).all()
    sure = np.bincount(made.predicted[made.confidence >= 0.9], minlength=4)
    drawn = np.bincount(made.predicted[rows], minlength=4)
    full = drawn == sure
    assert drawn[~full].max() - drawn[~full].min() <= 1
    assert drawn[full].max(initial=0) <= drawn[~full].min()


def test_classes_that_were_checked_before_get_fewer(made):
    drawn = np.bincount(made.predicted[of_kind(choose(made, 60, checked=np.array([0, 40, 0, 0])), "confident")])
    assert drawn[1] == 0
    assert drawn[0] > 5


def test_spot_checks_estimate_precision_without_bias():
    rng = np.random.default_rng(0)
    count = 4000
    confidence = rng.uniform(0.9, 1, count).astype(np.float32)
    right = rng.uniform(size=count) < (confidence - 0.9) * 10  # the surer, the more often right: half of all
    vectors = spread.unit_rows(np.c_[right * 2.0, rng.normal(size=(count, 6))])  # and they look different
    made = Predictions(["a"], np.zeros(count, int), confidence)
    far = Novelty((~right).astype(np.float32), 0.5)  # and those that are wrong are the novel ones
    shares = [
        right[of_kind(choose(made, 100, vectors=vectors, novelty=far, seed=seed), "confident")].mean()
        for seed in range(20)
    ]
    # 20 means of 60 or so: a standard error of about 0.015.
    assert np.mean(shares) == pytest.approx(right.mean(), abs=0.05)


def test_rare_ones_are_chosen_by_what_looking_gains_rather_than_by_confidence(made):
    found = choose(made, 100)
    rows = of_kind(found, "rare")
    assert (made.confidence[rows] < 0.9).all()
    # Not only those predicted as such.
    assert (made.predicted[rows] != 3).any()
    open_ = made.confidence < 0.9
    assert made.chances[rows].mean() > 3 * made.chances[open_].mean()  # of one rare class
    assert any("perhaps Tomopteris" in reason for reason in found.reasons)


def test_the_class_with_fewest_examples_comes_first_and_none_takes_all():
    probabilities = np.full((400, 4), 0.05)
    probabilities[:, 0] = 0.4
    probabilities[:200, 2], probabilities[200:, 3] = 0.5, 0.5
    predicted = probabilities.argmax(axis=1)
    rare = np.array([2, 3])
    made = Predictions(CLASSES, predicted, rare=rare, **select.summarise(probabilities, predicted, rare))
    rows = of_kind(choose(made, 60, rare_quota=30, examples=np.array([900, 900, 8, 0])), "rare")
    counts = np.bincount(made.predicted[rows], minlength=4)
    assert made.predicted[rows[:5]].tolist() == [3] * 5
    assert counts[3] > counts[2] > 0


def test_confusing_ones_are_those_with_the_smallest_margin(made):
    rows = of_kind(choose(made, 100), "confusing")
    open_ = np.flatnonzero(made.confidence < 0.9)
    assert made.margin[rows].max() < np.quantile(made.margin[open_], 0.2)
    assert all(", then " in reason for reason in choose(made, 100).reasons if reason.startswith("confusing"))


def test_without_distributions_the_confidences_serve(made):
    bare = dataclasses.replace(made, second=None, margin=None, likeliest=None, chances=None)
    found = choose(bare, 100)
    assert len(found.rows) == 100
    assert (made.predicted[of_kind(found, "rare")] == 3).all()
    rows = of_kind(found, "confusing")
    assert made.confidence[rows].max() < np.quantile(made.confidence[made.confidence < 0.9], 0.3)
    said = [reason for reason in found.reasons if reason.startswith("confusing")]
    assert all(reason.startswith("confusing: among the least confident, ") for reason in said)


def test_novel_ones_are_far_from_labels_or_in_no_cluster(made):
    far, nearer, unknown, loose = np.flatnonzero(made.confidence < 0.9)[-4:]  # no spot checks
    distance = np.zeros(2000, np.float32)
    distance[[far, nearer, unknown]] = 0.9, 0.7, np.nan
    unclustered = np.zeros(2000, bool)
    unclustered[[unknown, loose]] = True
    found = choose(made, 400, rare_quota=0, novelty=Novelty(distance, 0.5), unclustered=unclustered)
    assert found.candidates["novel"] == 4
    assert of_kind(found, "novel").tolist() == [far, nearer, unknown, loose]
    reasons = dict(zip(found.rows.tolist(), found.reasons, strict=True))
    assert reasons[far].startswith("novel: 0.90 from all that have a label; ")
    assert reasons[unknown].startswith("novel: in no cluster; ")


def test_nothing_to_choose_from_gives_nothing():
    assert not len(choose(from_probabilities(np.zeros((0, 4))), 100).rows)


def test_of_many_rare_classes_the_likeliest_of_each_row_are_kept(monkeypatch):
    probabilities = np.random.default_rng(0).dirichlet(np.full(40, 0.1), 500)
    predicted, rare = probabilities.argmax(axis=1), np.arange(5, 40)
    names = [f"class {number}" for number in range(40)]
    found = Predictions(names, predicted, rare=rare, **select.summarise(probabilities, predicted, rare))
    kept = found.chances_of(np.arange(500))
    assert ((kept > 0).sum(axis=1) <= select.KEPT).all()
    left_out = np.where(kept > 0, 0, probabilities[:, rare])
    assert (left_out.max(axis=1) <= kept.max(axis=1) + 1e-3).all()
    assert np.allclose(kept[kept > 0], probabilities[:, rare][kept > 0], atol=1e-3)
    # That costs next to nothing of what looking at the chosen ones gains.
    monkeypatch.setattr(select, "KEPT", 35)
    whole = Predictions(names, predicted, rare=rare, **select.summarise(probabilities, predicted, rare))
    of_kept, of_all = (
        np.log1p(probabilities[of_kind(choose(some, 60, rare_quota=30), "rare")][:, rare].sum(axis=0)).sum()
        for some in (found, whole)
    )
    assert of_kept > 0.98 * of_all


def test_the_pool_holds_the_likeliest_rows_of_each_class():
    likeliest = np.array([[0, 1], [0, 1], [0, 1], [0, 2]])
    chances = np.array([[0.9, 0.01], [0.8, 0.02], [0.7, 0.03], [0.6, 0.4]])
    assert select._top_of_each(likeliest, chances, 1).tolist() == [0, 2, 3]
    assert select._top_of_each(likeliest, chances, 2).tolist() == [0, 1, 2, 3]


class Counted:
    """Unit rows that know how many of them were asked for at once."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.most = rows, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows):
        found = self.rows[rows]
        self.most = max(self.most, len(found))
        return found


def test_no_more_vectors_are_read_than_come_into_question():
    rng = np.random.default_rng(0)
    rows = Counted(spread.unit_rows(rng.normal(size=(30_000, 4))))
    seen = Counted(rows.rows[:20_000])
    made = predictions(30_000)
    found = choose(made, 100, vectors=rows, seen=seen)
    assert found.rows.tolist() == choose(made, 100, vectors=rows.rows, seen=seen.rows).rows.tolist()
    assert rows.most <= 2 * select.FEWEST_POOLED
    assert seen.most <= spread.TILE


def test_a_budget_beyond_what_there_is_takes_all(made):
    assert sorted(choose(made, 5000).rows.tolist()) == list(range(2000))


@pytest.mark.parametrize("quota", [0, 7])
def test_the_quota_of_rare_ones_holds(made, quota):
    found = choose(made, 100, rare_quota=quota)
    assert Counter(found.kinds)["rare"] == quota
    assert len(found.rows) == 100


def test_the_same_seed_chooses_the_same(made):
    vectors = spread.unit_rows(np.random.default_rng(0).normal(size=(2000, 8)))
    first, again, other = (choose(made, 80, vectors=vectors, seed=seed) for seed in (1, 1, 2))
    assert first.rows.tolist() == again.rows.tolist()
    assert set(first.rows.tolist()) != set(other.rows.tolist())


def test_frames_of_one_animal_are_not_chosen_together():
    rng = np.random.default_rng(0)
    animals = rng.normal(size=(100, 16))
    vectors = spread.unit_rows(np.repeat(animals, 5, axis=0) + rng.normal(0, 0.01, (500, 16)))
    probabilities = np.repeat(rng.dirichlet(np.ones(4), 100), 5, axis=0)
    found = choose(from_probabilities(probabilities), 60, vectors=vectors)
    for kind in ("rare", "confusing"):
        rows = of_kind(found, kind)
        assert len(rows) > 5
        assert len(set((rows // 5).tolist())) == len(rows)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"budget": 0}, "budget of 0"),
        ({"confident": 0.0}, "confidence of 0"),
        ({"unclustered": np.ones(3, bool)}, "differ in length"),
    ],
    ids=["budget", "confident", "length"],
)
def test_what_makes_no_sense_is_refused(made, more, message):
    with pytest.raises(InputError, match=message):
        choose(made, **{"budget": 10, **more})
