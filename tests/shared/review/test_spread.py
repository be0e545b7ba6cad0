"""Rows that differ: no five frames of one animal, and a random sample that stays one."""

import numpy as np
import pytest

from shared.review import spread


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Forty animals in five frames each: unit rows (200, 16), the frames of one animal next to each other."""
    rng = np.random.default_rng(0)
    animals = np.repeat(rng.normal(size=(40, 16)), 5, axis=0)
    return spread.unit_rows(animals + rng.normal(0, 0.01, animals.shape))


def test_no_two_frames_of_an_animal_while_there_are_others(frames):
    scores = np.linspace(1, 0.5, 200)  # the frames of an animal follow one another
    picked = spread.pick(lambda: scores, 40, frames, spread.far_apart(frames))
    assert len(set((picked // 5).tolist())) == 40
    without = spread.pick(lambda: scores, 40, None)
    assert without.tolist() == list(range(40))


def test_frames_of_an_animal_that_was_seen_come_after_the_others(frames):
    scores = np.r_[np.ones(100), np.full(100, 0.5)]
    far = spread.far_apart(frames)
    apart = spread.nearest(frames, frames[:100:5])
    picked = spread.pick(lambda: scores, 20, frames, far, apart)
    assert (picked >= 100).all()
    # They come all the same when there is nothing else, unless they must not.
    for copies, count in ((True, 100), (False, 0)):
        found = spread.pick(lambda: scores[:100], 100, frames[:100], far, apart[:100], copies=copies)
        assert len(found) == count


def test_a_row_without_worth_is_never_taken_and_too_few_are_no_error(frames):
    scores = np.zeros(200)
    scores[[3, 77]] = 0.1, 0.2
    assert sorted(spread.pick(lambda: scores, 10, frames).tolist()) == [3, 77]
    assert not len(spread.pick(lambda: np.zeros(0), 10, frames[:0]))


def test_every_row_is_as_likely_to_be_drawn(frames):
    rows = np.arange(193)  # no multiple of what is drawn
    drawn = np.zeros(193)
    for seed in range(300):
        chosen = spread.sample(rows, 20, frames, np.random.default_rng(seed))
        assert len(set(chosen.tolist())) == 20
        drawn[chosen] += 1
    # 300 x 20 / 193 = 31 times each, binomial with a standard deviation of 5.3; 193 at once stay within five of them.
    assert drawn.min() > 4
    assert drawn.max() < 58
    assert abs(drawn[:190].reshape(38, 5).sum(axis=1).std()) < 15


def test_a_sample_of_many_reads_the_vectors_of_few(frames):
    class Some:
        def __len__(self):
            return 10_000

        def __getitem__(self, rows):
            assert len(rows) == 40 * spread.CELL
            return frames[np.asarray(rows) % 200]

    chosen = spread.sample(np.arange(10_000), 40, Some(), np.random.default_rng(0))
    assert len(set((chosen % 200 // 5).tolist())) > 30


def test_a_sample_holds_more_animals_than_chance_alone(frames):
    random = np.random.default_rng(1)

    def animals(vectors):
        return np.mean(
            [len(set((spread.sample(np.arange(200), 40, vectors, random) // 5).tolist())) for _ in range(20)]
        )

    assert animals(frames) > animals(None) + 3


def test_all_rows_where_no_more_are_there(frames):
    assert spread.sample(np.array([4, 9]), 5, frames, np.random.default_rng(0)).tolist() == [4, 9]


def test_distances_equal_those_of_the_whole_matrix(frames, monkeypatch):
    monkeypatch.setattr(spread, "TILE", 7)
    found = spread.nearest(frames[:50], frames[50:])
    assert np.allclose(found, (1 - frames[:50] @ frames[50:].T).min(axis=1), atol=1e-6)
    # A row without a direction is nobody's nearest.
    none = np.zeros((1, 16), np.float32)
    assert np.allclose(spread.nearest(-frames[:3], np.r_[none, frames[:3]]), spread.nearest(-frames[:3], frames[:3]))
    assert np.isinf(spread.nearest(frames[:3], frames[:0])).all()


def test_rows_without_a_direction_become_zero():
    rows = spread.unit_rows(np.array([[3, 4], [0, 0], [np.nan, 1]]))
    assert np.allclose(rows, [[0.6, 0.8], [0, 0], [0, 0]])
