"""What became of the rows a model version was made of: its manifest against the samples as they are now.

All in columns: a million rows take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError, StorageError

# The verdict, by shares of the rows that were used.
FRESH_CHANGED, FRESH_NEW = 0.01, 0.10  # up to both of these a version is fresh
STALE_CHANGED, STALE_NEW = 0.05, 0.50  # above either of these it is stale; between, it is ageing

KEY = ["dataset_id", "sample_id"]
FLAGS = ("relabelled", "moved", "reimaged", "new")
NO_LABEL, NO_SPLIT = "(no label)", "(no split)"
NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Drift:
    """What changed; all counts are ROIs, and of the used ones unless they say otherwise.

    Attributes:
        used: rows that it was trained, validated or tested on
        deleted: samples that are there no more
        relabelled: samples with another label, or none
        unlabelled: those of them that have none
        moved: samples in another split, or in none
        reimaged: images with other bytes; None where no bytes were looked at
        unchecked: images whose bytes were not looked at
        unreadable: images that could not be read any more
        changed: deleted, relabelled or reimaged, each counted once
        new: ROIs with a label of its classes that it was not trained on
        labels: rows of old, new and ROIs: the labels that changed, the most frequent first
        splits: the same for splits
        classes: for each class, rows of what became of its ROIs
        marks: a row for each used sample that is there and each new one: the columns of `KEY`, `split` (that it was
            used in, null for a new one) and the booleans of `FLAGS`
    """

    used: int
    deleted: int
    relabelled: int
    unlabelled: int
    moved: int
    reimaged: int | None
    unchecked: int
    unreadable: int
    changed: int
    new: int
    labels: list[dict[str, Any]] = field(repr=False)
    splits: list[dict[str, Any]] = field(repr=False)
    classes: list[dict[str, Any]] = field(repr=False)
    marks: pa.Table = field(repr=False)

    @property
    def verdict(self) -> str:
        """`fresh`, `ageing` or `stale`."""
        changed, new = self.changed / self.used, self.new / self.used
        if changed > STALE_CHANGED or new > STALE_NEW:
            return "stale"
        return "fresh" if changed <= FRESH_CHANGED and new <= FRESH_NEW else "ageing"

    @property
    def rule(self) -> str:
        """The verdict with its figures and its rule, as a sentence."""
        return (
            f"{self.verdict.capitalize()}: of the {self.used:,} ROIs it was made of, {self.changed:,} "
            f"({_percent(self.changed / self.used)}) have changed ({self.deleted:,} deleted, {self.relabelled:,} "
            f"relabelled, {self._images()}), new ones: {self.new:,} ({_percent(self.new / self.used)}); "
            f"fresh is up to {_percent(FRESH_CHANGED)} changed and {_percent(FRESH_NEW)} new, stale is more "
            f"than {_percent(STALE_CHANGED)} changed or more than {_percent(STALE_NEW)} new, ageing is between."
        )

    def _images(self) -> str:
        if self.reimaged is None:
            return f"images {NOT_CHECKED}"
        rest = f" and {self.unchecked:,} images {NOT_CHECKED}" if self.unchecked else ""
        return f"{self.reimaged:,} with other bytes{rest}"

    @property
    def counts(self) -> dict[str, int | str]:
        """All counts by name; where no bytes were looked at, that of other bytes says so."""
        names = ("used", "changed", "deleted", "relabelled", "unlabelled", "moved", "reimaged", "unchecked")
        counts = {name: getattr(self, name) for name in (*names, "unreadable", "new")}
        return {name: NOT_CHECKED if count is None else count for name, count in counts.items()}


def used(rows: pa.Table) -> pa.Table:
    """The rows of a manifest that were used.

    Raises:
        StorageError: there is none, or the manifest is damaged
    """
    return rows.filter(_was_used(rows))


def compare(rows: pa.Table, now: pa.Table, classes: Sequence[str]) -> Drift:
    """Compares a version's manifest with the samples as they are now.

    A row that was left out in training counts as new once it has another label, or another split, than it had then.

    Args:
        rows: of the manifest, as `manifest.read` gives them
        now: a row for each sample of the manifest that is still there, and for each with a label of the classes:
            dataset_id, sample_id, label and split (null where there is none), and, as far as bytes were looked at,
            sha256 (null where not) and the boolean unreadable; either column may be missing
        classes: of the version

    Raises:
        InputError: a sample stands twice in `now`, or a column is missing
        StorageError: the manifest has no row that was used, or is damaged
    """
    then, left_out = _then(rows)
    now = _now(now)
    both = then.join(now, KEY, join_type="left outer", right_suffix="_now")
    if both.num_rows != then.num_rows:
        raise InputError("A sample stands twice among the samples of now: read each dataset once.")
    there = pc.is_valid(both["label_now"])
    looked = pc.and_(pc.is_valid(both["sha256"]), pc.is_valid(both["sha256_now"]))
    unreadable = pc.fill_null(both["unreadable"], False)
    deleted = pc.invert(there)
    relabelled, moved, reimaged = (_other(both[name], both[f"{name}_now"]) for name in ("label", "split", "sha256"))
    new = _new(now, then, left_out, classes)
    return Drift(
        used=then.num_rows,
        deleted=_count(deleted),
        relabelled=_count(relabelled),
        unlabelled=_count(pc.and_(relabelled, pc.equal(both["label_now"], ""))),
        moved=_count(moved),
        reimaged=_count(reimaged) if _count(looked) else None,
        unchecked=_count(pc.and_not(pc.and_not(there, looked), unreadable)),
        unreadable=_count(unreadable),
        changed=_count(pc.or_(pc.or_(deleted, relabelled), reimaged)),
        new=new.num_rows,
        labels=_changes(both["label"], both["label_now"], relabelled, NO_LABEL),
        splits=_changes(both["split"], both["split_now"], moved, NO_SPLIT),
        classes=_by_class(
            classes,
            {
                "used": both["label"],
                "deleted": both["label"].filter(deleted),
                "relabelled from": both["label"].filter(relabelled),
                "relabelled to": both["label_now"].filter(relabelled),
                "other bytes": both["label"].filter(reimaged),
                "new": new["label"],
            },
        ),
        marks=_marks(both.filter(there), {"relabelled": relabelled, "moved": moved, "reimaged": reimaged}, there, new),
    )


def _was_used(rows: pa.Table) -> pa.ChunkedArray:
    try:
        which = rows["used"].cast(pa.bool_()) if "used" in rows.column_names else _same(True, rows.num_rows)
    except pa.ArrowException as error:
        raise _damaged(error) from None
    which = pc.fill_null(which, False)
    if not _count(which):
        raise StorageError("The manifest of the version has no row that was used: verify the version.")
    return which


def _then(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of a manifest that were used, and those that were left out."""
    which = _was_used(rows)
    try:
        plain = _texts(rows, ("label", "split"), ("sha256",))
    except (KeyError, pa.ArrowException) as error:
        raise _damaged(error) from None
    return plain.filter(which), plain.filter(pc.invert(which)).select([*KEY, "label", "split"])


