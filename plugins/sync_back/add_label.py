"""`add_label`: one form adds a name to the vocabulary."""

import unicodedata
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .common import names
from .shared.errors import InputError
from .shared.forms import Form
from .shared.labelling import names_of_form
from .shared.memo import forget
from .shared.operators import Job, Spec, SuiteOperator
from .shared.sync.corrections import OWN_TAGS
from .shared.sync.store import add_class
from .shared.vocabulary import add


class AddLabel(SuiteOperator):
    """Adds a name to the list of the secret, or to the label field's classes where there is no list."""

    spec = Spec(
        name="add_label",
        label="Add a name to the vocabulary",
        description="A new class name that labels may have from now on; adds a new class to the list",
        icon="playlist_add",
        writes="outside",
        quick=True,
        target=False,
    )

    class Params(BaseModel):
        """Parameters of `add_label`."""

        model_config = ConfigDict(extra="forbid")

        name: str = Field(
            min_length=1, title="New name", description="Exactly as labels will have it", examples=["Oithona"]
        )
        label_field: str = Field("ground_truth", title="Label field", description="Whose names these are")
        near: bool = Field(
            False,
            title="It is no misspelling",
            description="Add it although a name of the vocabulary is nearly the same",
        )

    def form(self, form: Form) -> None:
        """Draws the inputs, and says what is nearly the same."""
        form.field("name")
        field = form.label_field()
        words = names_of_form(form, field) if field else None
        if words is None:
            return
        form.notice(f"The vocabulary has {len(words):,} names: {words.origin}.")
        problem = _problem(form.value("name"), words, bool(form.value("near")))
        if problem:
            form.error(problem)
        if form.value("near") or (form.value("name") and words.nearest(form.value("name"))):
            form.field("near")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Add Calanus to the vocabulary"."""
        return f"Add {params.name} to the vocabulary"

    def work(self, job: Job) -> dict[str, Any]:
        """Adds the name."""
        params, words = job.params, names(job)
        problem = _problem(params.name, words, params.near)
        if problem:
            raise InputError(problem)
        uri = job.secrets.get("MBARI_VOCABULARY")
        if uri:
            add(uri, params.name, job.secrets)
        else:
            add_class(job.dataset, params.label_field, [*words.names, params.name])
        forget("vocabulary")
        where = uri or f"the classes of {params.label_field!r}"
        return {"message": f"{params.name!r} is now a name of the vocabulary ({where}).", "names": len(words) + 1}


def _problem(name: str | None, words: Any, near: bool) -> str | None:
    if not name:
        return None
    if name in words:
        return f"{name!r} is in the vocabulary already."
    if name in OWN_TAGS:
        return f"{name!r} is a tag of the suite's own and could not be told from a correction."
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return f"{name!r} holds a character that cannot be seen."
    if name != name.strip():
        return f"{name!r} begins or ends with a space."
    nearest = words.nearest(name)
    if nearest and not near:
        same = " and ".join(repr(n) for n in nearest)
        return f"{name!r} is nearly {same}; if it is no misspelling, tick 'It is no misspelling'."
    return None
