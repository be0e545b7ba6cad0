"""What `select_for_review` reads of a dataset: predictions as a few numbers each, and vectors when they are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from bson import ObjectId

from .. import samples, selected, vectors
from ..errors import InputError
from ..operators import Job
from ..sync.corrections import OWN_TAGS
from . import evaluate_job

if TYPE_CHECKING:
    from ..review.calibration import Calibration
    from ..review.novelty import Novelty
    from ..review.select import Predictions

UNPREDICTED = "without a prediction"
UNSURE = "without a confidence"
OUTSIDE = "with a confidence outside 0 to 1"
LABELLED = "labelled before"
MODEL_KNOWS = "learned from (train, val)"
SIZE = 5_000  # samples read at a time: of 200 logits each, 8 MB
MOST_VAL = 20_000  # predictions that the temperature is found with
UNLIKE = 0.01  # of the predictions at most are not the class with the largest logit: a person has changed them
STORE = "'Apply a classifier' stores all of them where 'store logits' is ticked."


class Unfit(InputError):
    """The logits are not in the order of the classes."""


@dataclass(frozen=True)
class Scale:
    """How logits become probabilities.

    Attributes:
        temperature: what the logits are divided by; None where the confidences are used as they are
        measured: how far the probabilities can be believed, before and after, where that is known
        why_not: why nothing was calibrated, as a sentence
    """

    temperature: float | None = None
    measured: Calibration | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Table:
    """The predictions of a target, of which N may be chosen.

    Attributes:
        ids: of their samples, (N,), as `samples.ids` gives them
        predictions: what is said of them
        unclustered: which are in no cluster, bool (N,); None where no clusters were given
        left_out: how many of the target may not be chosen, by the reason
        remarks: sentences about what is not known
    """

    ids: np.ndarray
    predictions: Predictions
    unclustered: np.ndarray | None
    left_out: Counter[str]
    remarks: list[str]

    @property
    def predicted(self) -> int:
        """How many of the target have a prediction."""
        return len(self.ids) + sum(self.left_out.values()) - self.left_out[UNPREDICTED]

    def ids_of(self, rows: np.ndarray) -> list[str]:
        """The sample ids of rows, as text."""
        return [str(ObjectId(identity)) for identity in self.ids[rows].tolist()]


@dataclass(frozen=True)
class Checked:
    """Spot checks of earlier selections: how many of each class were reviewed, how many were right, both (C,).

    `unsaid` were reviewed and have no label.
    """

    checked: np.ndarray
    right: np.ndarray
    unsaid: int = 0


@dataclass(frozen=True)
class UnitRows:
    """The vectors of N samples as rows of unit length, read when they are asked for: `review.spread.Rows`."""

    ids: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        """How many samples."""
        return len(self.ids)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows of some of them, float32 (n, D); zero where one has no vector."""
        from ..review.spread import unit_rows

        return unit_rows(self.read(self.ids[rows]))


@dataclass(frozen=True)
class Near:
    """Who looks like whom: vectors of what may be chosen and of what was reviewed, and what is far from all labels.

    `missing` of what may be chosen have no vector.
    """

    vectors: UnitRows | None = None
    seen: UnitRows | None = None
    novelty: Novelty | None = None
    missing: int = 0


def labels(dataset: Any, field: str) -> dict[str, int]:
    """How many samples have each label; none where the field is not there yet."""
    found = dataset.count_values(f"{field}.label") if dataset.has_sample_field(field) else {}
    return {label: count for label, count in found.items() if label is not None}


def calibrate(dataset: Any, view: Any, params: Any, classes: Sequence[str]) -> Scale:
    """The temperature of the logits, found on the labelled ROIs of val; or why the confidences are used as they are.

    Args:
        dataset: the dataset
        view: what is chosen from
        params: those of the selection
        classes: those that the field's writer says that it has, in the order of the logits; none where it says nothing
    """
    from ..review import calibration

    field = params.prediction_field
    predicted = view.exists(f"{field}.label").count()
    if not classes and view.exists(f"{field}.logits").limit(1).count():
        return unfit(field, "what wrote it does not say the order of the classes")
    stored = view.exists(f"{field}.logits").count()
    if stored < predicted:
        return Scale(
            why_not=f"Not calibrated: {field!r} has logits of {stored:,} of {predicted:,} predictions, so the "
            f"confidences are used as they are; {STORE}"
        )
    val = dataset.match_tags("val").exists(f"{field}.logits").take(MOST_VAL, seed=params.seed)
    columns = {"predicted": f"{field}.label", "label": f"{params.label_field}.label", "logits": f"{field}.logits"}
    rows = samples.read(val, columns)
    number = {name: i for i, name in enumerate(classes)}
    have = [i for i, label in enumerate(rows["label"]) if label in number and rows["predicted"][i] is not None]
    if (problem := _misfit(rows, have, classes)) is not None:
        return unfit(field, problem)
    if not have:
        return Scale(1.0, why_not="Not calibrated: no ROI that is tagged val has a label and logits.")
    labels = np.array([number[rows["label"][i]] for i in have])
    found = calibration.calibrate(np.stack([rows["logits"][i] for i in have]), labels)
    if found.after < found.before:
        return Scale(found.temperature, found)
    return Scale(
        1.0,
        replace(found, temperature=1.0, after=found.before),
        f"Not calibrated: the temperature that fits the {found.images:,} ROIs of val best, {found.temperature:.2f}, "
        f"does not lower the calibration error ({100 * found.before:.1f} % before, {100 * found.after:.1f} % after), "
        "so the probabilities are left as they are.",
    )


