"""Clusters: stage by stage the same as the lab's method written out with the packages it uses."""

from pathlib import Path

import hdbscan
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import cosine_distances, cosine_similarity

from shared.embeddings import clusters, lightest
from shared.embeddings.clusters import cluster, dense, merged, most_probable, nearest_exemplars
from shared.embeddings.lightest import Stopped
from shared.embeddings.spanning import minimum_spanning_tree
from shared.errors import InputError
from shared.runs import Monitor

REAL = Path(__file__).parents[4] / "shared" / "data" / "features" / "pwssc_leaf36_5109x1280_float16.npz"


def plankton(rows=900, dims=32, kinds=12, seed=0):
    """Unequal clusters with noise between them."""
    rng = np.random.default_rng(seed)
    share = np.append(1 / np.arange(1, kinds + 1), 0.5)
    of = rng.choice(kinds + 1, rows, p=share / share.sum())
    spread = np.append(rng.uniform(0.1, 0.4, kinds), 1.5)[of]
    centres = rng.standard_normal((kinds + 1, dims))
    return (centres[of] + spread[:, None] * rng.standard_normal((rows, dims))).astype(np.float32)


def labs_hdbscan(vectors, alpha=1.1, min_samples=1, min_cluster_size=3):
    return hdbscan.HDBSCAN(
        metric="precomputed",
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        alpha=alpha,
        cluster_selection_method="leaf",
    ).fit(cosine_distances(vectors.astype(np.float64)))


def labs_clusters(vectors, min_similarity=0.9):
    """What the lab does after HDBSCAN, written out: noise joins exemplars, and complete linkage merges these."""
    scan = labs_hdbscan(vectors)
    labels = scan.labels_.copy()
    members = [np.flatnonzero(labels == number) for number in range(labels.max() + 1)]
    exemplars = np.array([rows[scan.probabilities_[rows].argmax()] for rows in members])
    for row in np.flatnonzero(labels < 0):
        similarity = cosine_similarity(vectors[[row]], vectors[exemplars])[0]
        if similarity.max() >= min_similarity:
            labels[row] = similarity.argmax()
    into = fcluster(linkage(vectors[exemplars], "complete", "cosine"), 1 - min_similarity, "distance")
    return np.where(labels < 0, -1, into[labels])


def stage(vectors, alpha=1.1, min_samples=1, min_cluster_size=3):
    edges, weights = minimum_spanning_tree(vectors, alpha=alpha, min_samples=min_samples)
    return dense(edges, weights, len(vectors), min_cluster_size)


@pytest.fixture(scope="module")
def vectors():
    return plankton()


@pytest.fixture(scope="module")
def found(vectors):
    return cluster(vectors, min_similarity=0.8)


@pytest.mark.parametrize(("min_samples", "size"), [(1, 2), (1, 3), (1, 10)])
def test_without_ties_labels_and_probabilities_are_hdbscans(vectors, min_samples, size):
    labels, probabilities = stage(vectors, 1.0, min_samples, size)  # with alpha 1, a distance is no less than a core
    theirs = labs_hdbscan(vectors, 1.0, min_samples, size)
    assert len(set(labels)) > 3
    assert adjusted_rand_score(theirs.labels_, labels) == 1
    assert np.array_equal(theirs.labels_ < 0, labels < 0)
    np.testing.assert_allclose(probabilities, theirs.probabilities_, rtol=1e-6)


@pytest.mark.parametrize(("alpha", "min_samples"), [(1.1, 1), (1.1, 3), (1.3, 1), (1.0, 5)])
def test_with_ties_clusters_are_hdbscans(vectors, alpha, min_samples):
    labels, probabilities = stage(vectors, alpha, min_samples)
    theirs = labs_hdbscan(vectors, alpha, min_samples)
    assert adjusted_rand_score(theirs.labels_, labels) == 1
    np.testing.assert_allclose(probabilities, theirs.probabilities_, rtol=1e-6)


