"""Model versions that are in the registry without having been trained, for what only reads them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

CLASSES = ["Calanus", "Pseudo-nitzschia", "fecal/pellet ü"]
CSV = "epoch,train/loss,val/loss,metrics/accuracy_top1,metrics/accuracy_top5\n1,2,2.5,.5,1\n2,1,1.5,.75,1\n"


def scores(seed: int = 0, n: int = 60) -> dict[str, Any]:
    """Metrics of a classifier that guesses better than chance."""
    import numpy as np

    from shared.classifier import metrics

    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(CLASSES), n)
    probs = rng.random((n, len(CLASSES)))
    probs[np.arange(n), truth] += rng.random(n)
    fields = {"depth": ["shallow" if number % 2 else "deep" for number in range(n)]}
    return metrics.evaluate(truth, probs / probs.sum(axis=1, keepdims=True), CLASSES, fields)


def add(
    db: Any, folder: Path, model: str = "m", days: int = 0, files: Mapping[str, str] | None = None, **more: Any
) -> Any:
    """Publishes text files below `folder`/artifacts and registers them as a version, so many days after New Year."""
    from shared.artifacts import open_root
    from shared.lineage.registry import Registry, VersionRecord, new_version

    created_at = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=days)
    version = new_version(created_at)
    key = f"versions/{model}/{version}"
    local = folder / f"{model}-{version}"
    local.mkdir(parents=True)
    for name, text in {"model.json": "{}", **(files or {})}.items():
        (local / name).write_text(text, encoding="utf-8")
    root = open_root(str(folder / "artifacts"), {})
    known = {
        "classes": CLASSES,
        "framing": "pad",
        "imgsz": 64,
        "manifest_digest": f"{days:064x}",
        "class_counts": dict.fromkeys(CLASSES, 10),
        "dataset": "plankton",
        "base": "yolov8n-cls.pt",
        "created_at": created_at,
        "created_by": "ann",
    }
    files_of_it = root.publish(local, key)
    record = VersionRecord(
        model=model, version=version, uri=root.uri(key), key=key, files=files_of_it, **{**known, **more}
    )
    Registry(db).add(record)
    return record


def files(seed: int = 0) -> dict[str, str]:
    """`metrics.json` and `training.csv` of a version."""
    return {"metrics.json": json.dumps({"test": scores(seed)}), "training.csv": CSV}