def unfit(field: str, why: str) -> Scale:
    """The scale of predictions whose logits cannot be used."""
    return Scale(
        why_not=f"Not calibrated: the logits in {field!r} are not used, because {why}; the confidences are used as "
        "they are."
    )


def _misfit(batch: Mapping[str, list[Any]], rows: Sequence[int], classes: Sequence[str]) -> str | None:
    """Why the logits of some rows of a batch cannot be in the order of the classes, if so."""
    if not rows:
        return None
    found = [batch["logits"][i] for i in rows]
    if any(logits is None or len(logits) != len(classes) for logits in found):
        return f"there are not {len(classes):,} of each, as there are classes"
    logits = np.stack(found)
    if not np.isfinite(logits).all():
        return "some are not numbers"
    number = {name: i for i, name in enumerate(classes)}
    given = np.array([number.get(batch["predicted"][i], -1) for i in rows])
    unlike = int(((given < 0) | (logits[np.arange(len(rows)), given] < logits.max(axis=1))).sum())
    if (given < 0).any() or unlike > max(1, UNLIKE * len(rows)):
        return f"of {len(rows):,} predictions that were compared, {unlike:,} are not the class with the largest logit"
    return None


def read(job: Job, classes: list[str], scale: Scale, rare: np.ndarray) -> Table | None:
    """The predictions of the target that may be chosen, batch by batch, so that the logits are never all in memory.

    None if it was stopped.

    Raises:
        Unfit: the logits are not in the order of the classes
        InputError: there is no prediction, or none that may be chosen
    """
    from ..review import select

    params, total = job.params, job.view.count()
    columns = _columns(params, scale)
    if params.cluster_field:
        columns["cluster"] = f"{params.cluster_field}.label"
    # The model may have learned from labelled ROIs whose tags have changed since.
    _, known, remarks = (None, None, []) if params.only_unlabelled else evaluate_job.learned(job)
    number = {name: i for i, name in enumerate(classes)}
    parts: list[dict[str, np.ndarray]] = []
    left_out: Counter[str] = Counter()
    done = 0
    for batch in samples.batches(job.view, columns, SIZE):
        learned = np.zeros(len(batch["id"]), bool) if known is None else known(batch)
        why = [_why_not(batch, i, bool(learned[i]), params, scale) for i in range(len(batch["id"]))]
        left_out.update(reason for reason in why if reason)
        if have := [i for i, reason in enumerate(why) if reason is None]:
            if scale.temperature is not None and (problem := _misfit(batch, have, classes)):
                raise Unfit(problem)
            part = _part(batch, have, number, scale.temperature, rare)
            part["ids"] = samples.packed([batch["id"][i] for i in have])
            part["unclustered"] = np.array([bool(params.cluster_field) and batch["cluster"][i] is None for i in have])
            parts.append(part)
        done += len(batch["id"])
        job.run.progress(done, total, "Reading predictions")
        if job.run.stopping():
            return None
    if left_out[UNPREDICTED] == done:
        raise InputError(
            f"No ROI of the target has a prediction in {params.prediction_field!r}: run 'Apply a classifier' first."
        )
    if not parts:
        raise InputError(_nothing(params, left_out))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ids, unclustered = joined.pop("ids"), joined.pop("unclustered")
    predictions = select.Predictions(list(number), rare=rare, **joined)
    return Table(ids, predictions, unclustered if params.cluster_field else None, left_out, remarks)


def _columns(params: Any, scale: Scale) -> dict[str, str]:
    field = params.prediction_field
    columns = {"predicted": f"{field}.label", "confidence": f"{field}.confidence", "tags": "tags"}
    columns |= {"label": f"{params.label_field}.label", "sha256": samples.HASH_FIELD}
    return columns if scale.temperature is None else {**columns, "logits": f"{field}.logits"}


def because(left_out: Mapping[str, int]) -> str:
    """Why ROIs were left out, as part of a sentence."""
    return ", ".join(f"{count:,} {why}" for why, count in sorted(left_out.items(), key=lambda item: -item[1]))


