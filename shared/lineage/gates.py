"""What a version must show before an alias moves to it; each gate with its figure, its bound and what to do.

A gate that cannot be checked fails: nobody has seen then that it would pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .schema import Card

FEWEST = 30  # samples from which two versions can be told apart at all
NOT_CHECKED = "not checked"
REPRODUCED = "reproduced"  # the state of a check that found what the record says


@dataclass(frozen=True)
class Gate:
    """One gate: what was measured, what it must be, and in a sentence why it passed or not."""

    name: str
    passed: bool
    figure: str
    bound: str
    why: str

    def row(self) -> dict[str, Any]:
        """The gate as a row of a table, as an alias's history keeps it."""
        return asdict(self)


class Said(Protocol):
    """What a person wrote about a version, see `notes.Note`."""

    @property
    def intended_use(self) -> Any:
        """What it is for."""

    @property
    def limitations(self) -> Any:
        """What it is not for."""


class Checked(Protocol):
    """One finding about the stored files, see `verifying.Check`."""

    @property
    def what(self) -> str:
        """What was looked at."""

    @property
    def state(self) -> str:
        """`reproduced`, or what else."""

    @property
    def detail(self) -> str:
        """What was found."""


def golden_set(
    name: str, right: np.ndarray, must: np.ndarray, bound: float, *, unlabelled: int = 0, unreadable: int = 0
) -> Gate:
    """Samples chosen by hand: every must-pass one right, and enough of all.

    Args:
        name: of the saved view or tag that selects them
        right: whether the prediction is the label, (n,), bool; without a label or a readable image it is not
        must: which are tagged must-pass, (n,), bool
        bound: the accuracy that it takes, 0 to 1
        unlabelled: how many have no label
        unreadable: how many could not be read
    """
    right, must = np.asarray(right, bool), np.asarray(must, bool)
    what, least = "Golden set", f"accuracy at least {bound:g}, every must-pass sample right"
    if not len(right):
        why = (
            f"There are no golden samples: save a view {name!r}, or tag samples {name!r}, whose labels are beyond "
            "doubt, or name another view or tag."
        )
        return Gate(what, False, NOT_CHECKED, least, why)
    accuracy, wrong = float(right.mean()), int((must & ~right).sum())
    figure = f"{accuracy:.3f} ({right.sum():,} of {len(right):,}); must-pass {(must & right).sum():,} of {must.sum():,}"
    said = []
    if wrong:
        said.append(f"{wrong:,} of {must.sum():,} must-pass samples are wrong.")
    if accuracy < bound:
        said.append(f"{(~right).sum():,} of {len(right):,} golden samples are wrong.")
    if unlabelled:
        said.append(f"{unlabelled:,} have no label, which counts as wrong.")
    if unreadable:
        said.append(f"{unreadable:,} could not be read, which counts as wrong.")
    return Gate(what, not wrong and accuracy >= bound, figure, least, " ".join(said) or "As it should be.")


def not_worse(difference: Mapping[str, tuple[float, float, float]] | None, n: int, margin: float, holder: str) -> Gate:
    """On fresh samples the version is no worse than the present holder of the alias.

    Args:
        difference: of `top1` and `macro_f1`, the version's less the holder's, with its paired 95% interval
            (see `intervals.paired`); None where nobody holds the alias, or nothing was measured
        n: samples that both were measured on
        margin: how far below zero the lower ends may be
        holder: the version that holds the alias; empty if none does
    """
    what, least = "Not worse than the present holder", f"lower ends at least {-margin:+g}, of {FEWEST} samples or more"
    if not holder:
        return Gate(
            what, True, "no holder", least, "No version holds the alias yet: there is nothing to be worse than."
        )
    if difference is None or n < FEWEST:
        return Gate(what, False, NOT_CHECKED, least, _too_few(n))
    named = {"top-1": difference["top1"], "macro F1": difference["macro_f1"]}
    figure = "; ".join(f"{name} {mid:+.3f} ({low:+.3f} to {high:+.3f})" for name, (mid, low, high) in named.items())
    worse = [name for name, (_, low, _) in named.items() if low < -margin]
    if not worse:
        return Gate(what, True, figure, least, f"Beside {holder}, on {n:,} fresh samples.")
    why = (
        f"On {n:,} fresh samples {' and '.join(worse)} may be lower than those of {holder} by more than "
        f"{margin:g}: train it better, or take more fresh labelled samples, which make the intervals narrower."
    )
    return Gate(what, False, figure, least, why)


