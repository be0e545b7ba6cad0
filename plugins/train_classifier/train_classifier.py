"""`train_classifier`: fine-tunes a YOLO classifier and publishes it as a model version."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from .shared import labelled, runs, samples
from .shared.errors import InputError
from .shared.forms import Form
from .shared.jobs import train_job
from .shared.labelling import names_of_form, not_applied
from .shared.lineage.registry import Registry, is_registered
from .shared.memo import cached
from .shared.operators import Job, Spec, SuiteOperator, secrets, target_view
from .shared.wording import many

HUB = tuple(f"yolo{family}{size}-cls.pt" for family in ("v8", "11", "26") for size in "nsmlx")
LONG_ENOUGH = 2_000  # images, each counted once an epoch, from which a training's start-up no longer decides its rate
FEW = 20  # images of a class below which the form warns


class TrainClassifier(SuiteOperator):
    """Fine-tunes a classifier on the labelled samples of a view that have a split."""

    spec = Spec(
        name="train_classifier",
        label="Train a classifier",
        description="Fine-tune or retrain a YOLO classifier on labelled ROIs; gives a model version with manifest",
        icon="model_training",
        writes="fiftyone",
        execution="delegated",
    )
    Params = train_job.Params

    def form(self, form: Form) -> None:
        """Draws the inputs, what will be used, what to look at first, and about how long it takes."""
        form.field("model_name")
        if not secrets(form.ctx).get("MBARI_ARTIFACTS"):
            form.warning("MBARI_ARTIFACTS is not set here: unless the worker has it, the model has nowhere to go.")
        if form.value("repeat"):
            self._repeat(form)
            return
        label_field = form.label_field()
        seen = _look(form, label_field) if label_field else None
        _choose_base(form)
        form.field("epochs")
        counts = labelled.by_split(seen.counted) if seen else {}
        if seen is not None:
            self._preview(form, seen, counts, label_field)
        if form.on_request("More options: classes, further datasets, image size, augmentation, slices, repeating"):
            form.choice("classes", [(label, label) for label in counts], several=True)
            form.choice("extra_views", [(name, name) for name in _datasets()], several=True, free=True)
            form.fields("min_per_class", "imgsz", "framing", "augmentation", "balance", "batch", "patience", "seed")
            form.fields("device", "store_predictions", "resume")
            form.slices()
            form.choice("repeat", form.models(), free=True)

    def _repeat(self, form: Form) -> None:
        form.choice("repeat", form.models(), free=True)
        record = form.registered(form.value("repeat"))
        if record is not None:
            form.notice(
                f"Trains again what {record.name} was trained on: its rows, labels, splits and arguments as they were. "
                "Of what this form asks otherwise, only the name and the device count."
            )
        form.field("device")

    def _preview(self, form: Form, seen: "_Seen", counts: Mapping[str, Mapping[str, int]], label_field: str) -> None:
        chosen = form.value("classes") or list(counts)
        unknown = [label for label in chosen if label not in counts]
        least = form.value("min_per_class")
        used = {
            label: row
            for label, row in counts.items()
            if label in chosen and row["train"] and sum(row[split] for split in samples.SPLITS) >= least
        }
        total = {split: sum(row[split] for row in used.values()) for split in samples.SPLITS}
        further = form.value("extra_views")
        for name in further or ():
            try:
                samples.open_view(name)
            except InputError as error:
                form.error(str(error))
        why_not = None if further else _why_not(counts, total, used, least)
        if unknown and not further:
            why_not = f"No ROI of this view has the label {', '.join(unknown)}."
        if why_not:
            form.error(why_not)
        elif further:
            form.notice("The figures below are for this dataset's view; the further views come on top.")
        rows = [{"class": label, **row, "used": label in used} for label, row in counts.items()]
        form.table([{"no split" if k == "none" else k: v for k, v in row.items()} for row in rows], "Labelled ROIs")
        if why_not:
            return
        few = [f"{label} ({row['train']})" for label, row in used.items() if row["train"] < FEW]
        if few:
            form.warning(f"Few images to learn from: {', '.join(few)}.")
        unsplit = sum(row["none"] for row in counts.values())
        if unsplit:
            form.warning(f"{many(unsplit, 'labelled ROI has', 'labelled ROIs have')} no split, or several: left out.")
        for warning in seen.warnings:
            form.warning(warning)
        _warn_of_corrections(form, seen.counted, label_field)
        form.notice(_estimate(form, total["train"], secrets(form.ctx).get("MBARI_PRICE_PER_HOUR")))

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Train ptvr on 1,144 ROIs"."""
        if params.repeat:
            return f"Repeat {params.repeat} as {params.model_name}"
        more = f" and {len(params.extra_views)} more views" if params.extra_views else ""
        return f"Train {params.model_name} on {many(count, 'ROI')}{more}"

    def work(self, job: Job) -> dict[str, Any]:
        """Reads the rows, trains, and keeps on the samples what belongs there."""
        return train_job.work(job)


class _Seen(NamedTuple):
    """What there is to know of a target's labels before anything is chosen."""

    counted: list[labelled.Alike]
    warnings: list[str]


def _look(form: Form, label_field: str) -> _Seen | None:
    view = target_view(form.ctx)
    if form.slow and not form.on_request("Count classes and splits (takes a few seconds)"):
        return None
    key = ("train_classifier", label_field, *samples.state(view))
    seen = cached(key, lambda: _seen(view, label_field))
    form.counted(sum(row.n for row in seen.counted))
    return seen


