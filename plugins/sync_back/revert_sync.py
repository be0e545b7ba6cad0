"""`revert_sync`: takes back what a run sent, where nobody has changed it since."""

from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .common import listed, name_store
from .sending import Sending
from .shared.errors import InputError
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync import plan as plans
from .shared.sync.corrections import Correction
from .shared.sync.journal import Journal, Row
from .shared.sync.plan import Line, Status
from .shared.sync.store import open_field


class RevertSync(SuiteOperator):
    """Puts the old labels of a run back, in the store and in FiftyOne."""

    spec = Spec(
        name="revert_sync",
        label="Revert a sync",
        description="Undo: put back the labels that a sync replaced, where nobody has changed them since",
        icon="settings_backup_restore",
        writes="outside",
        target=False,
    )

    class Params(BaseModel):
        """Parameters of `revert_sync`."""

        model_config = ConfigDict(extra="forbid")

        run: str = Field(
            min_length=1,
            title="Run to revert",
            description="A run of 'Sync back'",
            examples=["6920f3a1c0ffee0123456789"],
        )

    def form(self, form: Form) -> None:
        """Draws the inputs: the runs to choose from, newest first."""
        runs = Journal(form.db).runs(str(form.ctx.dataset._doc.id))
        said = [
            (r["run"], f"{r['at']:%Y-%m-%d %H:%M}, {r['updated']:,} labels of {r['label_field']!r} to {r['store']}")
            for r in runs
        ]
        if not said:
            form.notice("No run has sent labels of this dataset yet.")
        form.choice("run", said, free=True, required=True)
        name_store(form)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Revert sync 65f..."."""
        return f"Revert sync {params.run}"

    def work(self, job: Job) -> dict[str, Any]:
        """Plans the way back from the journal, and sends it."""
        left: Counter[str] = Counter()
        with Sending(job, "revert") as sending:
            finished = sending.recover()  # of this run too, perhaps
            rows = _rows(sending.journal, job.params.run, sending.store.name)
            lines: list[Line] = []
            for (dataset, label_field), sent in rows.items():
                field = open_field(dataset, label_field)
                if field is None:
                    left["its dataset is gone"] += len(sent)
                    continue
                field.prepare()
                now = field.labels([row.sample for row in sent])
                same = [row for row in sent if now.get(row.sample) == row.wanted]
                left["its label in FiftyOne was changed since"] += len(sent) - len(same)
                corrections = [_back(row) for row in same]
                found = sending.store.read([row.source for row in same], run=None)
                planned = plans.plan(corrections, found, (), lambda label: None)
                sent_back = sending.send(planned, field)
                sending.settle(field, sent_back)
                lines += sent_back
        counts = plans.counts(lines)
        done = counts["updated"] + counts["already"]
        for row in plans.problems(lines):
            if row["status"] != Status.ALREADY:
                left[f"{row['status']}: {row['reason']}"] += row["labels"]
        left += Counter()  # what was counted as none
        message = f"{done:,} labels are what they were before the run, in {sending.store.name} and in FiftyOne."
        if left:
            message += f" {sum(left.values()):,} were left alone."
        if finished:
            message += f" Before that, {finished:,} labels of runs that were cut short were looked at and settled."
        return {
            "message": message,
            "counts": {"reverted": done, "left": sum(left.values())},
            "left_alone": [{"reason": reason, "labels": n} for reason, n in left.most_common()],
            "changes": plans.changes(lines),
            "lines": listed(lines),
        }


def _rows(journal: Journal, run: str, store: str) -> dict[tuple[str, str], list[Row]]:
    """What a run has changed in this store, by dataset id and label field."""
    rows: dict[tuple[str, str], list[Row]] = {}
    elsewhere: set[str] = set()
    for chunk in journal.of_run(run):
        if chunk.store != store:
            elsewhere.add(chunk.store)
            continue
        done = [r for r, o in zip(chunk.rows, chunk.outcomes or (), strict=False) if o.status == Status.DONE]
        rows.setdefault((chunk.dataset, chunk.label_field), []).extend(done)
    if not any(rows.values()):
        where = f"; it wrote to {', '.join(sorted(elsewhere))}" if elsewhere else ""
        raise InputError(f"The run {run!r} changed no label in {store}{where}.")
    return rows


def _back(row: Row) -> Correction:
    """The way back as a correction: the store must still hold what was sent."""
    return Correction(row.sample, row.source, label=row.wanted, stored=row.wanted, wanted=row.expected, tags=())
