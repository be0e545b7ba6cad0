"""The demo's review: where the model is weak, labels that look wrong, and which ROIs are worth a person's look."""

from typing import Any

import demo_labels
from demo_labels import AtOnce, Scheduled

BUDGET = 60  # ROIs that a person has time for
SAID = 5  # items of the focus list that are printed


def review(
    dataset, predictions: str, training: dict[str, Any], at_once: AtOnce, scheduled: Scheduled
) -> dict[str, Any]:
    """Evaluates, goes through the labels that look wrong, evaluates again, and selects; returns the report's part.

    Args:
        dataset: the demo's
        predictions: the field of predictions
        training: parameters of the training, whose slices are looked at as well
        at_once: executes an operator here and now
        scheduled: has the worker execute it
    """
    params = {"prediction_field": predictions, "slices": training.get("slices", [])}
    first = scheduled("apply_model/evaluate_predictions", params)
    print(f"   {first['message']}")
    for item in first["focus"][:SAID]:
        print(f"   {item['number']}. {item['where to look']} ({item['ROIs']}): {item['what was found']}")
    missed = len(demo_labels.wrong_in(dataset))
    doubted, corrected = _go_through(dataset, first["saved_views"], at_once)
    second = at_once(dataset, "apply_model/evaluate_predictions", params)
    print(f"   {second['message']}")
    selected = at_once(
        dataset,
        "apply_model/select_for_review",
        {
            "prediction_field": predictions,
            "budget": BUDGET,
            "embeddings_field": "embeddings",
            "cluster_field": "cluster",
            "rare_classes": [_rarest(dataset)],
            "only_unlabelled": False,  # the demo has a label for every ROI
        },
    )
    print(f"   {selected['message']}")
    return {
        "focus": first["focus"],
        "doubted": doubted,
        "missed": missed,
        "corrected": corrected,
        "top1": [first["top1"], second["top1"]],
        "macro_f1": [first["macro_f1"], second["macro_f1"]],
        "chosen": selected["chosen"],
    }


def _rarest(dataset) -> str:
    counts = dataset.count_values("ground_truth.label")
    return min(counts, key=lambda label: (counts[label], label))


def _go_through(dataset, views: list[str], at_once: AtOnce) -> tuple[int, int]:
    """Looks at every label that looks wrong and corrects those that are; returns how many of each."""
    name = next((name for name in views if "Labels that look wrong" in name), None)
    if name is None:
        return 0, 0
    view = dataset.load_saved_view(name)
    doubted = view.count()
    wrong = demo_labels.wrong_in(view)
    demo_labels.correct_labels(dataset, wrong, at_once)
    at_once(view, "apply_model/mark_reviewed", {})
    if wrong:
        at_once(dataset, "sync_back/apply_corrections", {})
    return doubted, len(wrong)


def summary(report: dict[str, Any]) -> str:
    """The outcome in one line."""
    chosen = ", ".join(f"{row['ROIs']} {row['kind']}" for row in report["chosen"])
    return (
        f"Review: {report['doubted']} labels looked wrong, and {report['corrected']} of them were, of "
        f"{report['missed']} that nobody had seen; chosen for a look: {chosen}."
    )
