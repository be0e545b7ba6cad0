"""What the operators of this plugin share: their parameters, the plan, and the files they hand out."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from .shared import samples
from .shared.artifacts import open_root, scratch
from .shared.errors import InputError, SuiteError
from .shared.forms import Form
from .shared.labelling import IdField, MarkerTag, OwnLabelField, TagPrefix, show_corrections
from .shared.memo import cached
from .shared.operators import Job, secrets
from .shared.sync import plan as plans
from .shared.sync.corrections import MARKER, Tags
from .shared.sync.plan import Line, Status
from .shared.sync.store import LabelField, vocabulary
from .shared.sync.stores import Store, open_store
from .shared.vocabulary import Vocabulary

LISTED = 100  # lines of a plan shown in a result; the CSV and the saved views have all of them


class LabelParams(BaseModel):
    """What every operator on labels is asked."""

    model_config = ConfigDict(extra="forbid")

    label_field: OwnLabelField = "ground_truth"
    id_field: IdField = samples.SOURCE_ID
    marker_tag: MarkerTag = MARKER
    tag_prefix: TagPrefix = None


def draw_corrections(form: Form) -> None:
    """Draws the label field, what its corrections are, and which store they are for."""
    field = form.label_field()
    if field:
        show_corrections(form, field)
    name_store(form)


def name_store(form: Form) -> None:
    """Says which label store it is, or what is missing here, though the worker may have it."""
    given = secrets(form.ctx)
    uri, token = (given.get(name) for name in ("MBARI_LABEL_STORE", "MBARI_LABEL_STORE_TOKEN"))
    if not uri:
        form.warning("MBARI_LABEL_STORE is not set here: unless the worker has it, there is no store to ask.")
        return
    if uri.strip().lower().startswith("tator") and not token:
        form.warning("MBARI_LABEL_STORE_TOKEN is not set here: unless the worker has it, Tator lets nobody in.")
        return
    try:
        form.notice(f"The label store is {cached(('label store', uri, token), lambda: _name(uri, token))}.")
    except SuiteError as error:
        form.warning(str(error))


def _name(uri: str, token: str | None) -> str:
    with closing(open_store(uri, token)) as store:
        return store.name


def more_options(form: Form) -> None:
    """The parameters that most people leave alone."""
    if form.on_request("More options: id field, marker tag, tag prefix"):
        form.fields("id_field", "marker_tag", "tag_prefix")


def label_field(job: Job) -> LabelField:
    """The label field that the parameters name."""
    samples.require_label_field(job.dataset, job.params.label_field)
    path = samples.source_path(job.dataset, job.params.label_field, job.params.id_field)
    field = LabelField(job.dataset, job.params.label_field, path)
    field.check()
    return field


def names(job: Job) -> Vocabulary:
    """The vocabulary of the label field, for an operator that may have a marker tag.

    Raises:
        InputError: the marker tag is a name of it
    """
    words = vocabulary(job.dataset, job.params.label_field, job.secrets)
    marker = getattr(job.params, "marker_tag", MARKER)
    if marker in words:
        raise InputError(f"The marker tag {marker!r} is a name of the vocabulary ({words.origin}); choose another one.")
    return words


def label_store(job: Job) -> Store:
    """The label store that the secrets name; to be closed."""
    return open_store(job.secrets.get("MBARI_LABEL_STORE"), job.secrets.get("MBARI_LABEL_STORE_TOKEN"))


def require_ids(job: Job, field: LabelField) -> None:
    """Refuses an id field that the dataset does not have.

    Without the usual one no label has an id yet, which is said of each label.
    """
    usual = LabelParams.model_fields["id_field"].default
    if job.params.id_field != usual and job.dataset.get_field(field.id_path) is None:
        raise InputError(
            f"The dataset {job.dataset.name!r} has no field {job.params.id_field!r} for the ids of labels."
        )


def make_plan(job: Job, field: LabelField, store: Store) -> tuple[list[Line], Tags]:
    """Reads the corrections of the target and what the store holds for them; writes nothing."""
    require_ids(job, field)
    words = names(job)
    tags = field.tags(words, job.params.marker_tag, job.params.tag_prefix)
    job.run.progress(0, 0, "Reading corrections")
    corrections = field.corrections(job.view, words, tags)
    ids = list({c.source_id for c in corrections if c.source_id is not None and c.problem is None})
    job.run.progress(0, 0, f"Asking the store about {len(ids):,} labels")
    found = store.read(ids)
    return plans.plan(corrections, found, field.twice(ids), store.refuses), tags


def misspelt(tags: Tags) -> list[dict[str, str]]:
    """The tags that are nearly names, as rows of a table."""
    return [{"tag": tag, "nearest_names": ", ".join(near) or "none"} for tag, near in sorted(tags.unknown.items())]


def listed(lines: list[Line]) -> list[dict[str, Any]]:
    """The first lines that a person has to look at, as rows of a table."""
    wrong = [line for line in lines if line.status not in (Status.UPDATE, Status.ALREADY, Status.DONE)]
    return [
        {
            "source_id": line.correction.source_id,
            "label": line.correction.label,
            "wanted": line.correction.wanted,
            "in_store": line.found,
            "status": str(line.status),
            "reason": line.reason,
        }
        for line in wrong[:LISTED]
    ]


def status_text(line: Line) -> str:
    """What the status field of a sample says about its correction."""
    return f"{line.status}: {line.reason}" if line.reason else str(line.status)


def csv_file(job: Job, name: str, text: str) -> dict[str, Any]:
    """Hands out a CSV file: to the App, and below the artifact root where there is one."""
    handed: dict[str, Any] = {"download": {"name": name, "text": text}}
    if uri := job.secrets.get("MBARI_ARTIFACTS"):
        root, key = open_root(uri, job.secrets), f"sync/{name}"
        with scratch("csv-") as folder:
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8", newline="")
            root.put(key, path)
        handed["csv"] = root.uri(key)
    return handed


def sentence(counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    """The counts that are not zero, in words: "12 updated, 1 in conflict"."""
    return ", ".join(f"{counts[key]:,} {word}" for key, word in words.items() if counts.get(key)) or "nothing"


OUTCOMES = {
    "updated": "updated",
    "already": "already so",
    "conflict": "in conflict",
    "missing": "without an id or a record",
    "invalid": "invalid",
    "failed": "failed",
}
