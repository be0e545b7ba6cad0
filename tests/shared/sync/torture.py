"""The torture test: schedules of two syncers and one outside editor, with everything that can go wrong on the way.

A schedule follows from its seed: the labels and their corrections, the runs of each syncer, where each is killed or
stopped for longer than its lease, which answers get lost, when connections break and when the store refuses. What
the threads and processes then make of it differs a little from time to time. Once all trouble is over one more sync
runs to its end, and `torture_check` compares what everybody said with what happened.

    python -m tests.shared.sync.torture --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pprint
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient

from tests.shared.sync import torture_syncer as syncer
from tests.shared.sync.torture_check import Happened, check
from tests.shared.sync.torture_plan import NAMES, Jolt, Run, Schedule, schedule
from tests.shared.sync.torture_stores import MongoSide, Side, TatorSide
from tests.shared.sync.torture_syncer import LEASE, Home
from tests.shared.sync.trouble import Proxy

ROOT = Path(__file__).resolve().parents[3]

LONGEST = 60.0  # seconds that one run may take
LURK = 1.5  # seconds for which the outside editor waits for something to put back

_processes = threading.Lock()


class _Proxy(Proxy):
    """Says what it dropped of each kind."""

    def __init__(self, host: str, port: int) -> None:
        self.dropped: Counter[str] = Counter()
        super().__init__(host, port)

    def _fault(self, request: bytes) -> str | None:
        kind = super()._fault(request)
        if kind is not None:
            self.dropped[kind] += 1
        return kind


@dataclass
class World:
    """What one schedule happens in.

    Attributes:
        plan: the schedule
        name: of the dataset, and in the name of the store
        home: FiftyOne's database
        store: the label store
        proxies: "store" and "home", in front of each
        folder: for the syncers' words
        faults: how many of each kind there were
    """

    plan: Schedule
    name: str
    home: Any
    store: Side
    proxies: dict[str, _Proxy]
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, fault: str) -> None:
        with self.lock:
            self.faults[fault] += 1

    @property
    def log(self) -> Path:
        return self.folder / f"{self.plan.seed}.log"

    def found(self) -> Home:
        """Where the syncers find everything: behind the proxies."""
        home, store = self.proxies["home"], self.proxies["store"]
        uri = self.store.uri(store.host, store.port, self.plan.chunk)
        return Home(f"mongodb://{home.host}:{home.port}/", uri, self.log, self.store.token)

    @property
    def named(self) -> dict[str, str]:
        """The query for the store's name in journal and leases."""
        return {"$regex": f"/{self.name}[.?]"}


@dataclass(frozen=True)
class Outcome:
    """What a schedule came to: how many faults of each kind there were, and what was wrong afterwards."""

    seed: int
    seconds: float
    faults: Counter[str]
    wrong: list[str]