def test_ties_are_found_where_more_rows_are_near_than_a_list_holds(vectors, monkeypatch):
    monkeypatch.setattr(lightest, "LISTED", 2)
    theirs = labs_hdbscan(vectors, 1.5)
    assert adjusted_rand_score(theirs.labels_, stage(vectors, 1.5)[0]) == 1


@pytest.mark.skipif(not REAL.exists(), reason="the real vectors do not lie beside the checkout")
def test_the_clusters_of_real_vectors_are_the_labs():
    vectors = np.load(REAL)["X"][::2].astype(np.float32)
    assert adjusted_rand_score(labs_hdbscan(vectors).labels_, stage(vectors)[0]) >= 0.95
    assert adjusted_rand_score(labs_clusters(vectors), cluster(vectors).labels) >= 0.95


def test_all_stages_together_are_the_labs(vectors):
    assert adjusted_rand_score(labs_clusters(vectors, 0.8), cluster(vectors, min_similarity=0.8).labels) == 1


def test_the_result_is_consistent(vectors, found):
    assert found.joined > 0
    assert len(found.exemplars) < found.found
    assert found.labels.min() == -1
    assert found.sizes.tolist() == sorted(np.bincount(found.labels[found.labels >= 0]), reverse=True)
    assert found.labels[found.exemplars].tolist() == list(range(len(found.exemplars)))
    assert (found.probabilities[found.labels < 0] == 0).all()
    assert ((found.probabilities >= 0) & (found.probabilities <= 1))[found.labels >= 0].all()
    assert found.noise - found.joined == (found.labels < 0).sum()
    assert found.unusable.size == 0
    assert found.probabilities.dtype == found.outlier.dtype == np.float32


def test_outliers_are_far_from_every_exemplar(vectors):
    found = cluster(vectors, min_similarity=2)  # nothing merges: all exemplars are in the result
    distances = cosine_distances(vectors, vectors[found.exemplars]).min(axis=1)
    np.testing.assert_allclose(found.outlier, distances.clip(0, 1), atol=1e-6)
    assert found.joined == 0
    assert len(found.exemplars) == found.found


def test_noise_joins_with_a_probability_that_grows_from_the_bound(vectors, found):
    before, _ = stage(vectors)
    joined = (before < 0) & (found.labels >= 0)
    assert joined.sum() == found.joined
    np.testing.assert_allclose(found.probabilities[joined], (1 - found.outlier[joined] - 0.8) / 0.2, atol=1e-5)
    assert (found.outlier[joined] <= 0.2).all()


def test_the_same_vectors_give_the_same_clusters(vectors, found):
    again = cluster(vectors, min_similarity=0.8)
    for name in ("labels", "probabilities", "exemplars", "outlier"):
        assert np.array_equal(getattr(found, name), getattr(again, name))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_rows_without_direction_are_set_aside_and_the_others_clustered(vectors, bad):
    rows = [0, 5, 899]
    spoilt = vectors.copy()
    spoilt[rows] = bad
    found, clean = cluster(spoilt), cluster(np.delete(vectors, rows, axis=0))
    kept = np.delete(np.arange(900), rows)
    assert found.unusable.tolist() == rows
    assert (found.labels[rows] == -1).all()
    assert (found.outlier[rows] == 1).all()
    assert np.array_equal(found.labels[kept], clean.labels)
    assert np.array_equal(found.exemplars, kept[clean.exemplars])
    assert found.noise == clean.noise + 3


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_fewer_rows_than_a_cluster_needs_are_noise(rows):
    found = cluster(np.ones((rows, 4), np.float32))
    assert found.labels.tolist() == [-1] * rows
    assert found.outlier.tolist() == [1] * rows
    assert found.exemplars.tolist() == []
    assert (found.found, found.noise, found.joined) == (0, rows, 0)


def test_nothing_but_unusable_rows():
    found = cluster(np.zeros((5, 4), np.float32))
    assert found.labels.tolist() == [-1] * 5
    assert found.unusable.tolist() == list(range(5))


