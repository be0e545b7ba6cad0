"""Two-dimensional layouts: against independent references, always the same, and for awkward input."""

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from shared.embeddings import layout
from shared.errors import InputError
from shared.runs import Monitor


def clumps(count, width=16, groups=4):
    """Vectors in well separated groups, and the group of each."""
    random = np.random.default_rng(0)
    group = np.arange(count) % groups
    centres = random.normal(size=(groups, width)) * 4
    return (centres[group] + random.normal(size=(count, width))).astype(np.float32), group


def test_pca_is_that_of_the_singular_values():
    vectors, _ = clumps(60)
    laid = layout.points(vectors, method="pca")
    centred = vectors.astype(float) - vectors.mean(axis=0, dtype=float)
    _, _, components = np.linalg.svd(centred)
    expected = centred @ components[:2].T
    assert laid.points.dtype == np.float32
    np.testing.assert_allclose(np.abs(laid.points), np.abs(expected), atol=1e-4)
    assert (laid.method, laid.ran.split()[0]) == ("pca", "scikit-learn")


def test_pca_has_the_same_signs_whatever_the_order_of_the_rows():
    vectors, _ = clumps(60)
    turned = layout.points(vectors[::-1], method="pca").points[::-1]
    np.testing.assert_allclose(layout.points(vectors, method="pca").points, turned, atol=1e-4)


def test_umap_keeps_neighbours_by_direction_and_is_repeatable():
    vectors, _ = clumps(80)
    laid = layout.points(vectors, device="cpu")
    assert laid.points.shape == (80, 2)
    assert laid.points.dtype == np.float32
    assert trustworthiness(vectors, laid.points, n_neighbors=10, metric="cosine") > 0.9
    assert laid.ran.startswith("umap-learn ")
    assert laid.parameters == {"num_neighbors": 15, "min_dist": 0.1, "metric": "cosine", "seed": 51}
    np.testing.assert_array_equal(layout.points(vectors, device="cpu").points, laid.points)
    assert not np.array_equal(layout.points(vectors, device="cpu", seed=1).points, laid.points)
    # Twice the length is the same direction.
    longer = vectors * np.where(np.arange(80) % 2, 2, 1)[:, None].astype(np.float32)
    np.testing.assert_array_equal(layout.points(longer, device="cpu").points, laid.points)


@pytest.mark.parametrize("method", ["umap", "pca"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 16, 17])
def test_few_rows_get_points(method, count):
    laid = layout.points(clumps(count)[0], method=method)
    assert laid.points.shape == (count, 2)
    assert np.isfinite(laid.points).all()
    assert laid.method == ("umap" if method == "umap" and count >= 4 else "pca")
    assert laid.parameters.get("num_neighbors", 1) < max(count, 2)


@pytest.mark.parametrize("method", ["umap", "pca"])
@pytest.mark.parametrize(
    "vectors",
    [
        pytest.param(np.ones((30, 8)), id="identical"),
        pytest.param(np.zeros((30, 8)), id="zero"),
        pytest.param(np.repeat(np.eye(3), 12, axis=0), id="duplicates"),
        pytest.param(np.where(np.arange(9)[:, None] % 2, 1.0, -1.0) * np.ones((9, 4)), id="opposite"),
        pytest.param(np.linspace(-1, 1, 20)[:, None], id="one column"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_awkward_vectors_get_points(method, vectors):
    laid = layout.points(vectors, method=method)
    assert laid.points.shape == (len(vectors), 2)
    assert np.isfinite(laid.points).all()


@pytest.mark.parametrize("method", ["umap", "pca"])
def test_bad_vectors_are_refused(method):
    with pytest.raises(InputError, match="no vector to lay out"):
        layout.points(np.empty((0, 8), np.float32), method=method)
    vectors = clumps(20)[0]
    vectors[3, 2], vectors[7, 0] = np.nan, np.inf
    with pytest.raises(InputError, match="2 of 20 vectors hold NaN or infinity"):
        layout.points(vectors, method=method)


def test_a_gpu_that_is_not_there_is_not_replaced_in_silence():
    with pytest.raises(InputError, match="needs a GPU and cuML"):
        layout._umap(clumps(20)[0], 51, "cuda")


def test_the_person_hears_what_is_done():
    said = []

    class Listening(Monitor):
        def progress(self, done, total, what):
            said.append(what)

    layout.points(clumps(20)[0], method="pca", monitor=Listening())
    assert said == ["Computing the map of 20 ROIs (PCA)"]
