"""What the panel shows of the registry, as plain data: rows of versions, one version's records, its relations.

The list asks the database for the few fields that it shows and touches no file; only a version that is opened is
read from the artifact root. What is missing or damaged there is said, and the rest is shown.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..artifacts import Artifacts, open_root
from ..errors import SuiteError
from ..runs import duration
from . import freshness
from .registry import ALIASES, CANDIDATE, VERSIONS, Registry, VersionRecord
from .schema import Card

if TYPE_CHECKING:
    from pymongo.database import Database

SPLITS = ("test", "val")  # whose figures are shown: the first that a version has
NOT_CHECKED = "not checked"
LOOK = "not checked yet: *Show training data* looks at what became of it"
DIGITS = 8  # of a digest, enough to tell data apart
SHOWN_FILES = ("card.json", "metrics.json", "training.csv")

_LISTED = dict.fromkeys(("model", "created_at", "manifest_digest", "dataset", "base", "base_version"), 1) | {
    f"metrics.{split}.{figure}": 1 for split in SPLITS for figure in ("n", "top1", "macro_f1")
}


@dataclass(frozen=True)
class Entry:
    """One version as the list and the graph show it; `digest` is of its training data, `n` the images judged."""

    name: str
    model: str
    created_at: datetime
    aliases: tuple[str, ...] = ()
    digest: str = ""
    dataset: str | None = None
    base: str | None = None
    base_version: str | None = None
    split: str | None = None
    n: int | None = None
    top1: float | None = None
    macro_f1: float | None = None
    freshness: str = NOT_CHECKED

    @property
    def data(self) -> str:
        """The identity of the training data, short."""
        return self.digest[:DIGITS]


def entries(db: Database) -> list[Entry]:
    """All versions, newest first; a record that lacks what cannot be missing is left out."""
    held = _aliases(db)
    found = [made for record in db[VERSIONS].find({}, _LISTED) if (made := _entry(record, held))]
    return sorted(found, key=lambda entry: (entry.created_at, entry.name), reverse=True)


def _entry(record: Mapping[str, Any], held: Mapping[str, list[str]]) -> Entry | None:
    name, model, created_at = record["_id"], record.get("model"), record.get("created_at")
    if not isinstance(model, str) or not isinstance(created_at, datetime):
        return None
    split, scores = headline(record.get("metrics"))
    figures = {name: scores[name] for name in ("n", "top1", "macro_f1") if isinstance(scores.get(name), int | float)}
    return Entry(
        name=name,
        model=model,
        created_at=created_at,
        aliases=tuple(sorted(held.get(name, []))),
        digest=str(record.get("manifest_digest") or ""),
        dataset=record.get("dataset"),
        base=record.get("base"),
        base_version=record.get("base_version"),
        split=split,
        **figures,
    )


def _aliases(db: Database) -> dict[str, list[str]]:
    """The aliases that each version holds, by `<model>/<version>`."""
    held: dict[str, list[str]] = {}
    for found in db[ALIASES].find({}, {"model": 1, "alias": 1, "version": 1}):
        held.setdefault(f"{found['model']}/{found['version']}", []).append(found["alias"])
    return held


def headline(metrics: Any) -> tuple[str | None, Mapping[str, Any]]:
    """The split whose figures speak for a version, and these: the test split's, else the validation split's."""
    for split in SPLITS:
        if isinstance(metrics, Mapping) and isinstance(metrics.get(split), Mapping):
            return split, metrics[split]
    return None, {}


def models(listed: Iterable[Entry]) -> list[str]:
    """The names of the models that have a version, sorted."""
    return sorted({entry.model for entry in listed})


def chosen(listed: Iterable[Entry], model: str | None, only_named: bool) -> list[Entry]:
    """Those of one model (None: of all), and only those that an alias points to if that is wanted."""
    return [entry for entry in listed if model in (None, entry.model) and (entry.aliases or not only_named)]


def with_freshness(db: Database, listed: Iterable[Entry]) -> list[Entry]:
    """The same with the verdict of the last look at what became of their data."""
    listed = list(listed)
    known = freshness.read(db, [entry.name for entry in listed])
    return [
        replace(entry, freshness=f"{found.verdict} ({found.at:%Y-%m-%d})") if found else entry
        for entry in listed
        for found in (known.get(entry.name),)
    ]


def row(entry: Entry) -> dict[str, str]:
    """An entry as a row of the list."""
    return {
        "version": entry.name,
        "aliases": ", ".join(entry.aliases),
        "trained": f"{entry.created_at:%Y-%m-%d %H:%M}",
        "dataset": entry.dataset or "",
        "data": entry.data,
        "top1": _figure(entry.top1),
        "macro_f1": _figure(entry.macro_f1),
        "judged": f"{entry.n:,} ({entry.split})" if entry.n is not None else "",
        "freshness": entry.freshness,
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def rival(listed: Sequence[Entry], name: str) -> str | None:
    """What a version is best compared with: its model's `production`, else its `candidate`, else the one before it."""
    others = [entry for entry in listed if entry.model == name.split("/")[0] and entry.name != name]
    holders = [entry.name for alias in ("production", CANDIDATE) for entry in others if alias in entry.aliases]
    own = next((entry for entry in listed if entry.name == name), None)
    before = [entry.name for entry in others if own is None or entry.created_at <= own.created_at]
    return next(iter(holders + before), None)


# --- one version ---