def torture(
    seeds: Sequence[int],
    address: tuple[str, int],
    folder: Path,
    at_once: int = 4,
    told: Callable[[Outcome], None] = lambda _: None,
    kind: str = "mongodb",
) -> list[Outcome]:
    """Runs the schedules of these seeds, some at once.

    Args:
        seeds: one a schedule
        address: host and port of the MongoDB server that holds FiftyOne's database, and a MongoDB store
        folder: gets a log of each schedule that went wrong
        at_once: schedules under way at a time; each waits a lot, for leases to run out
        told: hears of each outcome
        kind: of store: "mongodb" or "tator"
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = []
    with MongoClient(*address, directConnection=True) as client, ThreadPoolExecutor(at_once) as pool:
        _start_server()
        for outcome in pool.map(lambda seed: _one(schedule(seed), client, folder, kind), seeds):
            told(outcome)
            outcomes.append(outcome)
    return outcomes


def _one(plan: Schedule, client: MongoClient, folder: Path, kind: str) -> Outcome:
    began = time.monotonic()
    name = f"mbari-torture-{plan.seed}-{uuid.uuid4().hex[:8]}"
    home = client[os.environ.get("FIFTYONE_DATABASE_NAME", "fiftyone")]
    with contextlib.ExitStack() as stack:
        store: Side = TatorSide(name) if kind == "tator" else MongoSide(client, name)
        stack.callback(store.close)
        proxies = {}
        for side, address in (("store", store.address), ("home", client.address)):
            proxies[side] = _Proxy(*address)
            stack.callback(proxies[side].close)
        world = World(store.planned(plan), name, home, store, proxies, folder)
        world.log.unlink(missing_ok=True)
        try:
            wrong = _tell(world)
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        finally:
            _clean(world)
    if wrong:
        again = f"python -m tests.shared.sync.torture --seed {plan.seed} --store {kind}"
        wrong = [f"seed {plan.seed}: {each} (again: {again}; see {world.log})" for each in wrong]
    else:
        world.log.unlink(missing_ok=True)
    return Outcome(plan.seed, time.monotonic() - began, world.faults, wrong)


def _tell(world: World) -> list[str]:
    """Runs the schedule; returns what is wrong afterwards."""
    plan = world.plan
    world.store.fill(plan.rois)
    _end(_start(syncer.make, world.found(), world.name, plan.rois, NAMES, plan.pull), LONGEST)
    samples = world.home[world.home["datasets"].find_one({"name": world.name})["sample_collection_name"]]
    before = {sample["elemental_id"]: sample for sample in samples.find()}

    with ThreadPoolExecutor(3) as pool:
        under_way = [pool.submit(_edit, world), *(pool.submit(_sync, world, runs) for runs in plan.syncers)]
    for each in under_way:
        each.result()
    for side, proxy in world.proxies.items():
        proxy.heal()
        for kind, count in proxy.dropped.items():
            world.faults[f"{kind} dropped, {side}"] += count
    world.store.forbid(False)
    ended = _start(syncer.run, world.found(), world.name, "sync_back", None, on_conflict="skip")
    _end(ended, LONGEST)

    runs = list(world.home["mbari_runs"].find({"dataset": world.name, "operator": {"$regex": "sync_back/sync_back$"}}))
    chunks = list(world.home["mbari_journal"].find({"store": world.named}))
    _figures(world, runs, chunks)
    happened = Happened(
        rois=plan.rois,
        before=before,
        after={sample["elemental_id"]: sample for sample in samples.find()},
        records=world.store.records(),
        buried=world.store.buried,
        edited=world.store.edited,
        runs=runs,
        chunks=chunks,
        traces=world.store.traces,
    )
    if wrong := check(happened):
        with world.log.open("a") as log:
            log.write(f"{plan}\n")
            pprint.pprint(happened, log, width=160)
    return wrong


def _figures(world: World, runs: Sequence[dict[str, Any]], chunks: Sequence[dict[str, Any]]) -> None:
    """Adds what only the records and the journal know."""
    outcomes = [outcome for chunk in chunks for outcome in chunk["outcomes"] or ()]
    failed = [run["error"]["message"] for run in runs if run["state"] == "failed"]
    world.faults.update(
        {
            "corrections": sum(roi.wanted is not None for roi in world.plan.rois),
            "runs": len(runs),
            "sent": sum(outcome["status"] == "updated" for outcome in outcomes),
            "outside edits": len(world.store.edited) + len(world.store.buried),
            "refused by a rule": sum(world.store.rule in outcome["reason"] for outcome in outcomes),
            "kept out by the lease": sum("is sending labels to the same store" in message for message in failed),
            "runs cut short": sum(run["state"] == "running" for run in runs),
        }
    )


# --- the syncers ---


def _sync(world: World, runs: Sequence[Run]) -> None:
    """One syncer: its runs one after the other, with what befalls each."""
    for run in runs:
        time.sleep(run.pause)
        for side, kind, holding in run.ready:
            proxy = world.proxies[side]
            holding = world.store.holding(holding) if side == "store" else holding
            (proxy.drop_answers if kind == "answer" else proxy.drop_requests)(1, holding=holding)
        params = {} if run.operator == "apply_corrections" else {"on_conflict": run.on_conflict}
        process = _start(syncer.run, world.found(), world.name, run.operator, run.doom, **params)
        due, undo = sorted(run.jolts), []
        began, resume = time.monotonic(), None
        while _alive(process):
            now = time.monotonic() - began
            while due and due[0].after <= now:
                jolt = due.pop(0)
                undo.append((now + jolt.length, _begin(world, jolt, process)))
            while undo and undo[0][0] <= now:
                undo.pop(0)[1]()
            if resume is None and _stopped(process.pid):
                world.count("stops")
                resume = now + LEASE * 2.5
            if resume is not None and resume <= now:
                os.kill(process.pid, signal.SIGCONT)
                resume = None
            if now > LONGEST:
                process.kill()
                raise TimeoutError("a run did not end")
            time.sleep(0.01)
        for _, end in undo:
            end()
        if process.exitcode == -signal.SIGKILL:
            world.count("kills")


def _stopped(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def _begin(world: World, jolt: Jolt, process: Any) -> Callable[[], None]:
    """Makes trouble; returns what ends it."""
    store, home = world.proxies["store"], world.proxies["home"]
    if jolt.what == "kill":  # counted once it is dead
        process.kill()
        return lambda: None
    world.count(jolt.what)
    if jolt.what == "cut":
        store.cut()
    elif jolt.what == "cut home":
        home.cut()
    elif jolt.what == "refuse":
        store.refuse()
        return store.accept
    elif jolt.what == "slow":
        store.delay(jolt.length / 5)
        return lambda: store.delay(0)
    elif jolt.what == "forbid":
        world.store.forbid(True)
        return lambda: world.store.forbid(False)
    return lambda: None


def _start_server() -> None:
    """Starts the fork server, which imports the suite once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.shared.sync.torture_warm"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the fork server's own path is that of a bare interpreter
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ.update({} if before is None else {"PYTHONPATH": before})


