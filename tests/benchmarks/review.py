"""Does the review look where the faults are? Faults put into real images on purpose, and what is found of them.

Features are those of a trained network whose classes are other ones; the model that is judged is a linear probe on
them, fitted on images that it is not judged by. All of it is drawn anew for each seed:

- 5% of the labels are flipped: the share of them among as many at the top of the list of wrong labels; and, for other
  shares as well and for flips to a similar class, how long the list is and how many of it are flipped ones;
- one value of a field has blurred images: how often the first weak slice is that one, and on shuffled fields how
  often no slice is named at all;
- each class in turn has 10 examples and 30 other images: the share of these that is among 100 chosen out of some 600.

`..._held_out` are the same of other classes, see `_review.held_out`, where their features lie beside the checkout.

`review_time` and `review_memory` are of the operators themselves, on datasets of generated predictions in MongoDB:
200,000, or `MBARI_BENCH_ROWS`, and a tenth of them. They need Linux.
"""

from collections import defaultdict
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues
from fiftyone.brain.internal.core.mistakenness import _compute_mistakenness_class
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from shared.review import calibration, novelty, select, weak_slices, wrong_labels
from shared.runs import Monitor
from tests.benchmarks import _review, _review_size

SEEDS = 5
FLIPPED = 0.05
SHARES = (0.0, 0.01, FLIPPED, 0.1)
SLICES = {"camera": 4, "depth": 6, "collection": 10}
SHUFFLES = 200
BUDGET, EXAMPLES, RARE = 100, 10, 30
DRAWS = 3  # of the images, for each rare class


def run() -> list[dict[str, Any]]:
    """The benchmarks `review_labels`, `review_slice`, `review_false`, `review_rare`, `review_time`, `review_memory`."""
    sharp, blurred, labels, names, what = _review.features()
    results = [
        _labels("review_labels", sharp, labels, len(names), what),
        _blurred(sharp, blurred, labels, what),
        _false("review_false", sharp, labels, what),
        _rare("review_rare", sharp, labels, names, what),
    ]
    if (held := _review.held_out(names)) is not None:
        features, labels, names, what = held
        results += [
            _labels("review_labels_held_out", features, labels, len(names), what),
            _false("review_false_held_out", features, labels, what),
            _rare("review_rare_held_out", features, labels, names, what),
        ]
    return results + _review_size.run()


def _labels(name: str, features: np.ndarray, labels: np.ndarray, classes: int, what: str) -> dict[str, Any]:
    """The flipped among the first N of each list, N being how many were flipped, and among the first 2N."""
    clean = _out_of_fold(features, labels, classes, 0)
    alike = np.stack([clean[labels == one].mean(axis=0) for one in range(classes)])
    anything = np.ones((classes, classes))
    firsts, lists = defaultdict(list), defaultdict(list)
    for seed in range(SEEDS):
        for kind, share in [(anything, share) for share in SHARES] + [(alike, FLIPPED)]:
            random = np.random.default_rng(seed)
            given = _flipped(random, labels, share, kind)
            flipped = given != labels
            sure = _out_of_fold(features, given, classes, seed)
            found = wrong_labels.find(given, None, sure, classes)
            assert found is not None
            lists[f"{share:.0%}{' to a similar class' if kind is alike else ''}"].append(
                _named(found, flipped, sure, given)
            )
            if share == FLIPPED and kind is anything:
                n = int(flipped.sum())
                for way, order in _orders(random, found.indices, sure, given).items():
                    firsts[way].append((flipped[order[:n]].sum() / n, flipped[order[: 2 * n]].sum() / n))
    mean = {way: np.mean(shares, axis=0).round(3).tolist() for way, shares in firsts.items()}
    peer = max(mean[way][0] for way in ("least confident", "most confident that disagree"))
    return {
        "name": name,
        "ours": mean["ours"][0],
        "peer": peer,
        "ratio": round(mean["ours"][0] / peer, 2),
        "unit": f"share of flipped labels in a list as long; by confidence alone, the better way; {what}",
        "goal": ">= 1.5",
        "first_n_and_2n": mean,
        "random": FLIPPED,
        "lists": {
            flips: {key: round(float(np.mean([one[key] for one in found])), 1) for key in found[0]}
            for flips, found in lists.items()
        },
    }


