"""The card as people read it: a Hugging Face model card in Markdown, its metadata in front, from `card.json`.

`card_template.md` has the order and the words that every card shares; here each part is made from the card. The same
card, notes and plots give the same text. All that people or data named is escaped (`markdown`), and enters the template
as a value: nothing in it is read as Markdown, HTML, YAML or Jinja.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..artifacts import Artifacts
from ..wording import many
from . import focus_list, origin
from . import notes as dated_notes
from .focus_list import FocusList
from .markdown import NONE, bullets, inline, paragraph, quoted, table, utc
from .notes import Note
from .schema import Card, Data, Evaluation, Figure

TEMPLATE = Path(__file__).with_name("card_template.md")
TAGS = ["fiftyone", "image-classification", "plankton", "ultralytics"]
METRICS = {"accuracy": "Top-1 accuracy", "f1": "Macro F1"}
PLOTS = {
    "confusion": "Confusion matrix: which class is taken for which",
    "per_class_f1": "F1 of each class",
    "reliability": "How often it is right, by its confidence",
    "training": "Training, epoch by epoch",
    "class_mix": "Share of each class, by split",
    "slices": "How good it is in each slice of the data",
}


def described(card: Card, name: str, root: Artifacts, plots: Sequence[str] = ()) -> tuple[str, list[Note]]:
    """Renders a card with all that was added beside its version since: notes, and the newest focus list.

    Args:
        card: the version's card
        name: `<model>/<version>`
        root: the artifact root
        plots: see `markdown`

    Returns:
        the text, and the notes that are in it

    Raises:
        StorageError: the root cannot be read
    """
    found = dated_notes.read(root, name)
    return markdown(card, found, plots, focus_list.newest(root, name)), found


def markdown(card: Card, notes: Sequence[Note], plots: Sequence[str] = (), focus: FocusList | None = None) -> str:
    """Renders a card; makes no call to the network.

    Args:
        card: the version's card
        notes: what people wrote, oldest first; the newest intended use stands in place of the card's own, the newest
            limitations before those that the data show
        plots: where the pictures lie, as addresses relative to the text's own place or in full
        focus: what the newest evaluation says to look into

    Returns:
        Markdown that begins with a block of YAML metadata and ends with a line break
    """
    first = card.evaluation[0] if card.evaluation else None
    parts = {
        "title": inline(f"{card.model}, version {card.version}"),
        "summary": _summary(card, first),
        "glance": _glance(card, first),
        "intended_use": _intended_use(card, notes),
        "limitations": _limitations(card, notes),
        "notes": _notes(notes),
        "measured": _measured(first),
        "overall": _overall(card.evaluation),
        "per_class": _per_class(card.data, first),
        "slices": "\n\n".join(_slices(first)),
        "plots": "\n\n".join(_plots(plots, first)),
        "focus": "" if focus is None else focus_list.markdown(focus),
        "classes": inline(", ".join(card.classes)),
        **origin.parts(card),
    }
    made = ModelCard.from_template(_metadata(card), template_str=TEMPLATE.read_text(encoding="utf-8"), **parts)
    lines = str(made).split("\n")
    # A part that is empty leaves several empty lines behind.
    kept = [line for place, line in enumerate(lines) if line or place == 0 or lines[place - 1]]
    return "\n".join(kept).rstrip("\n") + "\n"


def _metadata(card: Card) -> ModelCardData:
    base = card.base[0].name if card.base and not card.base[0].name.endswith(".yaml") else ""
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="fiftyone",
            dataset_name=_word(card.data.dataset or "unnamed"),
            dataset_split=_word(evaluation.split),
            dataset_revision=card.data.digest,
            metric_type=metric,
            metric_name=METRICS[metric],
            metric_value=round(figure.value, 4),
            metric_args=_interval_args(figure),
        )
        for evaluation in card.evaluation
        for metric, figure in (("accuracy", evaluation.top1), ("f1", evaluation.macro_f1))
    ]
    return ModelCardData(
        license=card.licence.lower(),
        library_name="ultralytics",
        pipeline_tag="image-classification",
        base_model=_base_model(_word(base)) or None,
        tags=TAGS,
        metrics=list(METRICS),
        model_name=card.model,
        eval_results=results or None,
    )


def _base_model(name: str) -> str:
    """A name as Hugging Face has them: `owner/name` or one word, and no place on somebody's disk or bucket."""
    if name.startswith("hf://"):
        return name.removeprefix("hf://")
    return name.rpartition("/")[2] if name.endswith((".pt", ".safetensors")) or "://" in name else name


def _interval_args(figure: Figure) -> dict[str, Any] | None:
    if figure.low is None or figure.high is None:
        return None
    return {"interval_95": [round(figure.low, 4), round(figure.high, 4)]}


def _word(text: str) -> str:
    """A name in one line, for metadata."""
    return " ".join(text.split())


def _summary(card: Card, first: Evaluation | None) -> str:
    text = f"A classifier that gives images of single plankton objects one of {len(card.classes):,} class names."
    if first is None:
        return f"{text} It was never measured on images it had not seen."
    images = f"{first.n:,} {inline(first.split)} images"
    return f"{text} Of {images} that it was not trained on it named {_percent(first.top1, '95% interval ')} right."


