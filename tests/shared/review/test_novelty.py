"""What no label speaks for."""

import numpy as np
import pytest

from shared.review import novelty, spread
from shared.runs import Monitor


@pytest.fixture(scope="module")
def labelled() -> np.ndarray:
    """600 unit rows around three directions of sixteen."""
    rng = np.random.default_rng(0)
    return spread.unit_rows(np.repeat(np.eye(16)[:3], 200, axis=0) + rng.normal(0, 0.05, (600, 16)))


@pytest.fixture(scope="module")
def others() -> np.ndarray:
    """300 unit rows like the labelled ones, ten of a fourth direction, and one without any."""
    rng = np.random.default_rng(1)
    centres = np.concatenate([np.repeat(np.eye(16)[:3], 100, axis=0), np.repeat(np.eye(16)[3:4], 10, axis=0)])
    rows = centres + rng.normal(0, 0.05, centres.shape)
    return spread.unit_rows(np.concatenate([rows, np.zeros((1, 16))]))


def test_another_kind_is_far_and_few_of_the_known_ones_are(labelled, others):
    found = novelty.novelty(others, labelled)
    far = found.distance > found.far
    assert far[300:310].all()
    assert far[:300].mean() < 0.06
    assert np.isnan(found.distance[310])


@pytest.mark.parametrize("frames", [5, 40])
def test_frames_of_one_labelled_animal_do_not_make_everything_else_far(frames):
    rng = np.random.default_rng(0)
    animals = np.repeat(np.eye(16)[:3], 60, axis=0) + rng.normal(0, 0.1, (180, 16))
    labelled = np.repeat(animals[::2], frames, axis=0)
    labelled = spread.unit_rows(labelled + rng.normal(0, 0.001, labelled.shape))
    alike, unlike = animals[1::2], np.eye(16)[3:4] + rng.normal(0, 0.1, (10, 16))
    found = novelty.novelty(spread.unit_rows(np.concatenate([alike, unlike])), labelled)
    far = found.distance > found.far
    assert far[:90].mean() < 0.06
    assert far[90:].all()


def test_labels_that_are_all_one_animal_are_no_error(others):
    for noise in (0, 1e-4):
        same = spread.unit_rows(np.ones((30, 16)) + np.random.default_rng(0).normal(0, noise, (30, 16)))
        found = novelty.novelty(others, same)
        assert (found.distance[:310] > found.far).all()


def test_what_seems_far_from_a_sample_is_compared_with_all(labelled, others, monkeypatch):
    monkeypatch.setattr(novelty, "REFERENCE", 30)
    found = novelty.novelty(others, labelled)
    exact = spread.nearest(others, labelled)
    far = found.distance[:310] > found.far
    assert far[300:].all()
    assert np.allclose(found.distance[:310][far], exact[:310][far])
    assert (found.distance[:310] >= exact[:310] - 1e-6).all()


def test_of_too_many_that_seem_far_only_the_farthest_are_said_to_be(labelled, others, monkeypatch):
    monkeypatch.setattr(novelty, "REFERENCE", 30)
    monkeypatch.setattr(novelty, "CLOSER", 5)
    found = novelty.novelty(others, labelled)
    (far,) = np.nonzero(found.distance > found.far)
    assert 0 < len(far) <= 5
    assert (far >= 300).all()
    assert np.allclose(found.distance[far], spread.nearest(others[far], labelled))


def test_whoever_stops_gets_no_distance_of_what_was_not_looked_at(labelled, others, monkeypatch):
    class Impatient(Monitor):
        def stopping(self):
            return True

    monkeypatch.setattr(novelty, "TILE", 100)
    found = novelty.novelty(others, labelled, monitor=Impatient())
    assert not np.isnan(found.distance[:100]).any()
    assert np.isnan(found.distance[100:]).all()


def test_a_few_labels_say_nothing(labelled, others):
    assert novelty.novelty(others, labelled[:19]) is None
    assert novelty.novelty(others, np.zeros((100, 16), np.float32)) is None
