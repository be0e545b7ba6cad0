"""Corrections go to a label store: each exactly once or not at all, with an account that is true whatever happens.

For every chunk of changes, in this order: the journal has the intent, the lease is confirmed, the store is asked,
what became of each row is settled (by the number of matched records, else by reading back), the journal has the
outcomes, FiftyOne's samples follow (`apply`), the journal closes the chunk. A run that is killed between any two of
these steps leaves a chunk that `recover` finishes. A write is never repeated before its rows were read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ..errors import StorageError, SuiteError
from ..runs import Monitor
from .corrections import Correction, Status
from .journal import MOST_BYTES, Chunk, Journal, Outcome, Row, parts, size
from .lease import Lease
from .plan import Line
from .stores.base import Change, Found, SourceId, Stamp, Store, Unreachable, Written, said

PATIENCE = 60.0  # seconds for which a store that gives no answer is asked again what it holds
ROUNDS = 3  # times that a change is offered to a store that still holds the expected label
PAUSES = 0.2, 5.0  # seconds before the second try; at most

STOPPED = "stopped before it was sent"
NOT_SENT = "not sent: "  # and then why
UNKNOWN = "not known whether it was written, which the next run finds out: "  # and then why
TO_DO = "the run that was sending it ended before it was written: send it again"
BEHIND = "the store has it; the samples follow with the next run"
TOO_LONG = "the label is too long for the journal"

Apply = Callable[[Chunk], None]


def send(
    lines: Sequence[Line],
    store: Store,
    journal: Journal,
    lease: Lease,
    apply: Apply,
    *,
    run: str,
    by: str | None,
    dataset: str,
    label_field: str,
    how: str = "sync",
    monitor: Monitor | None = None,
    patience: float = PATIENCE,
) -> list[Line]:
    """Makes the changes of a plan, chunk by chunk, as far as the store takes them.

    Where the store or FiftyOne's database fails for good, or a stop is asked for, the rest is not sent and says so;
    nothing is raised, so that the account of what was done is not lost.

    Args:
        lines: the plan; only its UPDATE lines are sent
        store: where to
        journal: keeps intents and outcomes
        lease: on this store, held
        apply: makes the samples in FiftyOne say what a settled chunk's outcomes say; may be called twice for one
            chunk, by this run and by the one that finishes it, and must then do nothing the second time
        run: this run's id
        by: who sends
        dataset: the id of the dataset that the corrections are from
        label_field: its label field
        how: what the history of each label calls it
        monitor: is told how far this is; says when to stop
        patience: seconds to wait for a store that does not say what it holds

    Returns:
        the lines in their order, none of them UPDATE any more
    """
    monitor = monitor or Monitor()
    final = list(lines)
    rows: list[Row] = []
    where: list[int] = []  # of each row in the lines
    # Alike ones together: the samples of a chunk are then changed in a few updates.
    for index, line in sorted(enumerate(lines), key=_alike):
        if line.status is Status.UPDATE:
            row = _row(line.correction)
            if size(row) > MOST_BYTES:
                final[index] = replace(line, status=Status.CANNOT, reason=TOO_LONG)
                continue
            rows.append(row)
            where.append(index)

    sender = _Sender(store, journal, lease, apply, run, by, dataset, label_field, how, patience)
    ended: str | None = None  # why no more is sent
    for part in parts(rows, store.chunk):
        monitor.progress(part.start, len(rows), "Sending labels")
        if ended is None and monitor.stopping():
            ended = STOPPED
        if ended is None:
            outcomes, ended = sender.send(rows[part])
        else:
            outcomes = _all(rows[part], Status.FAILED, ended)
        for index, outcome in zip(where[part], outcomes, strict=True):
            final[index] = _line(lines[index], outcome)
    monitor.progress(len(rows), len(rows), "Sending labels")
    return final


def recover(
    store: Store, journal: Journal, apply: Apply, monitor: Monitor | None = None, patience: float = PATIENCE
) -> list[Chunk]:
    """Finishes what earlier runs left open with this store; to be called by who has the lease, before anything else.

    Args:
        store: the store
        journal: what was sent to it
        apply: as for `send`; called for each of the chunks
        monitor: is told how far this is; says when to stop
        patience: seconds to wait for a store that does not say what it holds

    Returns:
        the chunks that it finished, with outcomes, oldest first

    Raises:
        StorageError: the store cannot be read: what it holds of these labels stays open
    """
    monitor = monitor or Monitor()
    chunks = journal.unfinished(store.name)
    for done, chunk in enumerate(chunks):
        monitor.progress(done, len(chunks), "Finishing earlier runs")
        if monitor.stopping():
            return chunks[:done]
        if chunk.state == "intent":
            found = _read_back(store, [row.source for row in chunk.rows], chunk.run, patience)
            to_do = Outcome(Status.FAILED, reason=TO_DO)
            if not journal.settle(chunk, [_judge(row, found) or to_do for row in chunk.rows], sure=False):
                continue  # another run has taken over, and sees to the samples
        apply(chunk)
        journal.close(chunk)
    return chunks


@dataclass(frozen=True)
class _Sender:
    """What sending a chunk takes; see `send`."""

    store: Store
    journal: Journal
    lease: Lease
    apply: Apply
    run: str
    by: str | None
    dataset: str
    label_field: str
    how: str
    patience: float

    def send(self, rows: Sequence[Row]) -> tuple[Sequence[Outcome], str | None]:
        """Sends one chunk; returns each row's outcome, and why nothing more can be sent, if so."""
        try:
            chunk = self._intend(rows)
        except StorageError as error:
            why = f"{NOT_SENT}{error}"
            return _all(rows, Status.FAILED, why), why
        outcomes, ended = _write(chunk, self.store, self.lease, self.patience)
        if outcomes is None:
            # After a lost lease another run may have looked too early, and settled what was still on its way.
            with suppress(SuiteError):  # else it stays as it is: an intent, unless another run has settled it
                self.journal.reopen(chunk)
            return _all(rows, Status.FAILED, UNKNOWN + (ended or "").removeprefix(NOT_SENT)), ended
        try:
            if self.journal.settle(chunk, outcomes.rows, sure=outcomes.sure):
                self.apply(chunk)
                self.journal.close(chunk)
        except SuiteError as error:
            # Whether or not the journal has the outcomes: the chunk is not closed, and the next run finishes it.
            known = chunk.outcomes or outcomes.rows
            behind = [replace(o, reason=BEHIND) if o.status is Status.DONE else o for o in known]
            return behind, ended or f"{NOT_SENT}{error}"
        return chunk.outcomes or outcomes.rows, ended

    def _intend(self, rows: Sequence[Row]) -> Chunk:
        chunk = self.journal.intend(
            rows,
            run=self.run,
            store=self.store.name,
            dataset=self.dataset,
            label_field=self.label_field,
            by=self.by,
            how=self.how,
        )
        try:
            # After the intent, which may have waited for its database for longer than a lease lasts.
            self.lease.confirm()
        except StorageError as error:
            if self.journal.settle(chunk, _all(rows, Status.FAILED, f"{NOT_SENT}{error}")):
                self.journal.close(chunk)
            raise
        return chunk


