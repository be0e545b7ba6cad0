"""The suite's main job, from labels to predictions and back to the label store, as an institute would run it.

Draws (or takes) images, builds the zips, and makes a dataset whose labels come from a label store of the demo's own.
Wrong labels are corrected and applied; splits, training, inference and the sync back to the store are delegated
operations, which FiftyOne's own worker, a process of its own, executes from the zips' code. The new model's view of
the images is mapped and clustered as well.
"""

import argparse
import json
import os
import re
import sys
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import demo_embeddings
import demo_labels
import demo_lineage
import demo_review
import surroundings
from operate import DemoError, at_once, execute

MODEL = "demo"
PREDICTIONS = f"pred_{MODEL}"
IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


def main() -> int:
    options = parse()
    surroundings.prepare()
    began = time.monotonic()
    seconds: dict[str, float] = {}
    try:
        report = run(options, seconds)
    except (DemoError, surroundings.NoDatabaseError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    report["seconds"] = {**seconds, "total": round(time.monotonic() - began, 1)}
    path = surroundings.DEMO / "report.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print_outcome(report, path)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of class folders, instead of drawn images")
    parser.add_argument("--weights", type=Path, help="a classifier to fine-tune, instead of training from scratch")
    parser.add_argument("--count", type=int, default=1200, help="how many images to draw")
    parser.add_argument("--epochs", type=int, help="instead of 20 from scratch, 8 from weights")
    parser.add_argument("--imgsz", type=int, help="instead of 64 from scratch, 160 from weights")
    options = parser.parse_args()
    # What was learned from other images is another model, with a version in production of its own.
    options.model = (
        f"{MODEL}-{re.sub('[^A-Za-z0-9_.-]', '-', options.images.resolve().name)}"[:100] if options.images else MODEL
    )
    options.epochs = options.epochs or (8 if options.weights else 20)
    options.imgsz = options.imgsz or (160 if options.weights else 64)
    return options


