"""A model version that was really trained, on a few small drawn ROIs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiftyone.core.odm as odm

from tests import rois

SMALL = {"epochs": 1, "imgsz": 32, "batch": 16, "base_weights": "yolov8n-cls.yaml", "min_per_class": 2}


def fill(dataset: Any, folder: Path, each: int = 12) -> None:
    """Adds so many drawn ROIs of each class to a dataset, and splits them: of six, four train, one val, one test."""
    rois.fill(dataset, folder, dict.fromkeys(rois.CLASSES, each))
    for number, sample in enumerate(dataset.iter_samples(autosave=True)):
        sample.tags.append({4: "val", 5: "test"}.get(number % 6, "train"))


def trained(
    dataset: Any, folder: Path, name: str = "m", secrets: Mapping[str, str] | None = None, **params: Any
) -> Any:
    """Trains on a dataset's splits as the operator does, and publishes below `folder`/artifacts; some seconds.

    Args:
        dataset: with labels in `ground_truth` and splits
        folder: for the artifact root
        name: of the model
        secrets: further ones, beside that of the artifact root
        **params: parameters of `train_classifier` in place of the small ones

    Returns:
        the registry's record, in FiftyOne's own database
    """
    from shared.jobs import train_job
    from shared.operators import Job
    from shared.runs import Run

    db = odm.get_db_conn()
    wanted = train_job.Params(model_name=name, **{**SMALL, **params})
    run = Run(db, "@mbari/train_classifier/train_classifier", f"Train {name}", wanted.model_dump(mode="json"))
    known = {"MBARI_ARTIFACTS": str(folder / "artifacts"), **(secrets or {})}
    result = train_job.work(Job(wanted, dataset, dataset.view(), known, run, "ann", db))
    run.finish(result)

    from shared.lineage.registry import Registry

    return Registry(db).resolve(result["version"])
