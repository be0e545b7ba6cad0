"""Vectors to cluster, and each way to cluster them; run as a program, it measures one way in a process of its own."""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PARAMETERS = {"min_cluster_size": 3, "min_samples": 1, "alpha": 1.1}


def plankton(rows: int, dims: int = 384, seed: int = 0) -> np.ndarray:
    """Vectors as a backbone makes of plankton: unequal kinds, the same animals in runs of frames, and noise."""
    rng = np.random.default_rng(seed)
    kinds, inner = 60, 24
    basis = rng.standard_normal((inner, dims)) / np.sqrt(inner)
    share = np.arange(1, kinds + 1) ** -1.1
    parts = []
    for count in (share / share.sum() * 0.8 * rows).astype(int):
        centre, spread = rng.standard_normal(inner), rng.uniform(0.15, 0.5)
        while count > 0:
            seen = min(count, int(1 + rng.geometric(0.15)))  # frames with this animal
            count -= seen
            animal = centre + spread * rng.standard_normal(inner)
            parts.append(animal + rng.uniform(0.02, 0.15) * rng.standard_normal((seen, inner)))
    parts.append(rng.standard_normal((rows - sum(map(len, parts)), inner)))
    mixed = rng.permutation(np.concatenate(parts)).astype(np.float32)
    grain = rng.standard_normal((rows, dims), dtype=np.float32)
    return np.tanh(mixed @ basis.astype(np.float32)) + np.float32(0.05) * grain


def _ours(vectors: np.ndarray) -> np.ndarray:
    from shared.embeddings.clusters import dense
    from shared.embeddings.spanning import minimum_spanning_tree

    edges, weights = minimum_spanning_tree(vectors, min_samples=1, alpha=PARAMETERS["alpha"])
    return dense(edges, weights, len(vectors), 3)[0]


def _ours_whole(vectors: np.ndarray) -> np.ndarray:
    from shared.embeddings.clusters import cluster

    return cluster(vectors, **PARAMETERS).labels


def _labs(vectors: np.ndarray) -> np.ndarray:
    return _labs_scan(vectors).labels_


def _labs_scan(vectors: np.ndarray) -> Any:
    import hdbscan
    from sklearn.metrics.pairwise import cosine_distances

    scan = hdbscan.HDBSCAN(metric="precomputed", cluster_selection_method="leaf", **PARAMETERS)
    return scan.fit(cosine_distances(vectors.astype(np.float64)))  # it takes no float32


def _labs_whole(vectors: np.ndarray) -> np.ndarray:
    """The lab's later steps too, in bulk where the lab's own go row by row."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.metrics.pairwise import cosine_similarity

    scan = _labs_scan(vectors)
    labels = scan.labels_.copy()
    members = [np.flatnonzero(labels == number) for number in range(labels.max() + 1)]
    exemplars = np.array([rows[scan.probabilities_[rows].argmax()] for rows in members])
    noise = np.flatnonzero(labels < 0)
    similarity = cosine_similarity(vectors[noise], vectors[exemplars])
    joins = similarity.max(axis=1) >= 0.9
    labels[noise[joins]] = similarity.argmax(axis=1)[joins]
    into = fcluster(linkage(vectors[exemplars], "complete", "cosine"), 0.1, "distance") - 1
    return np.where(labels < 0, -1, into[labels])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _hdbscan_by(algorithm: str) -> Callable[[np.ndarray], np.ndarray]:
    def scan(vectors: np.ndarray) -> np.ndarray:
        import hdbscan

        made = hdbscan.HDBSCAN(algorithm=algorithm, cluster_selection_method="leaf", **PARAMETERS)
        return made.fit(_unit(vectors).astype(np.float64)).labels_

    return scan


def _scikit_learn(vectors: np.ndarray) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    # It counts a row among its own neighbours: 2 is what the others call 1. Alpha shrinks its core distances too.
    scan = HDBSCAN(min_cluster_size=3, min_samples=2, alpha=1.1, metric="cosine", cluster_selection_method="leaf")
    return scan.fit(vectors).labels_


def _fast_hdbscan(reduce: int | None) -> Callable[[np.ndarray], np.ndarray]:
    def scan(vectors: np.ndarray) -> np.ndarray:
        import fast_hdbscan
        from sklearn.decomposition import PCA

        unit = _unit(vectors)
        if reduce:
            unit = PCA(reduce, random_state=0).fit_transform(unit)
        made = fast_hdbscan.HDBSCAN(min_cluster_size=3, min_samples=1, cluster_selection_method="leaf")
        return made.fit(unit.astype(np.float32)).labels_

    return scan


def _evoc(vectors: np.ndarray) -> np.ndarray:
    import evoc

    return evoc.EVoC(base_min_cluster_size=3, min_samples=1, random_state=0).fit_predict(_unit(vectors))


def _cuml(vectors: np.ndarray) -> np.ndarray:
    from cuml.cluster import HDBSCAN

    scan = HDBSCAN(metric="euclidean", cluster_selection_method="leaf", **PARAMETERS)
    return np.asarray(scan.fit_predict(_unit(vectors)))


LAB, OURS = "hdbscan precomputed (the lab)", "ours"
LAB_WHOLE, OURS_WHOLE = "the lab, joined and merged", "ours, joined and merged"
WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    LAB: _labs,
    OURS: _ours,
    LAB_WHOLE: _labs_whole,
    OURS_WHOLE: _ours_whole,
    "hdbscan boruvka_kdtree": _hdbscan_by("boruvka_kdtree"),
    "hdbscan prims_kdtree": _hdbscan_by("prims_kdtree"),
    "scikit-learn": _scikit_learn,
    "fast_hdbscan": _fast_hdbscan(None),
    "fast_hdbscan on PCA-50": _fast_hdbscan(50),
    "evoc": _evoc,
    "cuML": _cuml,
}


def _memory(what: str) -> float:
    """VmRSS or VmHWM in MB. Not ru_maxrss: that of a new process begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+)", status)[1]) / 1024


def main(way: str, source: str, labels: str) -> None:
    """Clusters the vectors of a file and prints what it took; a small first run has imported and compiled all."""
    vectors = np.load(source)
    try:
        WAYS[way](plankton(300, 64))
    except ImportError as error:
        print(json.dumps({"missing": error.name}))
        return
    inputs = _memory("VmRSS")
    began = time.perf_counter()
    found = WAYS[way](vectors)
    seconds = time.perf_counter() - began
    np.save(labels, found)
    print(json.dumps({"seconds": round(seconds, 2), "mb": round(max(_memory("VmHWM") - inputs, 0.1), 1)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
