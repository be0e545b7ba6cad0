"""Opening the panel `model_lineage` with 500 versions: seconds to its first content, by FiftyOne's own machinery."""

import asyncio
import statistics
import time
import uuid
from datetime import UTC, datetime, timedelta

VERSIONS = 500
CLASSES = 60
FILES = 12  # of each version
ROUNDS = 9
GOAL = 0.5
URI = "@mbari/lineage_card/model_lineage"


def run() -> dict:
    """The median time of `on_load`, the registry's part included; the App draws what it gives."""
    import fiftyone as fo
    import fiftyone.core.odm as odm
    from fiftyone.operators.executor import execute_or_delegate_operator

    from shared.lineage.registry import ALIASES
    from shared.lineage.registry import VERSIONS as COLLECTION

    db = odm.get_db_conn()
    names = _register(db)
    dataset = fo.Dataset(f"bench-{uuid.uuid4().hex[:8]}")
    params = {"__method__": "on_load", "panel_id": "panel", "panel_state": {}}
    request = {"dataset_name": dataset.name, "params": params}
    seconds = []
    try:
        for _ in range(1 + ROUNDS):  # the first fills caches: the App's server, too, has listed its plugins before
            began = time.perf_counter()
            result = asyncio.run(execute_or_delegate_operator(URI, {**request, "params": dict(params)}))
            result.raise_exceptions()
            asked = {each["operator_uri"]: each["params"] for each in result.executor.to_json()["requests"]}
            seconds.append(time.perf_counter() - began)
            shown = next(iter(asked["patch_panel_data"]["data"].values()))
            assert len(shown) == 25, len(shown)
            assert shown[0]["version"] == names[-1], shown[0]
    finally:
        dataset.delete()
        db[COLLECTION].delete_many({"_id": {"$in": names}})
        db[ALIASES].delete_many({"model": {"$regex": "^bench_"}})
    return {
        "name": "panel",
        "ours": round(statistics.median(seconds[1:]), 4),
        "peer": None,
        "ratio": None,
        "unit": f"seconds to the first content of the panel, {VERSIONS} versions",
        "goal": f"<= {GOAL}",
        "first": round(seconds[0], 4),
        "rounds": [round(each, 4) for each in seconds[1:]],
    }


def _register(db) -> list[str]:
    """Versions of three models with records of a real size, each fine-tuned from one before; names, oldest first."""
    from shared.artifacts import FileInfo
    from shared.lineage.registry import Registry, VersionRecord, new_version

    registry = Registry(db)
    classes = [f"Some long name of a class {number}" for number in range(CLASSES)]
    scores = {"n": 1000, "top1": 0.75, "top5": 0.95, "macro_f1": 0.7}
    made: list[VersionRecord] = []
    for number in range(VERSIONS):
        model = f"bench_{number % 3}"
        when = datetime.now(UTC) + timedelta(minutes=number)
        version = new_version(when)
        record = VersionRecord(
            model=model,
            version=version,
            uri=f"s3://nowhere/versions/{model}/{version}",
            key=f"versions/{model}/{version}",
            files={f"plots/{file}.png": FileInfo("0" * 64, 1000) for file in range(FILES)},
            classes=classes,
            framing="pad",
            imgsz=224,
            manifest_digest=f"{number:064x}",
            class_counts=dict.fromkeys(classes, 100),
            metrics={"val": scores, "test": scores},
            training={"arguments": {f"argument_{k}": k for k in range(120)}, "libraries": {"torch": "2"}},
            base="yolov8n-cls.pt",
            base_version=made[-3].name if number > 2 else None,
            dataset="plankton",
            created_at=when,
        )
        registry.add(record)
        made.append(record)
    for record in made[-3:]:
        registry.set_alias(record.model, "candidate", record.version)
    return [record.name for record in made]