def _damaged(error: Exception) -> StorageError:
    return StorageError(f"The manifest of the version is damaged ({error}): fetch it again, or verify the version.")


def _now(now: pa.Table) -> pa.Table:
    if missing := [name for name in (*KEY, "label", "split") if name not in now.column_names]:
        raise InputError(f"The samples of now have no {', '.join(missing)}.")
    sha256 = now["sha256"] if "sha256" in now.column_names else pa.nulls(now.num_rows, pa.string())
    unreadable = now["unreadable"] if "unreadable" in now.column_names else _same(False, now.num_rows)
    plain = _texts(now, ("label", "split"), ())
    return plain.append_column("sha256", sha256.cast(pa.string())).append_column("unreadable", unreadable)


def _texts(rows: pa.Table, filled: Sequence[str], nullable: Sequence[str]) -> pa.Table:
    """The key and the named columns as strings; in those to be filled, null becomes empty."""
    columns = {name: rows[name].cast(pa.string()) for name in (*KEY, *filled, *nullable)}
    return pa.table({name: pc.fill_null(c, "") if name in filled else c for name, c in columns.items()})


def _same(value: bool, count: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(value, count)], pa.bool_())


def _other(then: pa.ChunkedArray, now: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether two values are there and differ."""
    return pc.fill_null(pc.not_equal(then, now), False)


def _count(which: pa.ChunkedArray) -> int:
    return pc.sum(which).as_py() or 0


def _new(now: pa.Table, then: pa.Table, left_out: pa.Table, classes: Sequence[str]) -> pa.Table:
    """The ROIs of the classes that were not used, and were not left out just as they are now."""
    of_classes = pc.is_in(now["label"], value_set=pa.array(list(classes), pa.string()))
    others = now.select([*KEY, "label", "split"]).filter(of_classes).join(then.select(KEY), KEY, join_type="left anti")
    as_they_are = others.join(left_out, KEY, join_type="inner", right_suffix="_then")
    alike = pc.and_(
        pc.equal(as_they_are["label"], as_they_are["label_then"]),
        pc.equal(as_they_are["split"], as_they_are["split_then"]),
    )
    return others.join(as_they_are.filter(alike).select(KEY), KEY, join_type="left anti")


def _changes(then: pa.ChunkedArray, now: pa.ChunkedArray, which: pa.ChunkedArray, nothing: str) -> list[dict[str, Any]]:
    """How often what became what, the most frequent first."""
    pairs = pa.table({"old": then.filter(which), "new": now.filter(which)}).group_by(["old", "new"])
    found = pairs.aggregate([([], "count_all")]).to_pylist()
    rows = [{"old": r["old"] or nothing, "new": r["new"] or nothing, "ROIs": r["count_all"]} for r in found]
    return sorted(rows, key=lambda row: (-row["ROIs"], row["old"], row["new"]))


def _by_class(classes: Sequence[str], labels: Mapping[str, pa.ChunkedArray]) -> list[dict[str, Any]]:
    """A row for each class: how often it is among each of the labels."""
    counts = {
        what: {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}
        for what, column in labels.items()
    }
    return [{"class": label, **{what: found.get(label, 0) for what, found in counts.items()}} for label in classes]


def _marks(seen: pa.Table, flags: Mapping[str, pa.ChunkedArray], there: pa.ChunkedArray, new: pa.Table) -> pa.Table:
    """What is to be said of each sample, see `Drift.marks`."""
    used = seen.select([*KEY, "split"])
    for name in FLAGS:
        used = used.append_column(name, flags[name].filter(there) if name in flags else _same(False, used.num_rows))
    fresh = new.select(KEY).append_column("split", pa.nulls(new.num_rows, pa.string()))
    for name in FLAGS:
        fresh = fresh.append_column(name, _same(name == "new", new.num_rows))
    return pa.concat_tables([used, fresh])


def _percent(share: float) -> str:
    return f"{100 * share:,.2f}".rstrip("0").rstrip(".") + " %"
