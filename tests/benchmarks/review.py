"""Does the review look where the faults are? Faults put into real images on purpose, and what is found of them.

Features are those of a trained network whose classes are other ones; the model that is judged is a linear probe on
them, fitted on images that it is not judged by. All of it is drawn anew for each seed:

- 5% of the labels are flipped: the share of them among as many at the top of the list of wrong labels;
- one value of a field has blurred images: how often the first weak slice is that one, and on shuffled fields how
  often no slice is named at all;
- each class in turn has 10 examples: the share of its other images that is among 100 chosen out of some 600.

`review_time` and `review_memory` are of the operators themselves, on datasets of generated predictions in MongoDB:
200,000, or `MBARI_BENCH_ROWS`, and a tenth of them. They need Linux.
"""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from shared.review import calibration, novelty, select, weak_slices, wrong_labels
from shared.runs import Monitor
from tests.benchmarks import _review, _review_size

SEEDS = 5
FLIPPED = 0.05
SLICES = {"camera": 4, "depth": 6, "collection": 10}
SHUFFLES = 200
BUDGET, EXAMPLES = 100, 10


def run() -> list[dict[str, Any]]:
    """The benchmarks `review_labels`, `review_slice`, `review_false`, `review_rare`, `review_time`, `review_memory`."""
    sharp, blurred, labels, names, what = _review.features()
    results = [_labels(sharp, labels, len(names), what)]
    results += _slices(sharp, blurred, labels, what)
    results += [_rare(sharp, labels, names, what), *_review_size.run()]
    return results


def _labels(features: np.ndarray, labels: np.ndarray, classes: int, what: str) -> dict[str, Any]:
    """The flipped among the first N of each list, N being how many were flipped, and among the first 2N."""
    lists: dict[str, list[tuple[float, float]]] = {}
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        flipped = np.zeros(len(labels), bool)
        flipped[random.choice(len(labels), round(FLIPPED * len(labels)), replace=False)] = True
        given = np.where(flipped, (labels + random.integers(1, classes, len(labels))) % classes, labels)
        found = wrong_labels.find(given, features, None, classes, seed=seed)
        sure = wrong_labels.out_of_fold(given, features, classes, 5, seed, Monitor())
        assert found is not None
        assert sure is not None
        confidence, disagrees = sure.max(axis=1), sure.argmax(axis=1) != given
        orders = {
            "ours": found.indices,
            "least confident": np.argsort(confidence),
            "most confident that disagree": np.argsort(-confidence - 10 * disagrees),
            "random": random.permutation(len(labels)),
        }
        n = int(flipped.sum())
        for name, order in orders.items():
            lists.setdefault(name, []).append((flipped[order[:n]].sum() / n, flipped[order[: 2 * n]].sum() / n))
    mean = {name: np.mean(shares, axis=0).round(3).tolist() for name, shares in lists.items()}
    peer = max(mean[name][0] for name in ("least confident", "most confident that disagree"))
    return {
        "name": "review_labels",
        "ours": mean["ours"][0],
        "peer": peer,
        "ratio": round(mean["ours"][0] / peer, 2),
        "unit": f"share of flipped labels in a list as long; by confidence alone, the better way; {what}",
        "goal": ">= 1.5",
        "first_n_and_2n": mean,
        "random": FLIPPED,
    }


def _slices(sharp: np.ndarray, blurred: np.ndarray, labels: np.ndarray, what: str) -> list[dict[str, Any]]:
    """How often the blurred slice is the first one named; how often none is where fields are shuffled."""
    first, slices, quiet = [], [], []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        half = random.permutation(len(labels)) % 2
        clear, dim = np.zeros((2, len(labels)), bool)
        for learned, judged in ((half == 0, half == 1), (half == 1, half == 0)):
            probe = _probe(sharp[learned], labels[learned])
            for right, seen in ((clear, sharp), (dim, blurred)):
                right[judged] = probe.predict(normalize(seen[judged])) == labels[judged]
        for field, count in SLICES.items():
            columns = _columns(random, len(labels))
            bad = f"{field} {random.integers(count)}"
            there = np.array(columns[field]) == bad
            found = weak_slices.find(np.where(there, dim, clear), columns)
            first.append(bool(found) and found[0].fields == (field,) and found[0].values == (bad,))
            slices.append({"n": int(there.sum()), "right": dim[there].mean(), "sharp": clear[there].mean()})
        shuffled = (weak_slices.find(clear, _columns(random, len(labels))) for _ in range(SHUFFLES // SEEDS))
        quiet += [not found for found in shuffled]
    return [
        {
            "name": "review_slice",
            "ours": float(np.mean(first)),
            "peer": None,
            "ratio": None,
            "unit": f"share of {len(first)} draws in which the blurred slice is named first; {what}",
            "goal": ">= 0.9",
            "named_first": first,
            "slices": [{key: round(float(value), 3) for key, value in one.items()} for one in slices],
        },
        {
            "name": "review_false",
            "ours": float(np.mean(quiet)),
            "peer": None,
            "ratio": None,
            "unit": f"share of {len(quiet)} shuffles of clean data in which no slice is named; {what}",
            "goal": ">= 0.95",
        },
    ]


def _columns(random: np.random.Generator, rows: int) -> dict[str, list[str | None]]:
    return {
        field: [f"{field} {value}" for value in random.integers(count, size=rows)] for field, count in SLICES.items()
    }


def _rare(features: np.ndarray, labels: np.ndarray, names: list[str], what: str) -> dict[str, Any]:
    """For each class in turn as the rare one: the share of its unlabelled images that is chosen."""
    shares: dict[str, list[float]] = {}
    for rare in range(len(names)):
        random = np.random.default_rng(rare)
        order = random.permutation(len(labels))
        ours = order[labels[order] == rare]
        others = order[labels[order] != rare]
        learned = np.concatenate([ours[:EXAMPLES], others[: len(others) // 3]])
        val, pool = (
            others[len(others) // 3 : len(others) // 2],
            np.concatenate([ours[EXAMPLES:], others[len(others) // 2 :]]),
        )
        for name, rows in _chosen(features, labels, names, rare, learned, val, pool, random).items():
            shares.setdefault(name, []).append(float((labels[rows] == rare).sum() / len(ours[EXAMPLES:])))
    mean = {name: round(float(np.mean(values)), 3) for name, values in shares.items()}
    peer = max(value for name, value in mean.items() if "confident" in name)
    return {
        "name": "review_rare",
        "ours": mean["ours"],
        "peer": peer,
        "ratio": round(mean["ours"] / peer, 2),
        "unit": f"recall of a class with {EXAMPLES} examples in {BUDGET} chosen; by confidence, the better way; {what}",
        "goal": ">= 1.5",
        "means": mean,
        "classes": {name: dict(zip(names, values, strict=True)) for name, values in shares.items()},
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