def _glance(card: Card, first: Evaluation | None) -> str:
    rows = []
    if first is not None:
        rows += [
            [f"Right on {inline(first.split)} images (top-1)", _percent(first.top1)],
            ["F1, as a mean over the classes (macro F1)", _score(first.macro_f1)],
        ]
    rows += [
        ["Classes", f"{len(card.classes):,}"],
        ["Learned from", f"{card.data.counts.get('train', 0):,} ROIs of {_of(card.data)}"],
        ["Made", f"{utc(card.created_at)} by {inline(card.created_by or 'somebody unknown')}"],
        ["Licence", inline(card.licence.upper())],
    ]
    return table(["At a glance", ""], rows)


def _of(data: Data) -> str:
    named = f"the dataset {inline(data.dataset)}" if data.dataset else "a dataset without a name"
    more = f" and {len(data.extra_views):,} more" if data.extra_views else ""
    return f"{named}{more}"


# --- what people say ---


def _intended_use(card: Card, notes: Sequence[Note]) -> str:
    for note in reversed(notes):
        if note.intended_use:
            return f"{_who(note)}:\n\n{quoted(note.intended_use)}"
    return paragraph(card.intended_use)


def _limitations(card: Card, notes: Sequence[Note]) -> str:
    derived = bullets(inline(sentence) for sentence in card.limitations)
    for note in reversed(notes):
        if note.limitations:
            # A person's words stand first, but do not hide what was found.
            return f"{_who(note)}:\n\n{quoted(note.limitations)}\n\nFrom the data and the figures:\n\n{derived}"
    return derived


def _notes(notes: Sequence[Note]) -> str:
    parts = []
    for note in notes:
        parts.append(f"**{_who(note)}**")
        texts = {"Intended use": note.intended_use, "Limitations": note.limitations, "Notes": note.notes}
        for what, text in texts.items():
            if text:
                parts += [f"{what}:", quoted(text)]
    return "\n\n".join(parts) or "Nothing yet. The operator *Write card* (`write_card`) adds a dated note."


def _who(note: Note) -> str:
    return f"{inline(note.by or 'Somebody')}, {note.at:%Y-%m-%d %H:%M} UTC"


# --- how good it is ---


def _measured(first: Evaluation | None) -> str:
    if first is None:
        return "It was never measured on images it had not seen."
    said = f"Measured with the published weights ({inline(first.runtime)})" if first.runtime else "Measured"
    text = f"{said}, on images that it was not trained on."
    if first.split == "test":
        text += " What counts is *test*: by *val* the best epoch was chosen, which makes its figures a little too good."
    if most := max((row.n for row in first.per_class), default=0):
        share = f"{_share(most / first.n)} of {inline(first.split)}"
        text += f" Always giving the name of the most frequent class would be right for {share}."
    return text


def _overall(evaluation: Sequence[Evaluation]) -> str:
    if not evaluation:
        return ""
    header = ["split", "ROIs", "top-1", "top-5", "macro precision", "macro recall", "macro F1", "calibration error"]
    rows = [
        [
            inline(e.split),
            f"{e.n:,}",
            _percent(e.top1),
            _share(e.top5),
            _share(e.macro_precision),
            _share(e.macro_recall),
            _score(e.macro_f1),
            f"{e.ece:.3f}",
        ]
        for e in evaluation
    ]
    return table(header, rows, numbers=(1, 2, 3, 4, 5, 6, 7))


def _per_class(data: Data, first: Evaluation | None) -> str:
    if first is None:
        return NONE
    rows = []
    for row in first.per_class:
        trained = data.classes.get(row.label, {}).get("train")
        scores = [_percent(row.recall), _share(row.precision), _score(row.f1)] if row.n else [NONE] * 3
        rows.append([inline(row.label), NONE if trained is None else f"{trained:,}", f"{row.n:,}", *scores])
    header = ["class", "train ROIs", f"{inline(first.split)} ROIs (n)", "recall", "precision", "F1"]
    return table(header, rows, numbers=(1, 2, 3, 4, 5))


def _slices(first: Evaluation | None) -> Iterator[str]:
    if first is None:
        return
    for field in dict.fromkeys(row.field for row in first.slices):
        mine = [row for row in first.slices if row.field == field]
        rows = [[inline(row.value), f"{row.n:,}", _percent(row.top1), _score(row.macro_f1)] for row in mine]
        yield f"### By {inline(field)}"
        yield table([inline(field), "n", "top-1", "macro F1"], rows, numbers=(1, 2, 3))
        if without := first.n - sum(row.n for row in mine):
            yield f"In none of them: {many(without, 'ROI')} of {first.split} without a value."


def _plots(plots: Sequence[str], first: Evaluation | None) -> Iterator[str]:
    if plots:
        yield "### Pictures"
        if first is not None:
            yield f"What they say of its quality was measured on {inline(first.split)}."
    for address in plots:
        stem = Path(address).stem
        title = inline(PLOTS.get(stem) or stem.replace("_", " "))
        yield f"![{title}]({quote(address, safe='/:')})"


# --- figures ---


def _percent(figure: Figure, said: str = "") -> str:
    share = _share(figure.value)
    if figure.low is None or figure.high is None:
        return share
    return f"{share} ({said}{100 * figure.low:.1f} to {100 * figure.high:.1f})"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _score(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
