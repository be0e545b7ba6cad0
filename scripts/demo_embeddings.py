"""The demo's first pass over images as if nobody had labelled them: vectors, a map, clusters, and names for some.

Its backbone is the classifier that the demo has just trained, since DINO's weights come from a hub that may be out of
reach; `model` and `weights` of "Compute embeddings" choose another.
"""

from typing import Any

from demo_labels import AtOnce, Scheduled
from operate import DemoError

FIELD = "first_pass"  # the label field of the names that clusters get, beside the curated labels
NAMED = 10  # clusters that get a name


def explore(dataset, model: str, at_once: AtOnce, scheduled: Scheduled) -> dict[str, Any]:
    """Embeds, maps and clusters every image, and names the largest clusters; returns the report's part.

    Args:
        dataset: the demo's
        model: the version whose last layer but one gives the vectors
        at_once: executes an operator here and now
        scheduled: has the worker execute it
    """
    embedded = scheduled("custom_embeddings/compute_embeddings", {"model": model})
    print(f"   {embedded['message']}")
    mapped = scheduled("custom_embeddings/visualize_embeddings", {"similarity_key": "look_alikes"})
    print(f"   {mapped['message']}")
    clustered = scheduled("custom_embeddings/cluster_embeddings", {})
    print(f"   {clustered['message']}")
    dataset.reload()
    dataset.classes[FIELD] = dataset.classes["ground_truth"]
    dataset.save()
    named = [_name(dataset, row["cluster"], at_once) for row in clustered["largest"][:NAMED]]
    pairs = list(zip(*dataset.exists(FIELD).values([f"{FIELD}.label", "true_label"]), strict=True))
    if not pairs or sum(named) != len(pairs):
        raise DemoError(f"{sum(named)} ROIs were named by their clusters, but {len(pairs)} have a name")
    right = sum(name == true for name, true in pairs) / len(pairs)
    print(
        f"   {len(named)} clusters were named by their exemplars, {100 * right:.0f} % of {len(pairs):,} ROIs rightly."
    )
    return {
        "embedded": embedded["counts"],
        "mapped": mapped["counts"],
        "clusters": clustered["counts"],
        "named": {"clusters": len(named), "rois": len(pairs), "right": round(right, 4)},
    }


def _name(dataset, cluster: str, at_once: AtOnce) -> int:
    """Gives a cluster the name that a person who knows its exemplar would give; returns how many got it."""
    import fiftyone as fo

    members = dataset.match(fo.ViewField("cluster.label") == cluster)
    exemplar = members.match_tags("cluster-exemplar").first()
    params = {"clusters": [cluster], "label": exemplar["true_label"], "label_field": FIELD, "write": "label"}
    return at_once(dataset, "custom_embeddings/label_clusters", params)["counts"].get("labelled", 0)


def summary(report: dict[str, Any]) -> str:
    """The outcome in one line."""
    clusters, named = report["clusters"], report["named"]
    return (
        f"Clusters: {clusters['clusters']:,} hold {clusters['in_clusters']:,} of {clusters['rois']:,} ROIs; the "
        f"{named['clusters']} largest got a name, right for {100 * named['right']:.0f} % of {named['rois']:,} ROIs."
    )
