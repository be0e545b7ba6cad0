"""`train_classifier`: fine-tunes a YOLO classifier and publishes it as a model version."""

from collections.abc import Mapping
from typing import Any

from .shared import runs, samples
from .shared.errors import InputError, SuiteError
from .shared.forms import Form, cached
from .shared.jobs import train_job
from .shared.labelling import not_applied
from .shared.lineage.registry import Registry
from .shared.operators import Job, Spec, SuiteOperator, secrets, target_view
from .shared.wording import many

HUB = tuple(f"yolo{family}{size}-cls.pt" for family in ("v8", "11", "26") for size in "nsmlx")
SLOW = 200_000  # samples above which the form counts classes only when asked
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
        counts = _count(form, label_field) if label_field else None
        _choose_base(form)
        form.field("epochs")
        if counts is not None:
            self._preview(form, counts, label_field)
        if form.on_request("More options: classes, further datasets, image size, augmentation, slices, repeating"):
            form.choice("classes", [(label, label) for label in counts or ()], several=True)
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

    def _preview(self, form: Form, counts: Mapping[str, Mapping[str, int]], label_field: str) -> None:
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
        view, given = target_view(form.ctx), secrets(form.ctx)
        for warning in cached(_key(form, "warnings", label_field), lambda: _warnings(view, label_field, given)):
            form.warning(warning)
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


def _key(form: Form, *what: Any) -> tuple:
    return ("train_classifier", *samples.state(target_view(form.ctx)), *what)


def _count(form: Form, label_field: str) -> Mapping[str, Mapping[str, int]] | None:
    view = target_view(form.ctx)
    if view._root_dataset.count() > SLOW and not form.on_request("Count classes and splits (takes a few seconds)"):
        return None
    return cached(_key(form, "counts", label_field), lambda: samples.count_by_split(view, label_field))


def _choose_base(form: Form) -> None:
    def look() -> list[str]:
        registry = Registry(form.db)
        aliases = [f"{model}@{alias}" for model in registry.models() for alias in registry.aliases(model)]
        return [*aliases, *HUB, "yolov8n-cls.yaml"]

    names = cached("train_classifier/bases", look, seconds=5)
    form.choice("base_weights", [(name, name) for name in names], free=True)
    form.registered(form.value("base_weights"))


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


def _warnings(view: Any, label_field: str, given: Mapping[str, str]) -> list[str]:
    """What a careful person would look at first: cut groups, open corrections, open predictions."""
    said = []
    dataset = view._root_dataset
    group_field = samples.recall(dataset, "group_field")
    if group_field and dataset.has_sample_field(group_field):
        parts = [set(view.match_tags(split).distinct(group_field)) - {None} for split in samples.SPLITS]
        cut = (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
        if cut:
            some = ", ".join(sorted(str(g) for g in cut)[:3])
            said.append(f"{len(cut)} groups of {group_field!r} are on both sides of a split, such as {some}.")
    said += _corrections(view, label_field, given)
    for field in samples.label_fields(dataset):
        if samples.writer(dataset, field):
            open_predictions = view.exists(label_field, False).exists(field).count()
            if open_predictions:
                said.append(
                    f"{open_predictions:,} unlabelled ROIs have a prediction in {field!r} that nobody accepted."
                )
    return said


def _corrections(view: Any, label_field: str, given: Mapping[str, str]) -> list[str]:
    """Says how many corrections are not applied yet."""
    try:
        count = not_applied(view, label_field, given)
    except SuiteError as error:
        return [f"Whether corrections are open is not known: {error}"]
    said = f"{many(count, 'ROI has', 'ROIs have')} a correction that is not applied: the old label is trained on."
    return [said] if count else []


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
    return f"{learned} to learn from; {epochs} epochs take about {took}, less if it stops early."


def _cost(seconds: float, price: str | None) -> str:
    try:
        return f" (costs about {seconds / 3600 * float(price):.2f})" if price else ""
    except ValueError:
        return ""  # check_setup says that the price is not a number