@dataclass
class Opened:
    """A version's records as far as they could be read; `problems` says what could not."""

    name: str
    record: VersionRecord | None = None
    card: Card | None = None
    metrics: dict[str, Any] = field(default_factory=dict)  # of the split that is shown
    split: str | None = None
    training_csv: str | None = None
    markdown: str | None = None  # the card, rendered with its notes and focus list
    freshness: freshness.Freshness | None = None
    problems: list[str] = field(default_factory=list)


def open_version(db: Database, name: str, uri: str, secrets: Mapping[str, str]) -> Opened:
    """Reads what the panel shows of one version: its record, three small files, what was added since.

    It raises nothing of ours: a file that is gone, damaged or was never written (by an older release) is named in
    `problems`.

    Args:
        db: FiftyOne's database
        name: `<model>/<version>`
        uri: of the artifact root
        secrets: see `artifacts.open_root`
    """
    opened = Opened(name)
    try:
        opened.record = Registry(db).get(*name.split("/", 1))
        opened.freshness = freshness.read(db, [name]).get(name)
        root = open_root(uri, secrets)
    except SuiteError as error:
        opened.problems.append(str(error))
        return opened
    _read_files(opened, opened.record, root)
    if opened.card is not None:
        opened.markdown = _rendered(opened.card, name, root, opened.problems)
    return opened


def _read_files(opened: Opened, record: VersionRecord, root: Artifacts) -> None:
    texts = _texts(record, root, opened.problems)
    opened.training_csv = texts.get("training.csv")
    if "card.json" not in record.files:
        opened.problems.append("This version has no card: it was trained by an older release of this suite.")
    try:
        if "card.json" in texts:
            opened.card = Card.model_validate_json(texts["card.json"])
    except ValidationError as error:
        opened.problems.append(f"The card of this version cannot be read: {error.errors()[0]['msg']}.")
    try:
        opened.split, scores = headline(json.loads(texts.get("metrics.json", "{}")))
        opened.metrics = dict(scores)
    except ValueError as error:
        opened.problems.append(f"metrics.json of this version cannot be read: {error}.")


def _texts(record: VersionRecord, root: Artifacts, problems: list[str]) -> dict[str, str]:
    """The text of each small file of the version, by name; one that cannot be had is a problem, not an error."""
    texts, failed, why = {}, [], ""
    with tempfile.TemporaryDirectory(prefix="mbari-panel-") as folder:
        for name in SHOWN_FILES:
            if name not in record.files:
                continue
            try:
                root.fetch(record.key, {name: record.files[name]}, Path(folder))
                texts[name] = (Path(folder) / name).read_text(encoding="utf-8")
            except (SuiteError, ValueError) as error:
                failed.append(name)
                why = why or str(error)
    if failed:  # mostly for one and the same reason
        problems.append(f"{' and '.join(failed)} could not be read: {why}")
    return texts


def _rendered(card: Card, name: str, root: Artifacts, problems: list[str]) -> str:
    from . import render  # brings what takes long to import

    try:
        text, _ = render.described(card, name, root)
    except SuiteError as error:
        problems.append(f"The notes and the focus list could not be read: {error}")
        text = render.markdown(card, [])
    return text.split("\n---\n", 1)[-1]  # without the metadata, which is for programs


def facts(opened: Opened, entry: Entry) -> list[tuple[str, str]]:
    """What one wants to know first about a version, as (word, sentence in Markdown)."""
    record = opened.record
    if record is None:
        return []
    learned = sum(record.class_counts.values())
    since = opened.freshness
    seconds = sum(value for value in (record.training.get("seconds") or {}).values() if isinstance(value, int | float))
    told = [
        ("Known as", " ".join(f"`{entry.model}@{alias}`" for alias in entry.aliases) or "no alias points to it"),
        ("How good", _quality(opened, entry)),
        (
            "Learned from",
            f"{learned:,} ROIs of {len(record.class_counts)} classes in dataset *{record.dataset or 'unknown'}*, "
            f"labels of `{record.label_field}`; data `{entry.data}`",
        ),
        ("Data since", f"{since.rule} (looked at {since.at:%Y-%m-%d %H:%M} UTC)" if since else LOOK),
        ("Begun with", f"`{record.base_version or record.base}`" if record.base_version or record.base else ""),
        (
            "Trained",
            f"{record.created_at:%Y-%m-%d %H:%M} UTC"
            + (f" by {record.created_by}" if record.created_by else "")
            + (f", in {duration(seconds)}" if seconds else ""),
        ),
    ]
    return [(word, said) for word, said in told if said]


def _quality(opened: Opened, entry: Entry) -> str:
    if entry.top1 is None or entry.macro_f1 is None or entry.n is None:
        return "its record has no figures"
    intervals = opened.metrics.get("intervals") or {}
    figures = [
        f"{label} **{value:.3f}**"
        + (f" (95%: {intervals[key][0]:.3f} to {intervals[key][1]:.3f})" if key in intervals else "")
        for key, label, value in (("top1", "top-1", entry.top1), ("macro_f1", "macro F1", entry.macro_f1))
    ]
    return f"{', '.join(figures)} on {entry.n:,} ROIs of the {entry.split} split"


def judged(opened: Opened) -> str:
    """What the figures of a version were measured on, in a sentence; empty where there are none."""
    why = {"test": "which were kept for judging", "val": "which also decided when to stop training"}
    if opened.split is None:
        return ""
    return f"Judged on the {opened.metrics.get('n', 0):,} ROIs of the {opened.split} split, {why[opened.split]}."