@dataclass(frozen=True)
class _Settled:
    """The outcomes of a chunk's rows; `sure` where the store's own answers say them all, and no read-back."""

    rows: list[Outcome]
    sure: bool


def _write(chunk: Chunk, store: Store, lease: Lease, patience: float) -> tuple[_Settled | None, str | None]:
    """Offers a chunk's changes to the store until each is settled.

    Returns:
        the outcomes, or None where it is not known what the store made of the rows; and why nothing more can be
        sent, if so
    """
    stamp = Stamp(chunk.run, chunk.by, chunk.at, chunk.how)
    outcomes: dict[int, Outcome] = {}
    left = list(range(len(chunk.rows)))
    offered = False  # whether an earlier round may have changed what is left
    for attempt in range(ROUNDS):
        time.sleep(PAUSES[0] * attempt)
        rows = [chunk.rows[i] for i in left]
        answer = _offer(store, rows, stamp)
        told = _told(answer, rows)
        if told is not None:
            outcomes.update(zip(left, told, strict=True))
            return _Settled(_in_order(outcomes), sure=attempt == 0), None
        refused_all = isinstance(answer, StorageError) and not isinstance(answer, Unreachable)
        offered |= not refused_all
        try:
            found = _read_back(store, [row.source for row in rows], chunk.run, patience)
            # Still ours: nobody else can have settled these rows, or written them, between the write and this look.
            lease.confirm()
        except StorageError as error:
            if offered:
                return None, f"{NOT_SENT}{error}"
            outcomes.update(zip(left, _all(rows, Status.FAILED, str(answer)), strict=True))
            return _Settled(_in_order(outcomes), sure=True), f"{NOT_SENT}{answer}"
        refused = answer.refused if isinstance(answer, Written) else {}
        taken = answer.taken if isinstance(answer, (Written, Unreachable)) else ()
        judged = [_judge(row, found, refused, offered, taken) for row in rows]
        outcomes.update((i, outcome) for i, outcome in zip(left, judged, strict=True) if outcome is not None)
        left = [i for i, outcome in zip(left, judged, strict=True) if outcome is None]
        if not left or refused_all:
            break
    reason = f"the store did not take it in {ROUNDS} tries, though it holds the expected label"
    if isinstance(answer, StorageError):
        reason = str(answer)
    outcomes.update((i, Outcome(Status.FAILED, reason=reason)) for i in left)
    # After an answer that got lost, and rows that are settled all the same, there is no reason not to go on.
    over = isinstance(answer, StorageError) and (left or refused_all)
    return _Settled(_in_order(outcomes), sure=False), f"{NOT_SENT}{answer}" if over else None


