"""The parts of a rendered card that say where a version comes from: its data, what changed, how it was made."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..runs import duration
from ..wording import many
from .markdown import NONE, bullets, code, inline, table, utc
from .schema import Card, Changes, Data

SPLITS = {
    "train": "learned from",
    "val": "measured after every epoch: they chose the best one, and when to stop",
    "test": "looked at once, at the end",
}
NAMES = {"top1": "top-1", "macro_f1": "macro F1"}


def parts(card: Card) -> dict[str, str]:
    """The parts, as Markdown, by their names in the template."""
    data = card.data
    return {
        "origin": _facts(data),
        "counts": _counts(data),
        "labels": "\n\n".join(_labels(data)),
        "leakage": bullets(_leakage(data)),
        "left_out": _left_out(data),
        "changes": "\n\n".join(_changes(card.changes)),
        "making": _making(card),
        "ancestors": _ancestors(card),
        "licence": _licence(card),
        "view": _view(data),
        "options": _values(card.training.options),
        "arguments": _values(card.training.arguments),
    }


# --- what it learned from ---


def _facts(data: Data) -> str:
    identity = f" (id {code(data.dataset_id)})" if data.dataset_id else ""
    rows = [
        ["Dataset", inline(data.dataset or "without a name") + identity],
        ["Labels", f"the field {code(data.label_field)}"],
        ["View", _which(data)],
    ]
    if data.extra_views:
        rows.append(["Further data", inline(", ".join(data.extra_views))])
    if data.vocabulary is not None:
        rows.append(["Vocabulary", f"{len(data.vocabulary.names):,} names, {inline(data.vocabulary.origin)}"])
    rows.append(["Snapshot of the dataset", _snapshot(data)])
    rows.append(["Digest of the data", code(data.digest)])
    said = (
        "The digest is a fingerprint of the training data: it is computed from the id, image, label and split of every "
        "ROI used, so that two versions with the same digest were made from exactly the same data, and one changed "
        "label gives another. The rows themselves are in `manifest.parquet`, beside the weights."
    )
    return f"{table(['Data', ''], rows)}\n\n{said}"


def _which(data: Data) -> str:
    if data.saved_view:
        return f"the saved view {inline(data.saved_view)}"
    return f"a view of {many(len(data.view), 'stage')}, see the appendix" if data.view else "the whole dataset"


def _snapshot(data: Data) -> str:
    if data.snapshot.name:
        return inline(data.snapshot.name)
    return f"none ({inline(data.snapshot.why_not)})" if data.snapshot.why_not else "none"


def _counts(data: Data) -> str:
    splits = table(
        ["split", "ROIs", "what for"],
        [[inline(split), f"{n:,}", SPLITS.get(split, "")] for split, n in data.counts.items()],
        numbers=(1,),
    )
    names = list(data.counts)
    rows = [[inline(label), *(f"{row.get(name, 0):,}" for name in names)] for label, row in data.classes.items()]
    if not rows:
        return splits
    classes = table(["class", *map(inline, names)], rows, numbers=range(1, len(names) + 1))
    return f"{splits}\n\n{classes}"


def _labels(data: Data) -> Iterator[str]:
    if data.provenance:
        yield "Where the labels came from:"
        yield table(["from", "ROIs"], [[inline(what), f"{n:,}"] for what, n in data.provenance.items()], numbers=(1,))
    if data.synced:
        yield "Corrections that had been sent to the label store before:"
        rows = [[utc(s.at), inline(s.by or NONE), f"{s.updated:,}", code(s.run)] for s in data.synced]
        yield table(["when", "by", "labels", "run"], rows, numbers=(2,))


def _leakage(data: Data) -> Iterator[str]:
    if data.group_field is None:
        yield (
            "The splits kept no related images together (no group field was given), so the same animal may be in two "
            "of them."
        )
    else:
        found = data.groups_across_splits
        apart = f"**{many(found, 'group')}**, though, in several splits" if found else "no group is in several splits"
        yield f"Related images were kept together by {code(data.group_field)}: {apart}."
    if found := data.identical_across_splits:
        yield f"Identical images in several splits: **{many(found, 'group')}**; the copies in train were left out."
    else:
        yield "No two identical images are in different splits."
    if found := data.identical_other_label:
        yield f"Identical images with different labels: **{many(found, 'group')}**."


def _left_out(data: Data) -> str:
    if not data.left_out:
        return "Nothing: every ROI of the view was used."
    rows = [[inline(reason), f"{n:,}"] for reason, n in data.left_out.items()]
    return table(["why", "ROIs"], rows, numbers=(1,))


# --- what changed ---


def _changes(changes: Changes) -> Iterator[str]:
    if changes.previous is None:
        yield inline(changes.why_not) if changes.why_not else "This is the first version of the model."
        return
    yield f"The version before is {code(changes.previous)}."
    if changes.metrics:
        rows = [
            [
                f"{NAMES.get(m.metric, inline(m.metric))}, {inline(m.split)}",
                f"{m.before:.3f}",
                f"{m.after:.3f}",
                f"{m.after - m.before:+.3f}",
                "yes" if m.same_rois else "no",
            ]
            for m in changes.metrics
        ]
        yield table(["", "before", "now", "change", "on the same ROIs"], rows, numbers=(1, 2, 3))
        if not all(m.same_rois for m in changes.metrics):
            yield "Figures of different ROIs cannot be compared; the operator `compare_models` measures both alike."
        yield "A change that is smaller than the intervals above may be chance."
    yield bullets(_data_changes(changes))
    if changes.relabelled:
        rows = [[inline(r.before), inline(r.after), f"{r.n:,}"] for r in changes.relabelled]
        yield table(["label before", "label now", "ROIs"], rows, numbers=(2,))


def _data_changes(changes: Changes) -> Iterator[str]:
    if changes.same_data:
        yield "The data are the same."
        return
    if changes.classes_added:
        yield f"New classes: {inline(', '.join(changes.classes_added))}."
    if changes.classes_removed:
        yield f"Classes that are gone: {inline(', '.join(changes.classes_removed))}."
    counts = {
        "new": changes.added,
        "no longer used": changes.removed,
        "with another label": sum(r.n for r in changes.relabelled),
        "in another split": changes.moved,
        "with another image": changes.reimaged,
    }
    for what, n in counts.items():
        if n:
            yield f"ROIs {what}: {n:,}"


# --- how it was made ---


def _making(card: Card) -> str:
    training, cost = card.training, card.cost
    rows = [
        ["When", utc(card.created_at)],
        ["By", inline(card.created_by or NONE)],
        ["Run", code(card.run_id) if card.run_id else NONE],
        *([["Repeats", code(training.repeats)]] if training.repeats else []),
        ["On", inline(cost.device or NONE)],
        ["Training time", duration(cost.seconds)],
    ]
    if cost.price_per_hour is not None:
        spent = cost.seconds / 3600 * cost.price_per_hour
        rows.append(["Cost", f"{spent:.2f}, at {cost.price_per_hour:g} an hour"])
    rows += [
        ["Epochs", f"{training.epochs_done:,}"],
        ["Images", f"{card.imgsz} pixels square, framing {code(card.framing)}"],
        ["Software", _software(card)],
        ["SHA-256 of the weights", code(card.weights_sha256)],
    ]
    return table(["Training", ""], rows)


def _software(card: Card) -> str:
    training = card.training
    versions = {"this suite": training.suite, "Python": training.python, **training.libraries}
    return inline(", ".join(f"{name} {version}" for name, version in versions.items() if version)) or NONE


def _ancestors(card: Card) -> str:
    if not card.base:
        return "Nothing that is known."
    lines = []
    for ancestor in card.base:
        licence = inline(ancestor.licence.upper()) if ancestor.licence else "licence not known"
        lines.append(f"- {inline(ancestor.name)}, {licence}")
        if ancestor.name.endswith(".yaml"):
            lines.append("  - an architecture only: training began with random weights")
        else:
            lines.append(f"  - SHA-256 {code(ancestor.sha256) if ancestor.sha256 else 'not known'}")
            lines.append(f"  - digest of its data {code(ancestor.digest) if ancestor.digest else 'not known here'}")
    return "The nearest first:\n\n" + "\n".join(lines)


def _licence(card: Card) -> str:
    if card.licence.upper() != "AGPL-3.0":
        return f"{inline(card.licence)}."
    return (
        "AGPL-3.0: it is made from weights or a network architecture of Ultralytics, which are under this licence. "
        "Whoever passes it on, or offers it to others over a network, has to offer them the source as well, unless a "
        "licence of another kind was bought from Ultralytics."
    )


def _view(data: Data) -> str:
    if not data.view:
        return "The whole dataset."
    # No line of this JSON can end the block: each begins with a bracket, a brace, a space or a quotation mark.
    return f"```json\n{json.dumps(data.view, indent=1, sort_keys=True, ensure_ascii=False)}\n```"


def _values(values: Mapping[str, Any]) -> str:
    rows = [[inline(name), inline(_text(value))] for name, value in values.items()]
    return table(["name", "value"], rows) if rows else NONE


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