def run(options: argparse.Namespace, seconds: dict[str, float]) -> dict[str, Any]:
    """Runs every step; returns the report but for its seconds."""
    with step("Building the zips and unpacking them", seconds, "zips"):
        surroundings.install_plugins()
    with step("Collecting images", seconds, "images"):
        rows = collect(options.images, options.count)
    with step("Starting MongoDB", seconds, "database"):
        surroundings.own_database()
        use_own_labels()
    with step(f"Building the dataset {surroundings.DATASET!r}", seconds, "dataset"):
        dataset = build_dataset(rows)
        print_classes(dataset)

    with surroundings.delegated_worker(surroundings.DEMO / "worker.log") as worker:
        scheduled = partial(execute, worker, dataset)
        with step("Pulling labels from the label store", seconds, "pull_labels"):
            print(f"   The store has {demo_labels.fill(dataset):,} labels by their own ids.")
            pulled = scheduled("sync_back/pull_labels", {"apply": True})
            print(f"   {pulled['message']}")
        with step("Correcting wrong labels", seconds, "correct"):
            labels = {"pulled": pulled["counts"], **demo_labels.correct(dataset, at_once)}
        report = train_and_apply(options, dataset, scheduled, seconds)
        with step("A first pass over the images: embeddings, a map, clusters", seconds, "embeddings"):
            report["embeddings"] = demo_embeddings.explore(dataset, report["model"], at_once, scheduled)
        with step("The review: where the model is weak, and labels that look wrong", seconds, "review"):
            reviewed = demo_review.review(dataset, PREDICTIONS, training_params(options), at_once, scheduled)
            labels["found"] = reviewed["corrected"]
            report["review"] = reviewed
        with step("Sending the corrections to the label store", seconds, "sync_back"):
            labels |= demo_labels.send(dataset, at_once, scheduled)
        with step("A card, production, and a second version beside the first", seconds, "lineage"):
            again = {**training_params(options), "epochs": max(2, options.epochs // 4)}
            report["lineage"] = demo_lineage.follow(dataset, options.model, report["model"], again, at_once, scheduled)
    left = labels["sync"]["corrections"] - labels["sync"]["updated"] - labels["sync"]["already"]
    if len(labels["compared"]["differ"]) != left:
        raise DemoError(f"{left} corrections were not sent, but store and FiftyOne differ otherwise: {labels}")
    return {
        "dataset": dataset.name,
        "images": len(dataset),
        "source": str(options.images) if options.images else "drawn",
        **report,
        "labels": labels,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def use_own_labels() -> None:
    """Points the label store at the demo's own, and the vocabulary at its dataset, whatever is set: theirs are real."""
    theirs = [
        name for name in ("LABEL_STORE", "LABEL_STORE_TOKEN", "VOCABULARY") if os.environ.pop(f"MBARI_{name}", "")
    ]
    if theirs:
        print(f"   The demo leaves {', '.join(f'MBARI_{name}' for name in theirs)} alone and uses its own.")
    os.environ["MBARI_LABEL_STORE"] = surroundings.own_label_store()


def train_and_apply(options: argparse.Namespace, dataset, scheduled: demo_labels.Scheduled, seconds) -> dict[str, Any]:
    """Splits, training, inference; returns their part of the report."""
    with step("Splits, no capture day in two of them", seconds, "assign_splits"):
        group = {"group_field": "capture_day"} if dataset.count("capture_day") else {}
        scheduled("train_classifier/assign_splits", {"overwrite": True, **group})
    with step("Training", seconds, "train_classifier"):
        trained = scheduled(
            "train_classifier/train_classifier",
            {
                "model_name": options.model,
                "base_weights": str(options.weights.resolve()) if options.weights else "yolov8n-cls.yaml",
                **training_params(options),
            },
        )
    with step("Applying the new version to every image", seconds, "apply_model"):
        model = {"model": trained["version"], "prediction_field": PREDICTIONS, "store_logits": True}
        applied = scheduled("apply_model/apply_model", model)
    return {
        "model": trained["version"],
        "metrics": {
            split: {name: value for name, value in score.items() if name != "confusion"}
            for split, score in metrics_of(trained["version"]).items()
        },
        "top1": trained["top1"],
        "macro_f1": trained["macro_f1"],
        "majority_share": round(max(dataset.count_values("ground_truth.label").values()) / len(dataset), 4),
        "applied": applied["counts"],
        "runtime": applied["runtime"],
    }


def training_params(options: argparse.Namespace) -> dict[str, Any]:
    """How every version of the demo is trained; the card says how good it is in each season."""
    sliced = {} if options.images else {"slices": ["season"]}
    return {"epochs": options.epochs, "imgsz": options.imgsz, "batch": 32, **sliced}


@contextmanager
def step(title: str, seconds: dict[str, float], name: str):
    """Says what is being done, and how long it took."""
    print(f"\n== {title}", flush=True)
    began = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - began, 1)
    print(f"   {seconds[name]} s", flush=True)


def collect(folder: Path | None, count: int) -> list[dict[str, Any]]:
    """The images with what is known of them: `filepath`, `label` and further sample fields."""
    if folder is not None:
        rows = read_class_folders(folder)
        wrong = demo_labels.mislabel(rows)
        print(f"   No label is known to be wrong, so {wrong} were made wrong on purpose.")
        return rows
    from demo_images import generate

    drawn = surroundings.DEMO / "images"
    rows = []
    for roi in generate(drawn, count):
        row = dict(vars(roi), filepath=str(drawn / roi.file))
        row["captured_at"] = datetime.fromisoformat(roi.captured_at)
        row["elemental_id"] = roi.elemental_id or None
        del row["file"]
        rows.append(row)
    return rows


def read_class_folders(folder: Path) -> list[dict[str, Any]]:
    """One class per folder; names like `SPC-PWSSC-<unix time>-...` also give the time and day of capture."""
    if not folder.is_dir():
        raise DemoError(f"there is no folder {folder}; IMAGES is a folder with one folder of images per class")
    rows = []
    for path in sorted(p for p in folder.glob("*/*") if p.suffix.lower() in IMAGES):
        row: dict[str, Any] = {
            "filepath": str(path.resolve()),
            "label": path.parent.name,
            # Stands for the id that a database of record would give, and stays the same from run to run.
            "elemental_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{path.parent.name}/{path.name}")),
        }
        if stamp := re.match(r"[A-Z]+-[A-Z]+-(\d+)-", path.name):
            row["captured_at"] = datetime.fromtimestamp(int(stamp[1]), UTC)
            row["capture_day"] = f"{row['captured_at']:%Y-%m-%d}"
        rows.append(row)
    if not rows:
        raise DemoError(f"{folder} has no images in class folders; it must look like {folder}/<class>/<image>.png")
    return rows


