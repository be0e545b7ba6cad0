"""The spanning tree: its weights equal those of Prim's method on all distances, whatever the rows are like."""

import numpy as np
import pytest

from shared.embeddings import lightest
from shared.embeddings.lightest import Stopped, unit_rows
from shared.embeddings.spanning import groups_at, minimum_spanning_tree, unusable
from shared.errors import InputError
from shared.runs import Monitor


def clumps(rows=700, dims=24, kinds=9, seed=0):
    """Unequal clusters, far and near, tight and loose, with noise between them."""
    rng = np.random.default_rng(seed)
    of = rng.choice(kinds + 1, rows, p=np.arange(1, kinds + 2) / np.arange(1, kinds + 2).sum())
    centres = rng.standard_normal((kinds + 1, dims)) * rng.uniform(0.5, 3, (kinds + 1, 1))
    spread = np.where(of == kinds, 3, rng.uniform(0.02, 0.6, kinds + 1)[of])
    return (centres[of] + spread[:, None] * rng.standard_normal((rows, dims))).astype(np.float32)


def reachability(vectors, min_samples, alpha):
    """All mutual reachability distances, by the definition."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distances = np.array([((unit - row) ** 2).sum(axis=1) / 2 for row in unit])
    core = np.sort(distances, axis=1)[:, min(min_samples, len(vectors) - 1)]
    return np.maximum(distances / alpha, np.maximum(core[:, None], core[None, :]) if min_samples else 0)


def prim(weights):
    """The weights of a minimum spanning tree, lightest first."""
    reach, outside, taken = weights[0].copy(), np.ones(len(weights), bool), []
    outside[0] = False
    while outside.any():
        row = np.where(outside, reach, np.inf).argmin()
        taken.append(reach[row])
        outside[row] = False
        reach = np.minimum(reach, weights[row])
    return np.sort(taken)


def is_tree(edges, rows):
    """Whether the edges join all rows and close no ring."""
    group = list(range(rows))
    for a, b in edges.tolist():
        if group[a] == group[b]:
            return False
        old, new = group[a], group[b]
        group = [new if g == old else g for g in group]
    return len(set(group)) == 1


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(lightest, "TILE_ROWS", 64)
    monkeypatch.setattr(lightest, "TILE_COLUMNS", 100)
    monkeypatch.setattr(lightest, "LISTED", 4)


@pytest.mark.parametrize(("min_samples", "alpha"), [(0, 1.0), (1, 1.0), (1, 1.1), (3, 1.3), (20, 0.8)])
def test_the_weights_are_those_of_prims_method_on_all_distances(min_samples, alpha, small_tiles):
    vectors = clumps()
    edges, weights = minimum_spanning_tree(vectors, min_samples=min_samples, alpha=alpha)
    full = reachability(vectors, min_samples, alpha)
    assert is_tree(edges, len(vectors))
    np.testing.assert_allclose(weights, full[edges[:, 0], edges[:, 1]], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(weights, prim(full), rtol=1e-5, atol=1e-6)
    assert np.all(np.diff(weights) >= 0)


def test_one_tile_and_many_give_the_same_tree(monkeypatch):
    vectors = clumps(300, seed=3)
    whole = minimum_spanning_tree(vectors, alpha=1.1)
    monkeypatch.setattr(lightest, "TILE_ROWS", 91)
    monkeypatch.setattr(lightest, "TILE_COLUMNS", 131)
    tiled = minimum_spanning_tree(vectors, alpha=1.1)
    np.testing.assert_allclose(tiled[1], whole[1], atol=1e-7)
    again = minimum_spanning_tree(vectors, alpha=1.1)
    assert all(np.array_equal(*pair) for pair in zip(tiled, again, strict=True))


@pytest.mark.parametrize("min_samples", [0, 1, 2])
def test_identical_rows_join_first_and_weigh_nothing(min_samples, small_tiles):
    vectors = clumps(90)
    vectors[10:60] = vectors[7]
    vectors[60:62] = vectors[8]
    edges, weights = minimum_spanning_tree(vectors, min_samples=min_samples, alpha=1.1)
    assert is_tree(edges, 90)
    np.testing.assert_allclose(weights, prim(reachability(vectors, min_samples, 1.1)), rtol=1e-5, atol=1e-6)
    assert not weights[:52].any()
    assert weights[52] > 1e-6


def test_nothing_but_identical_rows(small_tiles):
    edges, weights = minimum_spanning_tree(np.ones((300, 5), np.float32))
    assert is_tree(edges, 300)
    assert not weights.any()


def test_near_rows_keep_their_order_where_float32_products_lose_it():
    angles = np.array([0, 1e-5, 3e-5, 7e-5, 1.5e-4])  # distances from 5e-11 on; float32 products resolve 6e-8
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    edges, weights = minimum_spanning_tree(vectors, min_samples=0)
    assert edges.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    np.testing.assert_allclose(weights, np.diff(angles) ** 2 / 2, rtol=1e-4)


def test_length_does_not_matter_however_long_or_short():
    vectors = clumps(60)
    scaled = vectors.astype(np.float64) * np.logspace(-200, 200, 60)[:, None]
    assert np.allclose(np.linalg.norm(unit_rows(scaled), axis=1), 1)
    np.testing.assert_allclose(minimum_spanning_tree(scaled)[1], minimum_spanning_tree(vectors)[1], atol=1e-7)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_rows_than_make_an_edge(rows):
    edges, weights = minimum_spanning_tree(np.ones((rows, 3), np.float32))
    assert edges.shape == (0, 2)
    assert weights.shape == (0,)


def test_two_rows_and_more_neighbours_asked_for_than_there_are():
    edges, weights = minimum_spanning_tree(np.array([[1.0, 0], [1, 1]]), min_samples=9, alpha=2)
    assert edges.tolist() == [[0, 1]]
    np.testing.assert_allclose(weights, 1 - 2**-0.5)  # the core distance: alpha does not shrink it


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_rows_without_direction_are_named(bad):
    vectors = clumps(50)
    vectors[[7, 20]] = bad
    assert np.flatnonzero(unusable(vectors)).tolist() == [7, 20]
    with pytest.raises(InputError, match=r"2 of 50 vectors .* the first in row 7"):
        minimum_spanning_tree(vectors)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"min_samples": -1}, "min_samples"), ({"alpha": 0}, "alpha"), ({"device": "abacus"}, "abacus")],
)
def test_parameters_out_of_range_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        minimum_spanning_tree(clumps(20), **wrong)


@pytest.mark.parametrize("vectors", [np.ones(4), np.ones((3, 2), int), np.array([["a", "b"]])])
def test_what_is_no_table_of_numbers_is_refused(vectors):
    with pytest.raises(InputError, match="table"):
        minimum_spanning_tree(vectors)


def test_progress_is_told_and_a_stop_heard(small_tiles):
    class Counting(Monitor):
        def __init__(self, patience):
            self.told, self.patience = [], patience

        def progress(self, done, total, what):
            self.told.append((done, total, what))

        def stopping(self):
            return len(self.told) >= self.patience

    patient, hasty = Counting(10**9), Counting(2)
    minimum_spanning_tree(clumps(200), monitor=patient)
    assert patient.told[:4] == [(n, 200, "Comparing vectors") for n in (64, 128, 192, 200)]
    with pytest.raises(Stopped):
        minimum_spanning_tree(clumps(200), monitor=hasty)
    assert len(hasty.told) == 2


def test_groups_are_chains_of_similar_pairs_numbered_in_order():
    degrees = np.radians([90, 0, 5, 91, 9, 200, 90])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    edges, weights = minimum_spanning_tree(vectors, min_samples=0)
    assert groups_at(edges, weights, 7, np.cos(np.radians(6))).tolist() == [0, 1, 1, 0, 1, 2, 0]
    assert groups_at(edges, weights, 7, np.cos(np.radians(4.5))).tolist() == [0, 1, 2, 0, 2, 3, 0]
    assert groups_at(edges, weights, 7, 1.0).tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert groups_at(edges, weights, 7, -1.0).tolist() == [0] * 7


def test_groups_of_no_rows_and_of_one():
    nothing = np.empty((0, 2), int), np.empty(0)
    assert groups_at(*nothing, 0, 0.9).tolist() == []
    assert groups_at(*nothing, 1, 0.9).tolist() == [0]
