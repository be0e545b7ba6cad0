"""The demo's labels: its database of record, wrong labels in it, their corrections, and what becomes of each.

The database of record is embedded: another database on the server of FiftyOne's own (`surroundings.own_label_store`).
"""

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import surroundings

WRONG_ON_PURPOSE = 12
OUTSIDER = "another program"
# An operator at once on a view, or scheduled on the dataset: see `operate`.
AtOnce = Callable[[Any, str, dict[str, Any]], dict[str, Any]]
Scheduled = Callable[[str, dict[str, Any]], dict[str, Any]]


def mislabel(rows: list[dict[str, Any]], seed: int = 51) -> int:
    """Makes a dozen labels wrong on purpose, for images of which none is known to be; returns how many.

    Args:
        rows: each gets a `true_label` beside its `label`
        seed: says which, and what they become
    """
    rng, names = random.Random(seed), sorted({row["label"] for row in rows})
    for row in rows:
        row["true_label"] = row["label"]
    chosen = rng.sample(rows, min(WRONG_ON_PURPOSE, len(rows))) if len(names) > 1 else []
    for row in chosen:
        row["label"] = rng.choice([name for name in names if name != row["true_label"]])
    return len(chosen)


def store() -> Any:
    """The collection with the records."""
    import fiftyone.core.odm as odm

    return odm.get_db_conn().client[surroundings.LABELS][surroundings.ROIS]


def fill(dataset) -> int:
    """Makes the store anew: a record for each sample that has an id; returns how many."""
    records = store()
    records.drop()
    records.create_index("elemental_id", unique=True)
    now = datetime.now(UTC)
    made = [
        {"elemental_id": source, "label": label, "modified": now, "modified_by": "annotator", "history": []}
        for source, label in zip(*dataset.values(["elemental_id", "ground_truth.label"]), strict=True)
        if source
    ]
    records.insert_many(made)
    return len(made)


def correct(dataset, at_once: AtOnce) -> dict[str, Any]:
    """Corrects what a person happened to see: of the wrong labels a third by tags, a third with `correct_labels`.

    The rest is for the review to find.
    """
    wrong = wrong_in(dataset)
    for label, samples in _by_label(wrong[::3]).items():
        dataset.select(samples).tag_samples(label)
    correct_labels(dataset, wrong[1::3], at_once)
    applied = at_once(dataset, "sync_back/apply_corrections", {})
    print(f"   {applied['message']}")
    counts = {"wrong": len(wrong), "tagged": len(wrong[::3]), "chosen": len(wrong[1::3])}
    return {**counts, "applied": applied["counts"]["applied"]}


def wrong_in(view) -> list[tuple[str, str]]:
    """The samples of a view whose label is wrong: their ids, and what they truly are."""
    from fiftyone import ViewField

    wrong = view.match(ViewField("ground_truth.label") != ViewField("true_label"))
    return list(zip(*wrong.values(["id", "true_label"]), strict=True))


def correct_labels(dataset, wrong: list[tuple[str, str]], at_once: AtOnce) -> None:
    """Says with `correct_labels` what samples should be labelled."""
    for label, samples in _by_label(wrong).items():
        at_once(dataset.select(samples), "sync_back/correct_labels", {"label": label})


def _by_label(wrong: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for sample, label in wrong:
        found[label].append(sample)
    return found


def edit_outside(dataset) -> str | None:
    """Another program gives one of the corrected labels a third name in the store; returns its id."""
    waiting = dataset.match_tags("needs-sync").limit(1)
    for source, label in zip(*waiting.values(["elemental_id", "ground_truth.label"]), strict=True):
        record = store().find_one({"elemental_id": source})
        third = next((name for name in dataset.classes["ground_truth"] if name not in (label, record["label"])), "?")
        change = {"label": third, "modified": datetime.now(UTC), "modified_by": OUTSIDER}
        store().update_one({"elemental_id": source}, {"$set": change})
        return source
    return None


def send(dataset, at_once: AtOnce, scheduled: Scheduled) -> dict[str, Any]:
    """Previews, sends, and compares what the store then holds with FiftyOne; returns the figures of each."""
    edited = edit_outside(dataset)
    if edited:
        print(f"   Meanwhile {OUTSIDER} has given one of these labels, {edited}, a third name in the store.")
    preview = at_once(dataset, "sync_back/preview_sync", {})
    print(f"   {preview['message']}")
    sent = scheduled("sync_back/sync_back", {})
    six = ("updated", "already", "conflict", "missing", "invalid", "failed")
    return {
        "edited_outside": edited,
        "preview": preview["counts"],
        "sync": {name: sent[name] for name in ("corrections", *six)},
        "changes": sent["changes"],
        "problems": sent["problems"],
        "saved_views": sent["saved_views"],
        "compared": compare(dataset),
    }


def compare(dataset) -> dict[str, Any]:
    """Holds every record of the store against its sample, past all operators: how many agree, and which do not."""
    here = dict(zip(*dataset.exists("elemental_id").values(["elemental_id", "ground_truth.label"]), strict=True))
    there = {record["elemental_id"]: record["label"] for record in store().find()}
    differ = [
        {"elemental_id": source, "in_fiftyone": here.get(source), "in_store": there.get(source)}
        for source in sorted(here.keys() | there.keys())
        if here.get(source) != there.get(source)
    ]
    return {"records": len(there), "agree": len(here.keys() | there.keys()) - len(differ), "differ": differ}


def summary(labels: dict[str, Any]) -> str:
    """What became of the corrections, as a short table, and how store and FiftyOne compare."""
    sync, compared = labels["sync"], labels["compared"]
    applied = labels["applied"] + labels["found"]
    lines = [
        f"Labels: {labels['wrong']:,} were wrong; {labels['tagged']:,} got the right name as a tag and "
        f"{labels['chosen']:,} by 'Correct labels' before training, {labels['found']:,} by it in the review.",
        "",
        f"{'what became of them':<52}{'labels':>6}",
        *(f"{text:<52}{sync[name]:>6,}" for name, text in OUTCOMES.items() if sync[name]),
    ]
    if here := applied - sync["corrections"]:
        lines.append(f"{'corrected in FiftyOne; no id in the store yet':<52}{here:>6,}")
    lines.append(f"{'all':<52}{applied:>6,}")
    lines += ["", f"Store and FiftyOne agree on {compared['agree']:,} of {compared['records']:,} labels."]
    for row in compared["differ"][:5]:
        lines.append(f"They differ on {row['elemental_id']}: {row['in_store']!r} there, {row['in_fiftyone']!r} here.")
    return "\n".join(lines)


OUTCOMES = {
    "updated": "updated in the label store",
    "already": "so already in the label store",
    "conflict": "in conflict: somebody else changed the label there",
    "missing": "not in the label store",
    "invalid": "cannot be sent",
    "failed": "failed",
}
