"""The demo's end: a card, a version in production, a second version, and the two side by side."""

from typing import Any

from demo_labels import AtOnce, Scheduled

GOLDEN = 60  # ROIs that a person has looked at twice


def follow(dataset, model: str, version: str, training: dict[str, Any], at_once: AtOnce, scheduled: Scheduled) -> dict:
    """Writes the card, promotes, goes round the loop once more, and says what changed; returns the report's part.

    Args:
        dataset: the demo's
        model: the model's name
        version: `<model>/<version>`, the first one
        training: parameters of the second training
        at_once: executes an operator here and now
        scheduled: has the worker execute it
    """
    said = {
        "intended_use": "Showing how this suite works, on drawn plankton.",
        "limitations": "Drawn animals are no animals: it knows nothing of real ones.",
    }
    card = at_once(dataset, "lineage_card/write_card", {"model": version, **said})
    print(f"   {card['message']}")
    _choose_golden(dataset)
    promoted = at_once(
        dataset,
        "lineage_card/promote_to_production",
        {"model": version, "reason": "the first one that knows all classes", "golden_accuracy": 0.6},
    )
    print(f"   {promoted['message']}")
    second = scheduled(
        "lineage_card/iterate_model",
        {"model_name": model, "base_weights": version, "notes": "Trained a little longer.", **training},
    )
    print(f"   {second['message']}")
    compared = second
    if not promoted["moved"] or not second.get("overall"):  # the first is not in production, so nobody compared with it
        compared = scheduled("lineage_card/compare_models", {"models": [version, second["version"]]})
    since = at_once(dataset, "lineage_card/show_training_data", {"model": version})
    print(f"   {since['message']}")
    return {
        "card": card["card"],
        "promoted": promoted["moved"],
        "gates": promoted["gates"],
        "second": second["version"],
        "second_card": second["card"],
        "overall": compared["overall"],
        "differences": compared["differences"],
        "verdict": since["verdict"],
    }


def _choose_golden(dataset) -> None:
    """Tags some of the held-out ROIs, whose labels are what the animals truly are."""
    from fiftyone import ViewField

    right = dataset.match_tags("test")
    if dataset.has_sample_field("true_label"):
        right = right.match(ViewField("ground_truth.label") == ViewField("true_label"))
    right.take(GOLDEN, seed=51).tag_samples("golden")


def summary(report: dict[str, Any]) -> str:
    """The comparison as a table, and where the cards are."""
    lines = [f"{'version':<34}{'top-1 (95% interval)':>26}{'macro F1':>26}"]
    lines += [f"{row['version']:<34}{row['top-1']:>26}{row['macro F1']:>26}" for row in report["overall"]]
    passed = sum(gate["passed"] == "yes" or gate["passed"] is True for gate in report["gates"])
    alias = "in production" if report["promoted"] else "not promoted"
    lines.append(
        f"The first is {alias} ({passed} of {len(report['gates'])} gates passed); its data are {report['verdict']}."
    )
    lines.append(f"Cards: {report['card']}\n       {report['second_card']}")
    return "\n".join(lines)
