"""The door to the clusters of a FiftyOne dataset: how they are stored, found again, and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fiftyone as fo
from fiftyone import ViewField
from fiftyone.core.collections import SampleCollection

from . import samples
from .runs import Monitor
from .wording import many

if TYPE_CHECKING:
    from .embeddings.clusters import Clusters

INFO = "mbari_clusters"  # the key of a cluster field's info: the summary of what made it
VIEWS = "clusters: "  # how the names of the suite's saved views begin
SHOWN = 20  # clusters in the view of the largest
SAID = "Made by the suite; each clustering replaces it"


def name(number: int) -> str:
    """What the members of a cluster are called, as the lab does."""
    return f"Unknown C{number}"


def outlier_field(field: str) -> str:
    """The float field that says how unlike every exemplar an ROI is, from 0 (one itself) to 1."""
    return f"{field}{samples.OUTLIER}"


def exemplar_tag(field: str) -> str:
    """The sample tag of the most typical member of each cluster."""
    return f"{field}-exemplar"


def fields(dataset: fo.Dataset) -> list[str]:
    """The fields of a dataset that hold clusters."""
    return [name for name in samples.label_fields(dataset) if summary(dataset, name) is not None]


def summary(dataset: fo.Dataset, field: str) -> Mapping[str, Any] | None:
    """What made the clusters of a field; None where the suite did not."""
    found = dataset.get_field(field)
    return None if found is None else (found.info or {}).get(INFO)


def refusal(dataset: fo.Dataset, field: str, view: SampleCollection | None = None) -> str | None:
    """Why clusters must not go into a field, if they must not.

    Args:
        dataset: the dataset
        field: the cluster field
        view: what is clustered; where it is given, other samples must have no clusters of another time
    """
    if not dataset.has_sample_field(field):
        return None
    if field not in samples.label_fields(dataset):
        return f"The field {field!r} exists and is not a Classification field; choose another name."
    have = dataset.exists(field)
    if summary(dataset, field) is None:
        if have.limit(1).count():
            return f"The field {field!r} holds labels that no clustering of this suite made; choose another name."
    elif view is not None and view.view()._all_stages:
        with ThreadPoolExecutor() as pool:  # the database can count both at once
            everywhere, inside = pool.map(lambda some: some.count(), (have, view.exists(field)))
        if everywhere > inside:
            others = many(everywhere - inside, "ROI outside of the target has", "ROIs outside of the target have")
            return (
                f"{others} clusters in {field!r}, and two clusterings cannot be mixed: choose another field, or a "
                "target with all of them."
            )
    return None


def members(view: SampleCollection, field: str, label_field: str | None, least: float) -> Counter[tuple[Any, Any]]:
    """How many samples of a view each cluster has, by cluster (None for those in none) and present label.

    Args:
        view: the samples
        field: the cluster field
        label_field: the label field; None where there is none yet
        least: the probability from which on members are counted
    """
    certain = [{"$match": {f"{field}.confidence": {"$gte": least}}}] if least else []
    both = {"cluster": f"${field}.label", "label": f"${label_field}.label" if label_field else None}
    pipeline = [*view._pipeline(), *certain, {"$group": {"_id": both, "n": {"$sum": 1}}}]
    found = view._dataset._sample_collection.aggregate(pipeline)
    return Counter({(one["_id"].get("cluster"), one["_id"].get("label")): one["n"] for one in found})


def write(
    dataset: fo.Dataset,
    field: str,
    ids: Sequence[str],
    clusters: Clusters,
    what: Mapping[str, Any],
    monitor: Monitor,
) -> list[str]:
    """Stores a clustering in place of the one that the field holds, and saves views that show it.

    Until all is written the field's `info` says that it is not complete.

    Args:
        dataset: the dataset
        field: the cluster field
        ids: the N samples that were clustered
        clusters: what they belong to
        what: a summary that is kept with the field
        monitor: told of the progress

    Returns:
        the names of the saved views
    """
    _prepare(dataset, field, {**what, "complete": False})
    labels = [name(number) if number >= 0 else None for number in clusters.labels.tolist()]
    exemplars = set(clusters.exemplars.tolist())
    tag = exemplar_tag(field)
    for start in range(0, len(ids), samples.BATCH):
        part = slice(start, start + samples.BATCH)
        chosen = ids[part]
        samples.write_labels(dataset, field, chosen, labels[part], clusters.probabilities[part].tolist())
        samples.write_values(dataset, outlier_field(field), chosen, clusters.outlier[part].tolist(), fo.FloatField)
        monitor.progress(start + len(chosen), len(ids), "Writing clusters")
    tags = [tag if row in exemplars else None for row in range(len(ids))]
    samples.set_tags(dataset, ids, tags, (tag,))
    _clear(dataset, field, sorted({str(i) for i in dataset.exists(field).values("id")} - set(ids)))
    _prepare(dataset, field, {**what, "complete": True})
    return _save_views(dataset, field, clusters)


def _prepare(dataset: fo.Dataset, field: str, what: Mapping[str, Any]) -> None:
    """Makes the fields where there are none, and says in the `info` of the clusters what they are."""
    samples.ensure_label_field(dataset, field)
    if not dataset.has_sample_field(outlier_field(field)):
        dataset.add_sample_field(outlier_field(field), fo.FloatField)
    found = dataset.get_field(field)
    found.info = {**(found.info or {}), INFO: dict(what)}
    found.save()


def _clear(dataset: fo.Dataset, field: str, ids: Sequence[str]) -> None:
    """Takes the clusters of an earlier time away from samples that have none any more."""
    nothing = [None] * len(ids)
    samples.write_labels(dataset, field, ids, nothing, [0.0] * len(ids))
    samples.write_values(dataset, outlier_field(field), ids, nothing, fo.FloatField)
    samples.set_tags(dataset, ids, nothing, (exemplar_tag(field),))


def _save_views(dataset: fo.Dataset, field: str, clusters: Clusters) -> list[str]:
    """Saves views of the largest clusters, the exemplars, and the rarest ROIs, in place of the last ones."""
    label, own = f"{field}.label", "" if field == "cluster" else f" ({field})"
    order = ViewField(label).strlen().to_string().concat(ViewField(label))  # else C10 would come before C2
    largest = [name(n) for n in range(min(SHOWN, len(clusters.exemplars)))]
    views = {
        "largest": dataset.match(ViewField(label).is_in(largest)).sort_by(order),
        "exemplars": dataset.match_tags(exemplar_tag(field)).exists(label).sort_by(order),
        "rare": dataset.match(ViewField(outlier_field(field)) > 0).sort_by(outlier_field(field), reverse=True),
    }
    for what, view in views.items():
        dataset.save_view(f"{VIEWS}{what}{own}", view, description=SAID, overwrite=True)
    return [f"{VIEWS}{what}{own}" for what in views]