def _start(function: Callable, *args: Any, **params: Any) -> Any:
    process = multiprocessing.get_context("forkserver").Process(target=function, args=args, kwargs=params, daemon=True)
    with _processes:
        process.start()
    return process


def _alive(process: Any) -> bool:
    # Starting a process looks after all others too, and of two threads that ask for one's exit code one gets it.
    with _processes:
        return process.is_alive()


def _end(process: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while _alive(process) and time.monotonic() < until:
        time.sleep(0.01)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"an untroubled process ended with {process.exitcode}")


# --- the outside editor ---


def _edit(world: World) -> None:
    """Does to the store what the lab's other tools do: each edit atomic, and in the store's history."""
    single = {roi.source: roi for roi in world.plan.rois if roi.records == 1}
    for edit in world.plan.edits:
        time.sleep(edit.pause)
        world.store.edit(edit, single, time.monotonic() + LURK)


def _clean(world: World) -> None:
    dataset = world.home["datasets"].find_one({"name": world.name}) or {"_id": None}
    with contextlib.suppress(RuntimeError):
        _end(_start(syncer.remove, world.found(), world.name), LONGEST)
    for name, query in (
        ("delegated_ops", {"dataset_id": dataset["_id"]}),
        ("mbari_runs", {"dataset": world.name}),
        ("mbari_journal", {"store": world.named}),
        ("mbari_leases", {"_id": world.named}),
    ):
        world.home[name].delete_many(query)


def main() -> int:
    """Runs the schedules of some seeds, on FiftyOne's own MongoDB in a folder of its own."""
    from scripts import surroundings

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True, help="of the first schedule")
    parser.add_argument("--count", type=int, default=1, help="so many seeds from there")
    parser.add_argument("--times", type=int, default=1, help="each so often: threads and processes are not to order")
    parser.add_argument("--store", choices=("mongodb", "tator"), default="mongodb", help="the kind of label store")
    given = parser.parse_args()
    seeds = [given.seed + n for n in range(given.count) for _ in range(given.times)]
    folder = surroundings.BUILD / "torture"
    surroundings.prepare(folder)
    os.environ["FIFTYONE_PLUGINS_DIR"] = str(ROOT / "plugins")
    surroundings.own_database()
    import fiftyone.core.odm as odm

    outcomes = torture(seeds, odm.get_db_conn().client.address, folder, told=_print, kind=given.store)
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def _print(outcome: Outcome) -> None:
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(outcome.faults.items()) if count)
    print(f"seed {outcome.seed}, {outcome.seconds:.0f} s: {faults}", *outcome.wrong, sep="\n  ", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
