"""Moving an alias to a version through gates: what is looked at, measured and decided; without FiftyOne."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..artifacts import Artifacts
from ..errors import InputError, StorageError, SuiteError
from ..lineage import gates, notes
from ..lineage.gates import Gate
from ..lineage.registry import AliasChange, Registry, VersionRecord
from ..lineage.schema import Card
from ..runs import Monitor
from . import ancestry, comparing, verifying
from .ancestry import Seen
from .comparing import Measured, Read, Rows, Together

T = TypeVar("T")


@dataclass(frozen=True)
class Golden:
    """Samples chosen by hand.

    Attributes:
        name: of the saved view or tag that selects them
        rows: n samples, with an empty label where there is none
        must: which of them are tagged must-pass, bool (n,)
    """

    name: str
    rows: Rows
    must: np.ndarray


@dataclass(frozen=True)
class Bounds:
    """What the gates ask for; the fields are parameters of `promote_model`."""

    golden_accuracy: float = 0.8
    margin: float = 0.02
    max_mix_change: float = 0.1

    def loosened(self) -> list[str]:
        """The bounds that ask for less than usual, such as "golden accuracy 0.6 (usually 0.8)"."""
        usual = Bounds()
        looser = {
            "golden accuracy": (
                self.golden_accuracy,
                usual.golden_accuracy,
                self.golden_accuracy < usual.golden_accuracy,
            ),
            "margin": (self.margin, usual.margin, self.margin > usual.margin),
            "change of mix": (self.max_mix_change, usual.max_mix_change, self.max_mix_change > usual.max_mix_change),
        }
        return [f"{name} {own:g} (usually {by:g})" for name, (own, by, is_looser) in looser.items() if is_looser]


@dataclass(frozen=True)
class Wish:
    """What somebody wants: that `alias` stands for `record` from now on.

    Attributes:
        record: the version
        alias: the alias of its model
        by: who wants it
        reason: why
        run_id: the run that does it
        force: whether it is to move although gates fail
    """

    record: VersionRecord
    alias: str
    by: str | None = None
    reason: str | None = None
    run_id: str | None = None
    force: bool = False

    @property
    def name(self) -> str:
        """`<model>@<alias>`."""
        return f"{self.record.model}@{self.alias}"


@dataclass(frozen=True)
class Where:
    """What a promotion reads from and writes to.

    Attributes:
        registry: of the versions and aliases
        root: the artifact root
        read: bytes of a path or URI
        folder: for files that are fetched
        monitor: progress, and whether to stop
    """

    registry: Registry
    root: Artifacts
    read: Read
    folder: Path
    monitor: Monitor = field(default_factory=Monitor)


@dataclass(frozen=True)
class Promotion:
    """What came of it.

    Attributes:
        gates: all of them, in order; none where there was nothing to ask
        holder: the version that held the alias at the start, "" if none did
        change: the move as the alias's history keeps it, None where it did not move
        why_not: a sentence on why it did not move
        left_out: a sentence on fresh samples that were left out
    """

    gates: list[Gate]
    holder: str
    change: AliasChange | None = None
    why_not: str = ""
    left_out: str = ""

    @property
    def failed(self) -> list[str]:
        """The names of the gates that did not pass."""
        return [gate.name for gate in self.gates if not gate.passed]


def promote(wish: Wish, fresh: Rows, golden: Golden, bounds: Bounds, where: Where) -> Promotion:
    """Asks every gate, and moves the alias if all pass, or if it is forced.

    The alias moves only from the version that held it at the start, with which the gates compared: if somebody else
    moves it meanwhile, it stays as they left it.

    Args:
        wish: what is wanted
        fresh: labelled samples to compare with the present holder on
        golden: the golden set
        bounds: what the gates ask for
        where: what is read and written
    """
    version = where.registry.aliases(wish.record.model).get(wish.alias)
    holder = f"{wish.record.model}/{version}" if version else ""
    if holder == wish.record.name:
        return Promotion([], holder, why_not=f"{wish.name} stands for {holder} already: there is nothing to move.")
    evidence = _gather(wish.record, holder, fresh, golden, where)
    if evidence is None:
        return Promotion([], holder, why_not="It was stopped before all gates were asked: the alias was not moved.")
    asked = _ask(wish.record, holder, golden, bounds, evidence, where)
    left_out = evidence.left_out()
    failed = [gate.name for gate in asked if not gate.passed]
    if evidence.problem:
        return Promotion(asked, holder, None, f"{wish.record.name} cannot be applied: {evidence.problem}", left_out)
    if failed and not wish.force:
        return Promotion(asked, holder, None, f"It does not pass: {', '.join(failed)}.", left_out)
    try:
        change = where.registry.set_alias(
            wish.record.model,
            wish.alias,
            wish.record.version,
            by=wish.by,
            reason=wish.reason,
            run_id=wish.run_id,
            expected=version,
            kind="promote",
            forced=bool(failed),
            loosened=bounds.loosened(),
            gates=[gate.row() for gate in asked],
        )
    except InputError as error:  # somebody else was faster
        return Promotion(asked, holder, None, str(error), left_out)
    return Promotion(asked, holder, change, left_out=left_out)


@dataclass(frozen=True)
class _Evidence:
    """What the gates are asked with.

    Attributes:
        known: what the version has learned from
        golden: its predictions for the golden set, None where it could not be applied
        problem: why not
        both: its predictions and the holder's for the fresh samples, None where there is no holder, or a problem
        holder_problem: why the holder could not be compared with
        holder_unknown: sentences on training data of the holder that are not known
    """

    known: Seen
    golden: Measured | None = None
    problem: str = ""
    both: Together | None = None
    holder_problem: str = ""
    holder_unknown: tuple[str, ...] = ()

    def left_out(self) -> str:
        """A sentence on fresh samples that were left out."""
        # Fresh samples that the holder alone may have learned from would only help the holder.
        said = self.both.left_out().replace("Left out:", "Fresh samples left out:") if self.both else ""
        return " ".join([said, *self.holder_unknown]).strip()


def _gather(record: VersionRecord, holder: str, fresh: Rows, golden: Golden, where: Where) -> _Evidence | None:
    """Looks up and measures what the gates need; None if somebody asked for an end."""
    where.monitor.progress(0, 0, "Looking up what the versions were trained on")
    known = ancestry.seen([record], where.registry, where.root, where.folder)
    measured, problem = _attempt(
        lambda: comparing.measure(record, golden.rows.uris, where.read, where.root, where.folder, where.monitor)
    )
    if measured is None:
        return _Evidence(known, problem=problem, holder_problem=problem)
    if measured.stopped or where.monitor.stopping():
        return None
    if not holder:
        return _Evidence(known, measured)
    present, problem = _attempt(lambda: where.registry.resolve(holder))
    if present is None:
        return _Evidence(known, measured, holder_problem=problem)
    of_holder = ancestry.seen([present], where.registry, where.root, where.folder)
    both, problem = _attempt(
        lambda: comparing.together(
            [present, record],
            fresh,
            known.with_(of_holder),
            where.read,
            where.root,
            where.folder,
            where.monitor,
        )
    )
    if both is not None and both.stopped:
        return None
    unknown = tuple(said for said in of_holder.unknown if said not in known.unknown)
    return _Evidence(known, measured, both=both, holder_problem=problem, holder_unknown=unknown)


def _ask(
    record: VersionRecord, holder: str, golden: Golden, bounds: Bounds, evidence: _Evidence, where: Where
) -> list[Gate]:
    """Every gate, in the order in which people read them."""
    return [
        _golden_set(golden, bounds, evidence),
        *_beside_the_holder(holder, bounds, evidence),
        _no_training_sample(golden, evidence),
        _card_complete(record, where),
        _weights_verified(record, where),
    ]


def _golden_set(golden: Golden, bounds: Bounds, evidence: _Evidence) -> Gate:
    predicted = evidence.golden.labels() if evidence.golden else []
    right = np.array([label == own for label, own in zip(golden.rows.labels, predicted, strict=False)], bool)
    gate = gates.golden_set(
        golden.name,
        right,
        golden.must[: len(right)],
        bounds.golden_accuracy,
        unlabelled=sum(not label for label in golden.rows.labels),
        unreadable=len(evidence.golden.unreadable) if evidence.golden else 0,
    )
    return gates.unchecked(gate, evidence.problem) if evidence.problem else gate


def _beside_the_holder(holder: str, bounds: Bounds, evidence: _Evidence) -> list[Gate]:
    """Whether it is worse than the present holder, and how far its class mix is from the holder's."""
    difference, n, mixes = None, 0, [Counter[str](), Counter[str]()]
    if evidence.both is not None and len(evidence.both.rows):
        n = len(evidence.both.rows)
        compared = comparing.compare(evidence.both.rows, evidence.both.measured)
        difference = compared.differences[0]
        mixes = [Counter(label for label in one.labels() if label is not None) for one in evidence.both.measured]
    theirs, mine = mixes
    asked = [
        gates.not_worse(difference, n, bounds.margin, holder),
        gates.class_mix(mine, theirs, bounds.max_mix_change, holder),
    ]
    if holder and evidence.holder_problem:
        return [gates.unchecked(gate, evidence.holder_problem) for gate in asked]
    return asked