def class_mix(mine: Mapping[str, int], theirs: Mapping[str, int], bound: float, holder: str) -> Gate:
    """The version's predictions have about the class mix of the present holder's on the same samples.

    The distance is the Jensen-Shannon divergence to base 2 (Lin 1991): 0 for equal mixes, 1 for mixes without a
    class in common.

    Args:
        mine: predictions of the version by class
        theirs: those of the holder
        bound: the largest divergence allowed
        holder: the version that holds the alias; empty if none does
    """
    what, most = "Class mix", f"divergence at most {bound:g}"
    if not holder:
        return Gate(what, True, "no holder", most, "No version holds the alias yet: there is nothing to differ from.")
    n = min(sum(mine.values()), sum(theirs.values()))
    if n < FEWEST:
        return Gate(what, False, NOT_CHECKED, most, _too_few(n))
    found = divergence(mine, theirs)
    before, after = ({c: n / sum(mix.values()) for c, n in mix.items()} for mix in (theirs, mine))
    shares = {c: after.get(c, 0) - before.get(c, 0) for c in {**before, **after}}
    most_changed = max(sorted(shares), key=lambda c: abs(shares[c]))
    why = f"The largest change from {holder} is {most_changed}: {100 * shares[most_changed]:+.1f} points."
    if found > bound:
        why += " Look at the samples that the two tell apart with 'Compare models'."
    return Gate(what, found <= bound, f"{found:.3f}", most, why)


def divergence(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """The Jensen-Shannon divergence to base 2 of two class mixes, given as counts above 0 in all; 0 to 1."""
    from scipy.spatial.distance import jensenshannon

    classes = sorted({*first, *second})
    counts = [np.array([mix.get(c, 0) for c in classes], float) for mix in (first, second)]
    # SciPy gives the distance, which is the root of the divergence; rounding may make it less than nothing.
    return float(np.nan_to_num(jensenshannon(*counts, base=2)) ** 2)


def no_training_sample(golden: int, known: Sequence[str], unknown: Sequence[str], left_out: str) -> Gate:
    """Nothing that the version learned from, or was chosen on, is in what it is judged by.

    Args:
        golden: golden samples that it, or a version it was fine-tuned from, was trained on
        known: the versions whose training data is known
        unknown: sentences on what is not known of it
        left_out: a sentence on fresh samples that were left out for this
    """
    what, bound = "No training sample in the evaluation", "0 golden samples, and all training data known"
    said = []
    if golden:
        said.append(f"{golden:,} golden samples were trained on: take them out of the golden set, or of the training.")
    said += unknown
    passed = not said
    if passed:
        said.append(f"Looked at: {', '.join(known)}.")
    figure = f"{golden:,} golden samples" + (f"; not all known ({len(unknown)})" if unknown else "")
    return Gate(what, passed, figure, bound, " ".join([*said, left_out]).strip())


def card_complete(card: Card | None, notes: Sequence[Said], why_not: str = "") -> Gate:
    """The version has a card, and a person has said what it is for and what not.

    Args:
        card: its `card.json`
        notes: what people wrote with `write_card`
        why_not: why there is no card, a sentence
    """
    what, bound = "Card complete", "card, intended use, limitations and an evaluation"
    missing = {
        "a card": card is None,
        "an evaluation on test or val": card is not None
        and not any(e.split in ("test", "val") and e.n for e in card.evaluation),
        "an intended use written by a person": not any(note.intended_use for note in notes),
        "limitations written by a person": not any(note.limitations for note in notes),
    }
    lacks = [name for name, is_missing in missing.items() if is_missing]
    if not lacks:
        return Gate(what, True, "complete", bound, "Everything is there.")
    said = [f"It has no {', no '.join(name.removeprefix('a ').removeprefix('an ') for name in lacks)}."]
    if why_not:
        said.append(why_not)
    if any("person" in name for name in lacks):
        said.append("Write it with 'Write card'.")
    return Gate(what, False, f"{len(missing) - len(lacks)} of {len(missing)}", bound, " ".join(said))


def weights_verified(checks: Sequence[Checked]) -> Gate:
    """The stored files are those that were published, and give the published figures."""
    what, bound = "Weights verified", "all reproduced"
    if not checks:
        return Gate(what, False, NOT_CHECKED, bound, "Nothing of it could be checked.")
    other = [check for check in checks if check.state != REPRODUCED]
    figure = f"{len(checks) - len(other)} of {len(checks)} reproduced"
    why = "; ".join(f"{check.what}: {check.state}" + (f" ({check.detail})" if check.detail else "") for check in other)
    return Gate(what, not other, figure, bound, why or "Hashes, digest and metrics are what its record says.")


def unchecked(gate: Gate, why: str) -> Gate:
    """The same gate where something kept it from being checked; it fails."""
    return replace(gate, passed=False, figure=NOT_CHECKED, why=why)


def _too_few(n: int) -> str:
    return f"Only {n:,} fresh labelled samples are left, and it takes {FEWEST}: choose a target with more."