def build_dataset(rows: list[dict[str, Any]]):
    """The persistent dataset with all images, made anew; its vocabulary is the names of what they truly are."""
    import fiftyone as fo

    if fo.dataset_exists(surroundings.DATASET):
        fo.delete_dataset(surroundings.DATASET)
    dataset = fo.Dataset(surroundings.DATASET, persistent=True)
    dataset.classes["ground_truth"] = sorted({row["true_label"] for row in rows})
    dataset.save()
    samples = []
    for row in rows:
        known = {name: value for name, value in row.items() if name not in ("filepath", "label")}
        samples.append(fo.Sample(filepath=row["filepath"], ground_truth=fo.Classification(label=row["label"]), **known))
    dataset.add_samples(samples, progress=False)
    dataset.compute_metadata(progress=False, skip_failures=True)
    return dataset


def metrics_of(version: str) -> dict[str, Any]:
    """The metrics of a model version by split, as it was published."""
    sys.path.insert(0, str(surroundings.ROOT))
    from fiftyone.core.odm import get_db_conn

    from shared.artifacts import open_root, scratch
    from shared.lineage.registry import Registry

    record = Registry(get_db_conn()).resolve(version)
    root = open_root(os.environ["MBARI_ARTIFACTS"], os.environ)
    with scratch("demo-") as folder:
        root.fetch(record.key, {"metrics.json": record.files["metrics.json"]}, folder)
        return json.loads((folder / "metrics.json").read_text())


def print_classes(dataset) -> None:
    counts = Counter(dataset.count_values("ground_truth.label"))
    print(f"   {len(dataset):,} images: " + ", ".join(f"{label} {n}" for label, n in counts.most_common()))


def print_outcome(report: dict[str, Any], path: Path) -> None:
    """The metrics as tables, and what to do next."""
    splits = report["metrics"]
    print(f"\n{report['model']}: trained on {report['dataset']}, applied with {report['runtime']}\n")
    names = ("n", "top1", "top5", "macro_precision", "macro_recall", "macro_f1", "ece")
    print(f"{'':<10}" + "".join(f"{name.replace('macro_', 'macro '):>17}" for name in names))
    for split, score in splits.items():
        print(f"{split:<10}" + "".join(f"{_figure(score.get(name)):>17}" for name in names))
    print(f"(always guessing the most frequent class: {report['majority_share']:.3f})\n")
    split = "test" if "test" in splits else "val"
    print(f"{'class (' + split + ')':<34}{'n':>6}{'precision':>12}{'recall':>9}{'F1':>8}")
    for row in splits[split]["per_class"]:
        precision, recall, f1 = (_figure(row[name]) for name in ("precision", "recall", "f1"))
        print(f"{row['label']:<34}{row['n']:>6}{precision:>12}{recall:>9}{f1:>8}")
    print(f"\n{demo_embeddings.summary(report['embeddings'])}")
    print(demo_review.summary(report["review"]))
    print(demo_labels.summary(report["labels"]))
    print(f"\n{demo_lineage.summary(report['lineage'])}")
    spent = ", ".join(f"{name} {value:g}" for name, value in report["seconds"].items())
    print(f"\nSeconds: {spent}\nReport:  {os.path.relpath(path)}")
    print("\nNext: `make app` opens FiftyOne on this dataset, where the conflict is the saved view 'sync: conflicts'")
    print('and the map is in the Embeddings panel; press ` there and type "labels", "sync", "review" or "classifier".')


def _figure(value: Any) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