def _offer(store: Store, rows: Sequence[Row], stamp: Stamp) -> Written | StorageError:
    """One write, never repeated here; its answer, or why there is none."""
    try:
        return store.write([Change(row.source, row.expected, row.wanted) for row in rows], stamp)
    except StorageError as error:
        return error


def _told(answer: Written | StorageError, rows: Sequence[Row]) -> list[Outcome] | None:
    """The outcomes where the numbers of an answer leave no doubt: each row was matched, or refused by the store."""
    if isinstance(answer, StorageError) or answer.done + len(answer.refused) != len(rows):
        return None
    return [
        Outcome(Status.FAILED, reason=answer.refused[row.source])
        if row.source in answer.refused
        else Outcome(Status.DONE, row=answer.rows.get(row.source))
        for row in rows
    ]


def _judge(
    row: Row,
    found: Mapping[SourceId, Found],
    refused: Mapping[SourceId, str] | None = None,
    offered: bool = True,
    taken: Collection[SourceId] = (),
) -> Outcome | None:
    """What became of a row, from what the store holds now; None where it is still to be done.

    Args:
        row: the row
        found: what was read back
        refused: reasons, by id, of a store that will never take a change
        offered: whether this run may have written the row at all
        taken: ids of the changes that the store itself said it made
    """
    held = found.get(row.source)
    if held is None:
        return Outcome(Status.NOT_IN_STORE, reason="the store no longer has a label of this id")
    if held.copies > 1:
        return Outcome(Status.ID_TWICE, held.label, "the store has several labels of this id")
    if held.label == row.wanted:
        if held.ours is False or not offered:
            return Outcome(Status.ALREADY, held.label, "somebody else has stored it meanwhile")
        return Outcome(Status.DONE, row=held.row)
    ours = held.ours or row.source in taken
    if held.label == row.expected:
        if ours:
            return Outcome(Status.CONFLICT, held.label, "was written, and put back since", written=True)
        if refused and row.source in refused:
            return Outcome(Status.FAILED, held.label, refused[row.source])
        return None
    if ours:
        return Outcome(Status.CONFLICT, held.label, f"was written, and changed to {held.said} since", written=True)
    return Outcome(Status.CONFLICT, held.label, f"the store holds {held.said}, not {said(row.expected)}")


def _read_back(store: Store, ids: Collection[SourceId], run: str, patience: float) -> dict[SourceId, Found]:
    """What the store holds, asked again while it gives no answer; reading is safe to repeat."""
    until, (pause, longest) = time.monotonic() + patience, PAUSES
    while True:
        try:
            return store.read(list(ids), run=run)
        except Unreachable:
            if time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(pause * 2, longest)


def _alike(numbered: tuple[int, Line]) -> tuple[str, str]:
    its = numbered[1].correction
    return its.label or "", its.wanted or ""


def _row(correction: Correction) -> Row:
    source, expected, wanted = correction.source_id, correction.expected, correction.wanted
    if source is None or expected is None or wanted is None:
        raise ValueError(f"the correction of sample {correction.sample_id} is not complete, and cannot be an update")
    return Row(correction.sample_id, source, correction.label, expected, wanted, correction.tags)


def _line(line: Line, outcome: Outcome) -> Line:
    # "found" is what stood in the way; where nothing was looked up again, what the plan saw.
    looked = outcome.status not in (Status.DONE, Status.FAILED)
    return replace(line, status=outcome.status, found=outcome.found if looked else line.found, reason=outcome.reason)


def _all(rows: Sequence[Row], status: Status, reason: str) -> list[Outcome]:
    return [Outcome(status, reason=reason)] * len(rows)


def _in_order(outcomes: Mapping[int, Outcome]) -> list[Outcome]:
    return [outcomes[i] for i in range(len(outcomes))]
