"""`export_history`: who changed which label when, as CSV."""

import csv
import io
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .common import csv_file
from .shared import samples
from .shared.errors import InputError
from .shared.forms import Form
from .shared.labelling import IdField, OwnLabelField
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync.journal import Journal, rows_csv
from .shared.sync.store import LabelField

COLUMNS = ("at", "run", "by", "how", "sample_id", "source_id", "from", "to", "store_from", "undoes", "dropped")


class ExportHistory(SuiteOperator):
    """Writes the history of labels, or what was sent to the label store, to a CSV file."""

    spec = Spec(
        name="export_history",
        label="Export label history",
        description="Download every change of a label, or everything sent to the label store, as CSV",
        icon="history",
        writes="fiftyone",
        quick=True,
        target=False,
    )

    class Params(BaseModel):
        """Parameters of `export_history`."""

        model_config = ConfigDict(extra="forbid")

        what: Literal["labels", "sent"] = Field(
            "labels",
            description="labels: every change of one in this dataset; sent: what went to the store, and became of it",
        )
        label_field: OwnLabelField = "ground_truth"
        id_field: IdField = samples.SOURCE_ID
        run: str | None = Field(None, description="Only this run")

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.field("what")
        form.label_field()
        form.fields("run", "id_field")

    def work(self, job: Job) -> dict[str, Any]:
        """Collects the lines and hands out the file."""
        params = job.params
        samples.require_label_field(job.dataset, params.label_field)
        text = _sent(job) if params.what == "sent" else _labels(job)
        lines = sum(1 for _ in csv.reader(io.StringIO(text))) - 1
        if not lines:
            raise InputError(
                f"There is no history yet for {params.label_field!r}"
                + (f" of run {params.run!r}." if params.run else ".")
            )
        handed = csv_file(job, f"history-{params.what}-{job.run.id}.csv", text)
        where = f" It is in {handed['csv']}." if "csv" in handed else ""
        return {"message": f"{lines:,} changes.{where}", "lines": lines, **handed}


def _sent(job: Job) -> str:
    journal, params = Journal(job.db), job.params
    chunks = journal.of_dataset(str(job.dataset._doc.id))
    mine = (c for c in chunks if c.label_field == params.label_field and params.run in (None, c.run))
    return rows_csv(mine)


def _labels(job: Job) -> str:
    params = job.params
    field = LabelField(
        job.dataset, params.label_field, samples.source_path(job.dataset, params.label_field, params.id_field)
    )
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for sample_id, source_id, entry in field.histories():
        if params.run in (None, entry["run"]):
            said = {
                **entry,
                "at": entry["at"].isoformat(timespec="milliseconds"),
                "sample_id": sample_id,
                "source_id": source_id,
            }
            writer.writerow([said.get(column) for column in COLUMNS])
    return text.getvalue()
