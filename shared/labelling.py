"""What the operators that say labels share: the name, chosen from the vocabulary, and the tag that says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from . import labelled, samples
from .errors import InputError, SuiteError
from .forms import Form
from .memo import cached
from .operators import secrets, target_view
from .sync.corrections import MARKER, OWN_TAGS, Correction, Tags, resolve, sort_tags
from .sync.store import vocabulary
from .vocabulary import Vocabulary
from .wording import many

LISTED = 20  # names, or tags, that a form lists


def _of_its_own(marker: str) -> str:
    if marker in OWN_TAGS - {MARKER}:
        raise ValueError("this tag has another meaning in the suite")
    return marker


# Parameters that operators on labels share.
OwnLabelField = Annotated[str, Field(title="Label field", description="The 'Classification' field with the labels")]
NewLabelField = Annotated[
    str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", title="Label field", description="Made where there is none")
]
IdField = Annotated[
    str,
    Field(
        min_length=1,
        title="Id field",
        description="Where each label's id in the database of record is: a field of the samples, or of the label",
    ),
]
MarkerTag = Annotated[
    str,
    Field(
        min_length=1,
        title="Marker tag",
        description="Says that the label as it stands is right and the store should have it",
    ),
    AfterValidator(_of_its_own),
]
TagPrefix = Annotated[
    str | None, Field(title="Tag prefix", description="Such as 'fix:': only tags that begin with it are corrections")
]


def names_of_form(form: Form, field: str, problem: Callable[[str], None] | None = None) -> Vocabulary | None:
    """The vocabulary of a label field for a form, or None after the form, or `problem`, was told why there is none."""
    dataset, given = form.ctx.dataset, secrets(form.ctx)
    try:
        return cached(("vocabulary", dataset.name, field), lambda: vocabulary(dataset, field, given), seconds=10)
    except SuiteError as error:
        (problem or form.error)(str(error))
        return None


def choose_name(form: Form, field: str, parameter: str = "label", **more: Any) -> None:
    """Draws a list of names to choose from, and says what is wrong with a typed one."""
    words = names_of_form(form, field)
    if words is None:
        return
    form.choice(parameter, [(name, name) for name in words.names], free=True, **more)
    given = form.value(parameter)
    if given and (problem := words.why_not(given)):
        form.error(problem)
    elif not len(words):
        form.error("There is no name to choose yet: add one with 'Add a name to the vocabulary'.")


def show_corrections(form: Form, label_field: str) -> None:
    """Says in a form how many samples of the target have a correction, and which tags are nearly names.

    Args:
        form: of an operator with the parameters `marker_tag` and `tag_prefix`; one count serves all that they may be
        label_field: an existing label field
    """
    words = names_of_form(form, label_field)
    if words is None:
        return
    view = target_view(form.ctx)
    counted = cached(("alike", label_field, *samples.state(view)), lambda: labelled.alike(view, label_field))
    form.counted(sum(row.n for row in counted))
    tags, found = _corrections(counted, words, form.value("marker_tag"), form.value("tag_prefix"))
    rows = Counter[tuple[str, str]]()
    for correction, n in found:
        now = correction.label or "none"
        rows[now, "as it is (marker tag)" if correction.marked else correction.wanted or "cannot be said"] += n
    if not rows:
        form.warning("No ROI of the target has a correction: 'Correct labels' makes some.")
        return
    form.notice(f"{many(rows.total(), 'ROI of the target has', 'ROIs of the target have')} a correction:")
    most = sorted(rows.items(), key=lambda row: (-row[1], row[0]))[:LISTED]
    form.table([{"from": old, "to": new, "ROIs": n} for (old, new), n in most], "Corrections")
    if tags.unknown:
        some = [f"{tag!r} ({', '.join(near) or 'no name is near'})" for tag, near in tags.unknown.items()][:LISTED]
        form.warning(f"Tags that are no names of the vocabulary keep theirs from being used: {'; '.join(some)}.")


def not_applied(counted: Sequence[labelled.Alike], words: Vocabulary) -> int:
    """How many samples have a correction that is not their label yet, doubtful ones included."""
    _, found = _corrections(counted, words)
    return sum(n for correction, n in found if correction.label != correction.wanted and not correction.marked)


def _corrections(
    counted: Sequence[labelled.Alike], words: Vocabulary, marker: str = MARKER, prefix: str | None = None
) -> tuple[Tags, list[tuple[Correction, int]]]:
    """What the tags mean, and each correction with the number of samples that have it; what is stored is not known."""
    said = {tag for row in counted for tag in (*row.tags, *row.label_tags)}
    tags = sort_tags(sorted(said), words, marker, prefix)
    unknown = [None] * len(counted)
    columns: dict[str, Sequence[Any]] = {
        "id": [str(row) for row in range(len(counted))],
        "source_id": unknown,
        "label": [row.label for row in counted],
        "stored": unknown,
        "tags": [row.tags for row in counted],
        "label_tags": [row.label_tags for row in counted],
    }
    return tags, [(found, counted[int(found.sample_id)].n) for found in resolve(columns, tags, words)]


def correction_tag(label: str, words: Vocabulary, prefix: str | None, marker: str) -> str:
    """The tag that says a label.

    Raises:
        InputError: the label is no name of the vocabulary, or the tag would mean something else
    """
    if problem := words.why_not(label):
        raise InputError(problem)
    if not prefix and label in OWN_TAGS | {marker}:
        raise InputError(f"The tag {label!r} has a meaning of its own here; give a tag prefix, such as 'fix:'.")
    return (prefix or "") + label


def correction_tags(words: Vocabulary, prefix: str | None) -> list[str]:
    """All tags that are a correction."""
    return [(prefix or "") + name for name in words.names if prefix or name not in OWN_TAGS]