def _nothing(params: Any, left_out: Mapping[str, int]) -> str:
    """Why there is nothing to choose from, and what to do."""
    said = f"There is nothing to choose from: {because(left_out)}."
    if left_out.get(LABELLED):
        said += f" {selected.UNTICK[0].upper()}{selected.UNTICK[1:]}."
    if left_out.get(UNSURE) or left_out.get(OUTSIDE):
        said += (
            f" Confidences in {params.prediction_field!r} have to be there and from 0 to 1: divide percentages by 100, "
            "or run 'Apply a classifier', which writes them."
        )
    return said


def _why_not(batch: Mapping[str, list[Any]], row: int, learned: bool, params: Any, scale: Scale) -> str | None:
    """Why an ROI must not be chosen, if it must not."""
    if batch["predicted"][row] is None:
        return UNPREDICTED
    tagged = set(batch["tags"][row] or ())
    if selected.DONE in tagged:
        return "reviewed before"
    if learned or tagged & set(evaluate_job.LEARNED):
        return MODEL_KNOWS
    if samples.UNREADABLE in tagged:
        return "unreadable"
    if params.only_unlabelled and batch["label"][row]:
        return LABELLED
    return None if scale.temperature is not None else _unusable(batch["confidence"][row])


def _unusable(confidence: float | None) -> str | None:
    """Why nothing can be said of a prediction by its confidence alone, if so."""
    if confidence is None:
        return UNSURE
    return None if 0 <= confidence <= 1 else OUTSIDE


def _part(
    batch: Mapping[str, list[Any]],
    have: Sequence[int],
    number: dict[str, int],
    temperature: float | None,
    rare: np.ndarray,
) -> dict[str, np.ndarray]:
    """The columns of `Predictions` of a batch; a class that nobody named gets the next number."""
    from ..review import calibration, select

    predicted = np.array([number.setdefault(batch["predicted"][i], len(number)) for i in have], np.int64)
    if temperature is None:
        return {"predicted": predicted, "confidence": np.array([batch["confidence"][i] for i in have], np.float32)}
    probabilities = calibration.apply(np.stack([batch["logits"][i] for i in have]), temperature)
    return {"predicted": predicted, **select.summarise(probabilities, predicted, rare)}


def spot_checks(dataset: Any, params: Any, classes: Sequence[str], scale: Scale) -> Checked:
    """What the reviewed spot checks of earlier selections from the same predictions have shown."""
    checked, right = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    if not selected.goes_on(dataset, params.prediction_field, params.confident):
        return Checked(checked, right)
    unsaid = 0
    view = selected.reviewed(dataset, "confident")
    columns = _columns(params, scale)
    number = {name: i for i, name in enumerate(classes)}
    for batch in samples.batches(view, columns, SIZE):
        have = [i for i, name in enumerate(batch["predicted"]) if name in number]
        if scale.temperature is None:
            have = [i for i in have if _unusable(batch["confidence"][i]) is None]
        else:
            have = [i for i in have if _misfit(batch, [i], classes) is None]
        if not have:
            continue
        part = _part(batch, have, number, scale.temperature, np.zeros(0, np.int64))
        for i, of, confidence in zip(have, part["predicted"], part["confidence"], strict=True):
            said = [
                tag for tag in batch["tags"][i] or () if tag in number and tag not in OWN_TAGS
            ]  # a correction that is not applied yet
            truth = said[0] if len(said) == 1 else batch["label"][i]
            if truth is None:
                unsaid += 1
            elif confidence >= params.confident:
                checked[of] += 1
                right[of] += truth == batch["predicted"][i]
    return Checked(checked, right, unsaid)


def near(job: Job, table: Table) -> Near:
    """Looks for what is far from all that has a label, and makes the vectors ready to be read.

    Raises:
        InputError: there are no vectors, or they cannot be compared
    """
    from ..review import novelty

    dataset, field = job.dataset, job.params.embeddings_field
    job.run.progress(0, 0, "Looking up embeddings")
    read_some = vectors.reader(dataset, field)
    missing = int(np.isin(table.ids, samples.ids(vectors.without(job.view, field))).sum())
    if missing == len(table.ids):
        raise InputError(f"No ROI that may be chosen has a vector in {field!r}: {vectors.RUN} first.")
    label = f"{job.params.label_field}.label"
    labelled = samples.ids(dataset.exists(label).exists(field)) if samples.has_path(dataset, label) else table.ids[:0]
    labelled = labelled[~np.isin(labelled, table.ids)]  # what may be chosen is not held against itself
    reviewed = samples.ids(dataset.match_tags(selected.DONE).exists(field))
    rows, known, seen = (UnitRows(ids, read_some) for ids in (table.ids, labelled, reviewed))
    return Near(rows, seen, novelty.novelty(rows, known, job.params.seed, job.run), missing)