def _seen(view: Any, label_field: str) -> _Seen:
    """Reads a target's labels, and what a careful person would look at first: cut groups, predictions left open."""
    dataset = view._root_dataset
    group_field = samples.recall(dataset, "group_field")
    with ThreadPoolExecutor() as pool:  # each reads all of the view, which the database can do at once
        counted = pool.submit(labelled.alike, view, label_field)
        looks = []
        if group_field and dataset.has_sample_field(group_field):
            looks.append(pool.submit(_cut_groups, view, group_field))
        for field in samples.label_fields(dataset):
            if samples.writer(dataset, field):
                looks.append(pool.submit(_open_predictions, view, label_field, field))
        return _Seen(counted.result(), [warning for look in looks for warning in look.result()])


def _choose_base(form: Form) -> None:
    def look() -> list[str]:
        registry = Registry(form.db)
        aliases = [f"{model}@{alias}" for model in registry.models() for alias in registry.aliases(model)]
        return [*aliases, *HUB, "yolov8n-cls.yaml"]

    names = cached("train_classifier/bases", look, seconds=5)
    form.choice("base_weights", [(name, name) for name in names], free=True)
    chosen = form.value("base_weights")
    form.registered(chosen)
    if not (chosen in names or is_registered(chosen) or "://" in chosen or Path(chosen).expanduser().is_file()):
        form.warning(f"There is no file {chosen!r} here: unless the worker has it, the run ends at once.")


def _datasets() -> list[str]:
    import fiftyone as fo

    return cached("train_classifier/datasets", fo.list_datasets, seconds=30)


def _why_not(counts: Mapping, total: Mapping[str, int], used: Mapping, least: int) -> str | None:
    """Why nothing can be trained on these labels, if so."""
    if not counts:
        return "No ROI of this view has a label in this field; label some, or choose another field or view."
    if not any(row[split] for row in counts.values() for split in samples.SPLITS):
        return "No ROI has a split yet: run 'Assign train, val and test' first."
    if len(used) < 2:
        return f"A classifier needs two classes with {least} images each, at least one of them in train."
    if not total["val"]:
        return "No ROI of these classes is in val: run 'Assign train, val and test', or choose another view."
    return None


def _cut_groups(view: Any, group_field: str) -> list[str]:
    pipeline = [*view._pipeline(), {"$group": {"_id": {"group": f"${group_field}", "tags": "$tags"}}}]
    splits: dict[Any, set[str]] = {}
    for found in view._dataset._sample_collection.aggregate(pipeline):
        group, tags = (found["_id"].get(name) for name in ("group", "tags"))
        if group is not None:
            splits.setdefault(group, set()).update(tag for tag in samples.SPLITS if tag in (tags or ()))
    cut = sorted(str(group) for group, within in splits.items() if len(within) > 1)
    if not cut:
        return []
    is_cut = many(len(cut), f"group of {group_field!r} is", f"groups of {group_field!r} are")
    return [f"{is_cut} on both sides of a split, such as {', '.join(cut[:3])}."]


def _open_predictions(view: Any, label_field: str, field: str) -> list[str]:
    count = view.match({f"{label_field}.label": None, f"{field}.label": {"$gt": ""}}).count()
    if not count:
        return []
    have = many(count, "unlabelled ROI has", "unlabelled ROIs have")
    return [f"{have} a prediction in {field!r} that nobody accepted."]


def _warn_of_corrections(form: Form, counted: Sequence[labelled.Alike], label_field: str) -> None:
    """Says how many corrections are not applied yet."""
    unknown = "Whether corrections are open is not known: "
    words = names_of_form(form, label_field, lambda why: form.warning(unknown + why))
    if words is not None and (count := not_applied(counted, words)):
        have = many(count, "ROI has", "ROIs have")
        form.warning(f"{have} a correction that is not applied: the old label is trained on.")


def _estimate(form: Form, images: int, price: str | None) -> str:
    """About how long and how dear, from what earlier runs took per image, epoch and pixel."""
    epochs, imgsz = form.value("epochs"), form.value("imgsz")
    telling = {"operator": {"$regex": "/train_classifier$"}, "result.images_learned": {"$gte": LONG_ENOUGH}}
    earlier = form.db[runs.COLLECTION].find(telling, {"result": 1, "params.imgsz": 1}).sort("started_at", -1).limit(20)
    rates: dict[str, float] = {}
    # The nearest size first: small images cost more for each pixel.
    for record in sorted(earlier, key=lambda record: abs(record["params"]["imgsz"] - imgsz)):
        per_pixel = record["result"]["seconds_per_image_epoch"] / record["params"]["imgsz"] ** 2
        rates.setdefault(record["result"]["device"], per_pixel * imgsz**2)
    if not rates:
        return f"{many(images, 'ROI')} to learn from. How long it takes will be known after the first training here."
    said = [
        f"{runs.duration(images * epochs * rate)} on {device}" + _cost(images * epochs * rate, price)
        for device, rate in rates.items()
    ]
    learned, took = many(images, "ROI"), " or ".join(said)
    return (
        f"{learned} to learn from; {epochs} epochs take about {took}, less if it stops early; reading, starting and "
        "publishing come on top."
    )


def _cost(seconds: float, price: str | None) -> str:
    try:
        return f" (costs about {seconds / 3600 * float(price):.2f})" if price else ""
    except ValueError:
        return ""  # check_setup says that the price is not a number
