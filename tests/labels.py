"""A dataset with labels, and the label store that they came from, for tests."""

from collections.abc import Mapping, Sequence
from typing import Any

STORE = "collection=rois&id=elemental_id&label=label&modified=modified&modified_by=modified_by&history=history"


def store_uri(database: str) -> str:
    """The URI of a store on FiftyOne's own MongoDB server."""
    import fiftyone.core.odm as odm

    host, port = odm.get_db_conn().client.address
    return f"mongodb://{host}:{port}/{database}?{STORE}"


def fill(dataset: Any, labels: Sequence[str | None], store: Any = None, first: int = 0, **fields: Any) -> list[str]:
    """Adds one sample a label, with ids e0, e1, ...; with `store` (a collection), its records as well."""
    import fiftyone as fo

    made = [
        fo.Sample(
            filepath=f"/rois/{dataset.name}-{first + n}.png",
            ground_truth=fo.Classification(label=label) if label is not None else None,
            elemental_id=f"e{first + n}",
            **fields,
        )
        for n, label in enumerate(labels)
    ]
    dataset.add_samples(made, progress=False)
    if store is not None and labels:
        store.insert_many([{"elemental_id": f"e{first + n}", "label": label} for n, label in enumerate(labels)])
    return [sample.id for sample in made]


def held(store: Any) -> Mapping[str, Any]:
    """What a store holds: label by id."""
    return {record["elemental_id"]: record.get("label") for record in store.find()}
