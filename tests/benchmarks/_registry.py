"""Model versions in the registry that nobody trained, with records of a real size."""

from datetime import UTC, datetime, timedelta
from typing import Any

CLASSES = 60
FILES = 12  # of each version


def register(db: Any, count: int) -> list[str]:
    """Versions of three models, each fine-tuned from the one before; their names, oldest first."""
    from shared.artifacts import FileInfo
    from shared.lineage.registry import Registry, VersionRecord, new_version

    registry = Registry(db)
    classes = [f"Some long name of a class {number}" for number in range(CLASSES)]
    scores = {"n": 1000, "top1": 0.75, "top5": 0.95, "macro_f1": 0.7}
    made: list[VersionRecord] = []
    for number in range(count):
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


def forget(db: Any, names: list[str]) -> None:
    """Takes the versions out of the registry again, with their aliases."""
    from shared.lineage.registry import ALIASES, VERSIONS

    db[VERSIONS].delete_many({"_id": {"$in": names}})
    db[ALIASES].delete_many({"model": {"$regex": "^bench_"}})
