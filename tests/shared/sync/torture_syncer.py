"""One syncer of the torture test: a process of its own that runs the real operators, and may die at a chosen command.

The fork server has imported FiftyOne and the plugins (`torture_warm`), so a process that is to be killed costs
milliseconds to start. This module imports neither: who only tells the syncers what to do needs none of it.
"""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pymongo import monitoring

PLUGIN = "@mbari/sync_back"
LEASE = 2.0  # seconds; the real one is of 30
PATIENCE = 3.0  # seconds for which a store is asked what it holds; really 60

# The commands at which a syncer can be stopped or killed: its writes to journal, lease, store and samples.
WRITES = {"insert", "update"}
WRITTEN = ("mbari_journal", "mbari_leases", "rois", "samples.")
HTTP = -1  # stands for the number of a request that is none of pymongo's
OTHERS = ("lease-", "run-")  # threads that are none of the run's work


class Home(NamedTuple):
    """Where a syncer finds its databases.

    Attributes:
        uri: FiftyOne's own
        store: the label store, as the secret names it
        log: gets what the process says
        token: of the label store
    """

    uri: str
    store: str
    log: Path
    token: str | None = None


class Doom(NamedTuple):
    """A signal that the process sends itself right before its nth write, or right after that was answered.

    A stop waits for the next write where it would come between a look at lease or journal and the write to store or
    samples that follows: a run that hangs there for longer than its lease may write what is out of date.
    """

    write: int
    after: bool
    signal: int


class Roi(NamedTuple):
    """One sample, its record in the store, and what a person does to it.

    Attributes:
        source: the id in the store
        label: what both say at first; None is no label
        wanted: the correction; None where there is none
        how: the correction is a "tag", a "label tag", an edit with the "marker", "applied", or "two" that disagree
        records: how many the store has of this id
    """

    source: str
    label: str | None
    wanted: str | None
    how: str
    records: int


class _Doomed(monitoring.CommandListener):
    def __init__(self, doom: Doom) -> None:
        self._doom = doom
        self._writes = 0
        self._met = False
        self._lock = threading.Lock()
        self._request: int | None = None

    def started(self, event: Any) -> None:
        if event.command_name not in WRITES or threading.current_thread().name.startswith(OTHERS):
            return
        collection = str(event.command[event.command_name])
        if collection.startswith(WRITTEN):
            self.begins(collection, event.request_id)

    def begins(self, collection: str, request: int) -> None:
        """One of the writes is about to be made."""
        with self._lock:
            self._writes += 1
            due = self._writes >= self._doom.write and not self._met and not self._spared(collection)
            self._met |= due
        if due:
            if self._doom.after:
                self._request = request
            else:
                self._meet()

    def _spared(self, collection: str) -> bool:
        """Whether a stop here would come between a look at who is in charge and the write: no lease can help that."""
        looked = ("mbari_leases", "mbari_journal") if self._doom.after else ("rois", "samples.")
        return self._doom.signal == signal.SIGSTOP and collection.startswith(looked)

    def succeeded(self, event: Any) -> None:
        self.ended(event.request_id)

    def ended(self, request: int) -> None:
        """A write was answered, or failed."""
        if request == self._request:
            self._request = None
            self._meet()

    def watch(self, api: Any) -> None:
        """Has the requests that write over HTTP counted as well; of the class that makes them."""
        send = api._send

        def watched(this: Any, method: str, *request: Any) -> Any:
            if method != "PATCH":
                return send(this, method, *request)
            self.begins("rois", HTTP)
            try:
                return send(this, method, *request)
            finally:
                self.ended(HTTP)

        api._send = watched

    def _meet(self) -> None:
        # To this thread, which so gets no further; one to the process may reach another first.
        signal.pthread_kill(threading.get_ident(), self._doom.signal)

    def failed(self, event: Any) -> None:
        self.succeeded(event)


def make(home: Home, name: str, rois: Sequence[Roi], names: Sequence[str], pull: bool) -> None:
    """Makes the dataset: the samples, their stored labels and their corrections, each as a person would."""
    import fiftyone as fo

    from tests.worker import delegate, result

    _enter(home)
    dataset = fo.Dataset(name, persistent=True)
    dataset.classes["ground_truth"] = list(names)
    dataset.save()
    dataset.add_samples(
        [
            fo.Sample(
                filepath=f"/rois/{name}/{roi.source}.png",
                elemental_id=roi.source,
                ground_truth=fo.Classification(label=roi.label) if roi.label is not None else None,
            )
            for roi in rois
        ],
        progress=False,
    )
    if pull:
        result(delegate(f"{PLUGIN}/pull_labels", dataset, apply=True))
        dataset.reload()
    applied = []
    for sample, roi in zip(dataset.iter_samples(autosave=True), rois, strict=True):
        if roi.how == "marker":
            sample["ground_truth"] = fo.Classification(label=roi.wanted)
            sample.tags = ["needs-sync"]
        elif roi.how == "label tag":
            sample["ground_truth"].tags = [roi.wanted]
        elif roi.how == "two":
            sample.tags = [next(n for n in names if n not in (roi.label, roi.wanted)), roi.wanted]
        elif roi.wanted is not None:
            sample.tags = [roi.wanted]
            applied += [sample.id] if roi.how == "applied" else []
    if applied:
        result(delegate(f"{PLUGIN}/apply_corrections", dataset, dataset.select(applied)))


def run(home: Home, name: str, operator: str, doom: Doom | None = None, **params: Any) -> None:
    """Runs an operator on the whole dataset as FiftyOne's worker does."""
    import fiftyone as fo

    from tests.worker import delegate

    _enter(home, doom)
    delegate(f"{PLUGIN}/{operator}", fo.load_dataset(name), **params)


def remove(home: Home, name: str) -> None:
    """Deletes the dataset."""
    import fiftyone as fo

    _enter(home)
    fo.delete_dataset(name)


def _enter(home: Home, doom: Doom | None = None) -> None:
    """Says where everything is, and makes time pass faster for the suite."""
    import fiftyone as fo

    log = os.open(home.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    doomed = None if doom is None else _Doomed(doom)
    if doomed is not None:
        monitoring.register(doomed)
    fo.config.database_uri = home.uri
    os.environ["MBARI_LABEL_STORE"] = home.store
    for secret in ("MBARI_LABEL_STORE_TOKEN", "MBARI_VOCABULARY", "MBARI_ARTIFACTS"):
        os.environ.pop(secret, None)
    if home.token is not None:
        os.environ["MBARI_LABEL_STORE_TOKEN"] = home.token
    loaded = {module: sys.modules[module] for module in sys.modules if ".sync_back.shared.sync." in module}
    (lease,) = (module for name, module in loaded.items() if name.endswith(".sync.lease"))
    (send,) = (module for name, module in loaded.items() if name.endswith(".sync.send"))
    if doomed is not None and home.store.startswith("tator"):
        doomed.watch(importlib.import_module(f"{lease.__name__.removesuffix('lease')}stores.tator_api").Api)
    lease.Lease.__init__.__defaults__ = (LEASE,)
    send.send.__kwdefaults__["patience"] = PATIENCE
    send.recover.__defaults__ = (None, PATIENCE)
