"""Two coordinates for each vector, so that a person can look at all of them on one map.

UMAP (McInnes, Healy and Melville 2018, arXiv:1802.03426) keeps neighbours together; PCA is a quick look that
shows the two directions of greatest variance. Both are deterministic: same vectors and seed, same points.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..runs import Monitor

NEIGHBORS = 15  # UMAP's own default, and FiftyOne's
MIN_DIST = 0.1
FEWEST = 4  # rows that UMAP can be asked to lay out; fewer have no neighbourhoods to keep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """A map of vectors.

    Attributes:
        points: shape (N, 2), float32, finite, row by row those of the vectors
        method: "umap" or "pca", as it was done: UMAP of a few rows is PCA
        ran: the library that made it, such as "umap-learn 0.5.9"
        parameters: the method's parameters as they were used
    """

    points: np.ndarray
    method: Literal["umap", "pca"]
    ran: str
    parameters: dict[str, Any]


def points(
    vectors: np.ndarray,
    *,
    method: Literal["umap", "pca"] = "umap",
    seed: int = 51,
    device: str = "auto",
    monitor: Monitor | None = None,
) -> Layout:
    """Lays vectors out in two dimensions.

    Args:
        vectors: shape (N, D), finite; of any length: UMAP compares directions (cosine)
        method: "umap", or "pca" for a quick look
        seed: of the random numbers
        device: "auto" takes a GPU where there are one and cuML; "cpu"; "cuda" insists on the GPU
        monitor: hears what is being done; neither method can be stopped half-way

    Returns:
        the points, and what made them

    Raises:
        InputError: there is no vector, or some hold NaN or infinity; or "cuda" is not to be had
    """
    if vectors.ndim != 2 or not vectors.size:
        raise InputError("There is no vector to lay out; compute embeddings for these ROIs first.")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))
    if bad:
        raise InputError(f"{bad:,} of {len(vectors):,} vectors hold NaN or infinity; compute these embeddings again.")
    monitor = monitor or Monitor()
    if method == "pca" or len(vectors) < FEWEST:
        monitor.progress(0, 0, f"Computing the map of {len(vectors):,} ROIs (PCA)")
        return _pca(vectors, seed)
    monitor.progress(0, 0, f"Computing the map of {len(vectors):,} ROIs (UMAP)")
    return _umap(vectors, seed, device)


def _pca(vectors: np.ndarray, seed: int) -> Layout:
    """The first two principal components; directions that there are not (one row, one column) are 0."""
    from sklearn.decomposition import PCA

    laid = np.zeros((len(vectors), 2), np.float32)
    found = min(2, *vectors.shape)
    if (vectors != vectors[0]).any():  # else, as with one row, there is no variance to explain
        # Scikit-learn fixes the signs itself: the largest loading of each component is positive.
        laid[:, :found] = PCA(n_components=found, random_state=seed).fit_transform(vectors)
    return Layout(laid, "pca", f"scikit-learn {version('scikit-learn')}", {"svd_solver": "auto", "seed": seed})


def _umap(vectors: np.ndarray, seed: int, device: str) -> Layout:
    """UMAP with cosine distance, on the GPU where that is possible and wanted."""
    parameters = {
        "n_neighbors": min(NEIGHBORS, len(vectors) - 1),
        "min_dist": MIN_DIST,
        "metric": "cosine",
        "random_state": seed,
    }
    said = {"num_neighbors": parameters["n_neighbors"], "min_dist": MIN_DIST, "metric": "cosine", "seed": seed}
    on_gpu = _cuml_umap(device)
    if on_gpu is not None:
        laid = np.asarray(on_gpu(n_components=2, **parameters).fit_transform(vectors), dtype=np.float32)
        return Layout(_finite(laid), "umap", f"cuML's UMAP {version('cuml')}", said)
    import umap

    # A seed means one thread (umap-learn would say so in a warning). The distance: vectors whose neighbours all point
    # the opposite way would be cut off and get no coordinates.
    reducer = umap.UMAP(n_components=2, n_jobs=1, disconnection_distance=np.inf, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of graphs in several parts and of small ones: both are laid out
        laid = np.asarray(reducer.fit_transform(vectors), dtype=np.float32)
    return Layout(_finite(laid), "umap", f"umap-learn {version('umap-learn')}", said)


def _cuml_umap(device: str) -> Any:
    """The UMAP class of cuML where a GPU is visible and cuML installed, else None."""
    if device == "cpu":
        return None
    import torch

    if torch.cuda.is_available():
        try:
            from cuml.manifold import UMAP

            return UMAP
        except ImportError:
            logger.info("cuML is not installed: the map is computed on the CPU")
    if device != "auto":
        raise InputError(
            f"The map cannot be computed on {device!r}: that needs a GPU and cuML; choose 'auto' or 'cpu'."
        )
    return None


def _finite(laid: np.ndarray) -> np.ndarray:
    """Puts points without coordinates into the middle, where a person sees them, instead of nowhere."""
    lost = ~np.isfinite(laid).all(axis=1)
    if lost.any():
        laid[lost] = laid[~lost].mean(axis=0) if not lost.all() else 0.0
    return laid