@pytest.mark.parametrize("vectors", [np.ones((40, 4)), np.stack([np.ones(30), np.arange(30) ** 1.5], axis=1)])
def test_rows_that_nowhere_fall_apart_are_noise_as_with_hdbscan(vectors):
    found = cluster(vectors.astype(np.float32))
    assert set(labs_hdbscan(vectors).labels_) == {-1}
    assert set(found.labels) == {-1}
    assert found.exemplars.size == 0


def test_copies_of_images_are_clusters_of_their_own():
    rng = np.random.default_rng(2)
    vectors = np.repeat(rng.standard_normal((6, 16)), 5, axis=0).astype(np.float32)
    found = cluster(vectors)
    assert adjusted_rand_score(labs_hdbscan(vectors).labels_, found.labels) == 1
    assert [len(set(found.labels[rows : rows + 5])) for rows in range(0, 30, 5)] == [1] * 6
    assert found.sizes.tolist() == [5] * 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_cluster_size": 1}, "min_cluster_size"),
        ({"min_samples": 0}, "min_samples"),
        ({"min_similarity": 0}, "min_similarity"),
        ({"min_similarity": float("nan")}, "min_similarity"),
        ({"alpha": -1}, "alpha"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_parameters_out_of_range_are_named(vectors, wrong, message):
    with pytest.raises(InputError, match=message):
        cluster(vectors[:50], **wrong)


@pytest.mark.parametrize("table", [np.ones(4), np.ones((3, 2), int), np.array([["a", "b"]])])
def test_what_is_no_table_of_numbers_is_refused(table):
    with pytest.raises(InputError, match="table"):
        cluster(table)


def test_the_most_probable_member_is_the_first_of_equal_ones():
    labels = np.array([1, -1, 0, 0, 1, 0])
    probabilities = np.array([0.5, 0, 0.9, 1 - 1e-12, 0.5, 1.0])
    assert most_probable(labels, probabilities).tolist() == [3, 0]
    assert most_probable(np.full(3, -1), np.zeros(3)).tolist() == []


def test_the_nearest_exemplar_is_that_of_all_tiles(vectors, monkeypatch):
    monkeypatch.setattr(clusters, "TILE_ROWS", 100)
    monkeypatch.setattr(clusters, "TILE_COLUMNS", 7)
    exemplars = np.arange(0, 900, 30)
    nearest, similarity = nearest_exemplars(vectors, exemplars)
    full = cosine_similarity(vectors, vectors[exemplars])
    assert np.array_equal(nearest, full.argmax(axis=1))
    np.testing.assert_allclose(similarity, full.max(axis=1), atol=1e-6)


@pytest.mark.parametrize("similarity", [0.5, 0.9, 0.97])
def test_merging_is_complete_linkage(similarity):
    exemplars = plankton(300, 8, seed=4)
    theirs = fcluster(linkage(exemplars, "complete", "cosine"), 1 - similarity, "distance")
    ours = merged(exemplars, similarity)
    assert 1 < len(set(ours)) < 300
    assert adjusted_rand_score(theirs, ours) == 1


def test_a_chain_of_similar_exemplars_is_not_one_cluster():
    degrees = np.radians([0, 20, 41, 180])
    into = merged(np.stack([np.cos(degrees), np.sin(degrees)], axis=1), 0.9)  # 25.8 degrees
    assert into.tolist() == [0, 0, 2, 3]


def test_too_long_a_chain_says_what_to_do(monkeypatch):
    monkeypatch.setattr(clusters, "MOST_LINKED", 10)
    with pytest.raises(InputError, match=r"11 clusters .* raise min_similarity"):
        merged(np.ones((11, 3)), 0.5)


def test_a_stop_is_heard_at_every_stage(vectors):
    class Until(Monitor):
        what = ""

        def __init__(self, last):
            self.last = last

        def progress(self, done, total, what):
            self.what = what

        def stopping(self):
            return self.what.startswith(self.last)

    for last in ("Comparing", "Finding"):
        with pytest.raises(Stopped):
            cluster(vectors, monitor=Until(last))