def _no_training_sample(golden: Golden, evidence: _Evidence) -> Gate:
    known, rows = evidence.known, golden.rows
    trained_on = known.by_id(rows.dataset_id, rows.ids)
    if evidence.golden is not None:
        trained_on |= known.by_bytes(evidence.golden.hashes)
    gate = gates.no_training_sample(int(trained_on.sum()), known.versions, known.unknown, evidence.left_out())
    return gates.unchecked(gate, evidence.problem) if evidence.problem and gate.passed else gate


def _card_complete(record: VersionRecord, where: Where) -> Gate:
    card, why_not = _attempt(lambda: _card(record, where))
    written, problem = _attempt(lambda: notes.read(where.root, record.name))
    gate = gates.card_complete(card, written or [], why_not)
    return gates.unchecked(gate, problem) if problem else gate


def _card(record: VersionRecord, where: Where) -> Card:
    name = "card.json"
    if name not in record.files:
        raise StorageError("It was published before there were cards: train it again.")
    path = where.root.fetch(record.key, {name: record.files[name]}, where.folder / "cards" / record.name) / name
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValueError:
        raise StorageError("Its card cannot be read: it was written by another program.") from None


def _weights_verified(record: VersionRecord, where: Where) -> Gate:
    where.monitor.progress(0, 0, f"Verifying {record.name}")
    checks, problem = _attempt(lambda: verifying.verify(record, where.root, where.folder / "verified"))
    # A newer release may word a card otherwise: that the file is the published one is checked all the same.
    unworded = [c for c in checks or [] if (c.what, c.state) != (verifying.CARD_TEXT, verifying.UNCHECKED)]
    gate = gates.weights_verified(unworded)
    return gates.unchecked(gate, problem) if problem else gate


def _attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """What some work gives, or None and why it could not be done: a gate says so, and the others are asked still."""
    try:
        return work(), ""
    except SuiteError as error:
        return None, str(error)
