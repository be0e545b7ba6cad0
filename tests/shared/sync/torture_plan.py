"""What happens in a schedule of the torture test: all of it follows from the seed."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from typing import NamedTuple

from tests.shared.sync.torture_syncer import Doom, Roi
from tests.shared.sync.trouble import FIND, UPDATE

NAMES = ["Calanus", "Metridia", '{"$ne": null}', "$label", "fecal/pellet ü", "cafe\u0301, 'x' 100%\t"]
FORBIDDEN = "=not, 'now'"  # a name, which a rule of the store forbids at times
NAMES.append(FORBIDDEN)
STRANGE = "Outside's own $name"  # in no vocabulary
JOURNAL = b"mbari_journal\x00"
# Faults that a proxy keeps ready for the next request that they fit: proxy, what is lost, of which requests.
READY = [
    ("store", "answer", UPDATE),
    ("store", "answer", UPDATE),
    ("store", "request", UPDATE),
    ("store", "answer", FIND),
    ("home", "answer", JOURNAL),
    ("home", "answer", UPDATE),
]


class Jolt(NamedTuple):
    """What happens so many seconds after a run began, and for how long."""

    after: float
    what: str  # "kill", "cut", "cut home", "refuse", "slow", "forbid"
    length: float


class Run(NamedTuple):
    """One run of a syncer, and what befalls it."""

    pause: float
    operator: str
    on_conflict: str
    doom: Doom | None
    ready: tuple[tuple[str, str, bytes], ...]
    jolts: tuple[Jolt, ...]


class Edit(NamedTuple):
    """What the outside editor does after a pause: "put back" what a run wrote, "change", "agree" or "delete"."""

    pause: float
    what: str
    pick: float  # which of the records that it could be, from 0 to 1
    label: str | None


@dataclass(frozen=True)
class Schedule:
    """Everything that a seed decides."""

    seed: int
    rois: list[Roi]
    pull: bool
    chunk: int
    syncers: list[list[Run]]
    edits: list[Edit]


def schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    draw = random.Random(seed)
    pull = draw.random() < 0.75
    rois = [_roi(draw, f"e{n}", pull) for n in range(draw.randint(8, 16))]
    syncers = [[_run(draw) for _ in range(draw.randint(1, 3))] for _ in range(2)]
    whats = ["put back", "put back", "change", "agree", "delete"]
    edits = [
        Edit(draw.expovariate(4), draw.choices(whats, (4, 4, 6, 2, 0.5))[0], draw.random(), _outside(draw))
        for _ in range(draw.randint(0, 14))
    ]
    return Schedule(seed, rois, pull, draw.choice([1, 2, 3, 5, 1000]), syncers, edits)


def _roi(draw: random.Random, source: str, pull: bool) -> Roi:
    label = draw.choice([*NAMES, None])
    if draw.random() < 0.2:
        return Roi(source, label, None, "", 1)
    wanted = draw.choice([name for name in (*NAMES, FORBIDDEN) if name != label])
    # Without a pull nobody knows what an edited label should replace.
    how = draw.choices(["tag", "label tag", "marker", "applied", "two"], (6, 2, 3 * pull, 3, 0.5))[0]
    if how == "label tag" and label is None:
        how = "tag"
    return Roi(source, label, wanted, how, draw.choices([1, 0, 2], (20, 1, 1))[0])


def _outside(draw: random.Random) -> str | None:
    return draw.choice([*NAMES, STRANGE, None])


def _run(draw: random.Random) -> Run:
    doom = None
    if draw.random() < 0.6:
        deadly = signal.SIGKILL if draw.random() < 0.65 else signal.SIGSTOP
        doom = Doom(draw.randint(1, 16), draw.random() < 0.5, deadly)
    ready = tuple(draw.choice(READY) for _ in range(draw.choice([0, 0, 1, 2])))
    jolts = tuple(_jolt(draw) for _ in range(draw.choice([0, 1, 2])))
    operator = "apply_corrections" if draw.random() < 0.1 else "sync_back"
    conflict = draw.choices(["skip", "theirs", "fail"], (5, 3, 1))[0]
    return Run(draw.expovariate(3), operator, conflict, doom, ready, jolts)


def _jolt(draw: random.Random) -> Jolt:
    what = draw.choice(["kill", "cut", "cut home", "refuse", "slow", "forbid"])
    if what == "forbid":
        return Jolt(0.0, what, draw.uniform(2.0, 5.0))
    return Jolt(draw.uniform(0.1, 0.9), what, draw.uniform(0.1, 2.5))