def _flipped(random: np.random.Generator, labels: np.ndarray, share: float, weights: np.ndarray) -> np.ndarray:
    """The labels, (N,), a share of them replaced by another class: that of row and column by its weight, (C, C)."""
    given = labels.copy()
    for row in random.choice(len(labels), round(share * len(labels)), replace=False):
        chances = np.where(np.arange(len(weights)) == labels[row], 0, weights[labels[row]])
        given[row] = random.choice(len(weights), p=chances / chances.sum())
    return given


def _out_of_fold(features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    sure = wrong_labels.out_of_fold(labels, features, classes, 5, seed, Monitor())
    assert sure is not None
    return sure


def _orders(
    random: np.random.Generator, ours: np.ndarray, sure: np.ndarray, given: np.ndarray
) -> dict[str, np.ndarray]:
    """The rows as each way ranks them, by probabilities (N, C)."""
    confidence, disagrees = sure.max(axis=1), sure.argmax(axis=1) != given
    logits = np.log(np.maximum(sure, 1e-12))
    mistaken = [_compute_mistakenness_class(row, float(not d)) for row, d in zip(logits, disagrees, strict=True)]
    return {
        "ours": ours,
        "FiftyOne brain's mistakenness": np.argsort(-np.array(mistaken)),
        "least confident": np.argsort(confidence),
        "most confident that disagree": np.argsort(-confidence - 10 * disagrees),
        "random": random.permutation(len(given)),
    }


def _named(
    found: wrong_labels.WrongLabels, flipped: np.ndarray, sure: np.ndarray, given: np.ndarray
) -> dict[str, float]:
    """How long the list is, how many of it are flipped ones, and how many it says are; and how long cleanlab's is."""
    return {
        "flipped": int(flipped.sum()),
        "named": len(found.indices),
        "flipped among the named": int(flipped[found.indices].sum()),
        "expected among the named": float(found.chance[found.indices].sum()),
        "named by cleanlab": len(find_label_issues(given, sure, return_indices_ranked_by="self_confidence", n_jobs=1)),
    }


def _blurred(sharp: np.ndarray, blurred: np.ndarray, labels: np.ndarray, what: str) -> dict[str, Any]:
    """How often the slice whose images are blurred is the first one named."""
    first, slices = [], []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        clear, dim = _right(random, labels, sharp, blurred)
        for field, count in SLICES.items():
            columns = _columns(random, len(labels))
            bad = f"{field} {random.integers(count)}"
            there = np.array(columns[field]) == bad
            found = weak_slices.find(np.where(there, dim, clear), columns)
            first.append(bool(found) and found[0].fields == (field,) and found[0].values == (bad,))
            slices.append({"n": int(there.sum()), "right": dim[there].mean(), "sharp": clear[there].mean()})
    return {
        "name": "review_slice",
        "ours": float(np.mean(first)),
        "peer": None,
        "ratio": None,
        "unit": f"share of {len(first)} draws in which the blurred slice is named first; {what}",
        "goal": ">= 0.9",
        "named_first": first,
        "slices": [{key: round(float(value), 3) for key, value in one.items()} for one in slices],
    }


def _false(name: str, features: np.ndarray, labels: np.ndarray, what: str) -> dict[str, Any]:
    """How often no slice is named where fields are shuffled."""
    quiet = []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        (right,) = _right(random, labels, features)
        quiet += [not weak_slices.find(right, _columns(random, len(labels))) for _ in range(SHUFFLES // SEEDS)]
    return {
        "name": name,
        "ours": float(np.mean(quiet)),
        "peer": None,
        "ratio": None,
        "unit": f"share of {len(quiet)} shuffles of clean data in which no slice is named; {what}",
        "goal": ">= 0.95",
    }


def _right(random: np.random.Generator, labels: np.ndarray, *seen: np.ndarray) -> np.ndarray:
    """Which images a probe is right about that was fitted on the first of `seen` of the other half, (len(seen), N)."""
    half = random.permutation(len(labels)) % 2
    right = np.zeros((len(seen), len(labels)), bool)
    for learned, judged in ((half == 0, half == 1), (half == 1, half == 0)):
        probe = _probe(seen[0][learned], labels[learned])
        for features, found in zip(seen, right, strict=True):
            found[judged] = probe.predict(normalize(features[judged])) == labels[judged]
    return right


def _columns(random: np.random.Generator, rows: int) -> dict[str, list[str | None]]:
    return {
        field: [f"{field} {value}" for value in random.integers(count, size=rows)] for field, count in SLICES.items()
    }


def _rare(name: str, features: np.ndarray, labels: np.ndarray, names: list[str], what: str) -> dict[str, Any]:
    """For each class in turn as the rare one: the share of its unlabelled images that is chosen."""
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    enough = np.flatnonzero(np.bincount(labels) >= EXAMPLES + RARE)
    for rare, seed in ((int(rare), seed) for rare in enough for seed in range(DRAWS)):
        random = np.random.default_rng([rare, seed])
        order = random.permutation(len(labels))
        ours = order[labels[order] == rare][: EXAMPLES + RARE]
        others = order[labels[order] != rare]
        learned = np.concatenate([ours[:EXAMPLES], others[: len(others) // 3]])
        val, pool = (
            others[len(others) // 3 : len(others) // 2],
            np.concatenate([ours[EXAMPLES:], others[len(others) // 2 :]]),
        )
        for way, rows in _chosen(features, labels, names, rare, learned, val, pool, random).items():
            shares[way][names[rare]].append(float((labels[rows] == rare).sum() / RARE))
    classes = {way: {one: round(float(np.mean(of)), 3) for one, of in found.items()} for way, found in shares.items()}
    mean = {way: round(float(np.mean(list(found.values()))), 3) for way, found in classes.items()}
    peer = max(value for way, value in mean.items() if "confident" in way)
    return {
        "name": name,
        "ours": mean["ours"],
        "peer": peer,
        "ratio": round(mean["ours"] / peer, 2),
        "unit": f"share of {RARE} of a class with {EXAMPLES} examples in {BUDGET} chosen; by confidence, the "
        f"better way; {what}",
        "goal": ">= 1.5",
        "means": mean,
        "classes": classes,
    }


def _chosen(
    features: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    rare: int,
    learned: np.ndarray,
    val: np.ndarray,
    pool: np.ndarray,
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The rows of `pool` that each way chooses."""
    probe = _probe(features[learned], labels[learned])
    logits = probe.decision_function(normalize(features))
    sure = calibration.apply(logits[pool], calibration.temperature(logits[val], labels[val]))
    predicted, number = sure.argmax(axis=1), np.array([rare])
    predictions = select.Predictions(names, predicted, rare=number, **select.summarise(sure, predicted, number))
    examples = np.bincount(labels[learned], minlength=len(names))
    unit = normalize(features).astype(np.float32)
    far = novelty.novelty(unit[pool], unit[learned])
    ours = select.choose(predictions, BUDGET, examples=examples, novelty=far, vectors=unit[pool])
    confidence = sure.max(axis=1)
    return {
        "ours": pool[ours.rows],
        "most confident": pool[np.argsort(-confidence)[:BUDGET]],
        "least confident": pool[np.argsort(confidence)[:BUDGET]],
        "random": random.choice(pool, BUDGET, replace=False),
    }


def _probe(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    with threadpool_limits(1):  # see wrong_labels
        return LogisticRegression(C=wrong_labels.STRENGTH, max_iter=300).fit(normalize(features), labels)
