"""The store, the lease and the journal of a run that sends labels, with FiftyOne's side of each chunk."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from .common import label_store
from .shared.operators import Job
from .shared.retry import persist
from .shared.sync import edits, send
from .shared.sync.journal import Chunk, Journal, Outcome, Row
from .shared.sync.labels import Event
from .shared.sync.lease import Lease
from .shared.sync.plan import Line, Status
from .shared.sync.store import open_field
from .shared.sync.stores import Store
from .shared.wording import many


class Sending:
    """A context in which this run alone may write to the label store.

    Args:
        job: the operator's job
        how: what the history of each label calls it: "sync" or "revert"
    """

    store: Store

    def __init__(self, job: Job, how: str) -> None:
        self._job, self._how = job, how
        self.journal = Journal(job.db)

    def __enter__(self) -> "Sending":
        job = self._job
        self.store = label_store(job)
        try:
            job.run.progress(0, 0, "Waiting for other runs that write to the store")
            self._lease = Lease(job.db, self.store.name, job.run.id).acquire()
        except BaseException:
            self.store.close()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._lease.release()
        self.store.close()

    def recover(self) -> int:
        """Settles what killed runs left open; returns how many labels that were."""
        chunks = send.recover(self.store, self.journal, self._apply, self._job.run)
        return sum(len(chunk.rows) for chunk in chunks)

    def confirm(self) -> None:
        """Makes sure that this run alone still may write; see `Lease.confirm`."""
        self._lease.confirm()

    def settle(self, field: Any, lines: list[Line]) -> None:
        """Notes on the samples what the store was found to hold already, though nothing was sent."""
        moves = []
        for line in lines:
            its = line.correction
            if line.status == Status.ALREADY and its.expected is not None and its.wanted is not None:
                row = Row(its.sample_id, its.source_id, its.label, its.expected, its.wanted, its.tags)
                moves.append(edits.settled(row, Outcome(line.status)))
        field.settle(moves, Event(self._job.run.id, self._job.user, datetime.now(UTC), self._how))

    def send(self, lines: list[Line], field: Any) -> list[Line]:
        """Writes the lines that would change; returns all of them with what became of each."""
        job = self._job
        return send.send(
            lines,
            self.store,
            self.journal,
            self._lease,
            self._apply,
            run=job.run.id,
            by=job.user,
            dataset=str(field.dataset._doc.id),
            label_field=field.name,
            how=self._how,
            monitor=job.run,
        )

    def _apply(self, chunk: Chunk) -> None:
        field = persist(lambda: open_field(chunk.dataset, chunk.label_field))
        if field is None:  # the dataset is gone, and with it what there was to settle
            return
        moves = []
        for row, outcome in zip(chunk.rows, chunk.outcomes or (), strict=True):
            move = edits.settled(row, outcome)
            moves += [move] if move else []
        field.settle(moves, Event(chunk.run, chunk.by, chunk.at, chunk.how))


def unsent(lines: Iterable[Line]) -> str:
    """How many of the lines may be in the store though they failed, how many are not, and why; "" where none failed."""
    reasons = [line.reason if line.status == Status.FAILED else None for line in lines]
    failed = [reason for reason in reasons if reason is not None]
    if not failed:
        return ""
    whys = Counter(reason.removeprefix(send.UNKNOWN).removeprefix(send.NOT_SENT).rstrip(".") for reason in failed)
    why, _ = whys.most_common(1)[0]
    more = f"; and {many(len(whys) - 1, 'other reason')}" if len(whys) > 1 else ""
    unknown = sum(reason.startswith(send.UNKNOWN) for reason in failed)
    of, left = f"of {many(len(reasons), 'correction')}", len(failed) - unknown
    if unknown:
        said = f"{unknown:,} {of} may have been sent, which the next run finds out"
        said += f"; {many(left, 'was', 'were')} not sent" if left else ""
    elif left == len(reasons):
        said = f"None {of} was sent"
    else:
        said = f"{left:,} {of} {'was' if left == 1 else 'were'} not sent"
    return f"{said}: {why}{more}."
