"""The card as people read it: metadata that Hugging Face takes, and a text whose every figure is the card's."""

import re
import socket
from datetime import UTC, datetime

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from shared.lineage import render
from shared.lineage.card import Ancestor, Snapshot
from shared.lineage.notes import Note
from tests import cards

WILD = [
    "a|b",
    "<script>alert(1)</script>",
    "{{ 7*7 }} {% raw %} {# x #}",
    "$x$ and $$y$$",
    "one\n---\nlicense: mit\n---\n# two",
    "`c` *d* [e](f) ![g](h)",
    "last",
]
FIRST = Note(
    at=datetime(2026, 3, 2, 9, 5, tzinfo=UTC), by="ann", intended_use="For counting.", limitations="Not in winter."
)
SECOND = Note(at=datetime(2026, 4, 1, tzinfo=UTC), by="bob", intended_use="For teaching.", notes="Seen: *fine*.")


def html(text: str) -> str:
    body = text.split("\n---\n", 1)[1]
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


def metadata(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture(scope="module")
def card():
    return cards.made()


@pytest.fixture(scope="module")
def text(card):
    return render.markdown(card, [], ["plots/confusion.png", "plots/per_class_f1.png"])


def test_the_metadata_are_what_hugging_face_knows(card, text):
    said = metadata(text)
    assert {k: said[k] for k in ("license", "library_name", "pipeline_tag", "base_model")} == {
        "license": "agpl-3.0",
        "library_name": "ultralytics",
        "pipeline_tag": "image-classification",
        "base_model": "yolov8n-cls.pt",
    }
    assert "plankton" in said["tags"]
    results = {r.dataset_split + " " + r.metric_type: r for r in ModelCard(text).data.eval_results}
    assert set(results) == {"test accuracy", "test f1", "val accuracy", "val f1"}
    assert results["test accuracy"].metric_value == round(card.evaluation[0].top1.value, 4)
    assert results["test f1"].metric_args["interval_95"][0] == round(card.evaluation[0].macro_f1.low, 4)
    assert results["val f1"].dataset_revision == card.data.digest


def test_begun_from_nothing_there_is_no_base_model():
    scratch = cards.made(base=[Ancestor(name="yolov8n-cls.yaml", licence="agpl-3.0")])
    text = render.markdown(scratch, [])
    assert "base_model" not in metadata(text)
    assert "training began with random weights" in text


BASES = {
    "yolov8n-cls.pt": "yolov8n-cls.pt",
    "s3://bucket/weights/leaf.pt": "leaf.pt",
    "/somewhere/weights/leaf.pt": "leaf.pt",
    "hf://owner/name": "owner/name",
    "ptvr/20260301T120000_ab12cd": "ptvr/20260301T120000_ab12cd",
}


@pytest.mark.parametrize("name", sorted(BASES))
def test_the_base_is_named_without_its_place(name):
    first = Ancestor(name=name, sha256="b" * 64, digest="c" * 64)
    text = render.markdown(cards.made(base=[first, Ancestor(name="yolo11n-cls.pt", licence="agpl-3.0")]), [])
    assert metadata(text)["base_model"] == BASES[name]
    chain = text.split("### What it was fine-tuned from")[1].split("###")[0]
    assert chain.index("b" * 64) < chain.index("c" * 64) < chain.index("- yolo11n-cls.pt, AGPL-3.0")
    assert chain.count("not known here") == 1


def test_the_text_has_what_a_newcomer_asks(card, text):
    test = card.evaluation[0]
    share = f"{100 * test.top1.value:.1f}% ({100 * test.top1.low:.1f} to {100 * test.top1.high:.1f})"
    assert text.count(share) == 2  # at a glance, and in the table
    assert share.replace("(", "(95% interval ") in text.split("\n# ptvr")[1][:300]
    assert "would be right for 33.3% of test" in text  # three classes of equal size
    for expected in (
        card.intended_use,
        card.data.digest,
        card.weights_sha256,
        "ann@example.org",
        "Never measured, for want of test images: rare.",
        "AGPL-3.0: it is made from weights",
        "none (the open-source FiftyOne has none)",
        "| in no split | 7 |",
        "| train | 120 | learned from |",
        "| rare | 2 | 0 | 0 |",
        "| rare | 2 | 0 | \N{EN DASH} | \N{EN DASH} | \N{EN DASH} |",
        "### By depth",
        "| 2026-02-27 08:00 UTC | bob | 31 | `65f0` |",
        "| Cost | 0.28, at 3.06 an hour |",
        "| lr0 | 0.01 |",
        "This is the first version of the model.",
        "![Confusion matrix: which class is taken for which](plots/confusion.png)",
    ):
        assert expected in text, expected
    for row in test.per_class[:3]:
        f1 = f"{row.f1.value:.3f} ({row.f1.low:.3f} to {row.f1.high:.3f})"
        assert re.search(rf"^\| {row.label} \| \d+ \| {row.n} \| .* \| {re.escape(f1)} \|$", text, re.MULTILINE)


def test_every_table_is_one(text):
    """A stray pipe or an empty line would break a table, and its rows would show as text."""
    page = html(text)
    assert "|" not in re.sub(r"<[^>]+>", "", page)
    assert page.count("<table>") == text.count("| --- |\n") + text.count("---: |\n")


def test_no_line_ends_in_space_and_none_are_empty_twice(text):
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)
    assert "\n\n\n" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_names_of_any_kind_show_as_themselves():
    wild = cards.made(cards.rows(480, WILD), WILD)
    text = render.markdown(wild, [])
    said = metadata(text)
    assert said["license"] == "agpl-3.0"
    assert ModelCard(text).data.license == "agpl-3.0"
    page = html(text)
    assert "<script" not in page
    assert "<h1>two" not in page
    assert page.count("<h1>") == 1
    assert "{{ 7*7 }} {% raw %} {# x #}" in page
    assert "49" not in re.findall(r"<td[^>]*>([^<]*)</td>", page)[:8]
    assert "<td>a|b</td>" in page
    assert "$" not in text
    assert "<em>" not in page.split("<h2>How good it is</h2>")[0].replace("<em>ROI</em>", "").replace(
        "<em>Write card</em>", ""
    )


def test_names_of_datasets_views_and_fields_of_any_kind_are_harmless():
    evil = 'x" |\n---\nlicense: mit\n---\n<b>{{ 1 }}`'
    model = {**cards.model(), "dataset": evil, "label_field": "a`b", "created_by": evil, "extra_views": [evil]}
    from shared.lineage.card import build

    table = cards.rows()
    made = build(
        model,
        {"test": cards.scores(table, "test")},
        table,
        cards.context(table, saved_view=evil, group_field=evil, snapshot=Snapshot(name=evil), view=[{"a": "```\n# b"}]),
    )
    text = render.markdown(made, [])
    assert metadata(text)["license"] == "agpl-3.0"
    assert metadata(text)["model-index"][0]["results"][0]["dataset"]["name"] == " ".join(evil.split())
    page = html(text)
    assert "<b>" not in page
    assert page.count("<h1>") == 1
    assert "|" in page  # the pipe of the name
    assert page.count("<pre>") == 1


def test_notes_are_dated_and_the_newest_use_stands_first(card):
    text = render.markdown(card, [FIRST, SECOND])
    use = text.split("## What it is for")[1].split("##")[0]
    assert "bob, 2026-04-01 00:00 UTC" in use
    assert "> For teaching." in use
    assert card.intended_use not in text
    limits = text.split("## What not to expect of it")[1].split("##")[0]
    assert "> Not in winter." in limits
    assert "ann, 2026-03-02 09:05 UTC" in limits
    assert card.limitations[1] in limits  # what the data show is not hidden
    wrote = text.split("## What people wrote about it")[1].split("##")[0]
    assert wrote.index("For counting.") < wrote.index("For teaching.")
    assert "Seen: \\*fine\\*." in wrote


def test_notes_that_are_not_only_text_are_only_text(card):
    evil = "---\nlicense: mit\n---\n# Heading\n{{ card.limitations }}{% for x in y %}\n<img src=x>\n\n| a |\n|---|\n"
    note = Note(at=datetime(2026, 4, 1, tzinfo=UTC), by=evil, intended_use=evil, limitations=evil, notes=evil)
    text = render.markdown(card, [note])
    assert metadata(text) == metadata(render.markdown(card, []))
    page = html(text)
    assert page.count("<h1>") == 1
    assert "<img" not in page
    assert (
        page.count("{{ card.limitations }}{% for x in y %}") == 8
    )  # thrice as written, the name of the author besides
    assert page.count("<table>") == html(render.markdown(card, [])).count("<table>")


def test_it_is_the_same_every_time(card, text):
    assert render.markdown(card, [], ["plots/confusion.png", "plots/per_class_f1.png"]) == text


def test_it_asks_nobody(card, monkeypatch):
    def refuse(*args, **more):
        raise AssertionError("a call to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert render.markdown(card, [FIRST])


def test_a_card_without_any_measurement_is_still_one():
    text = render.markdown(cards.made(splits=()), [])
    assert "It was never measured on images it had not seen." in text
    assert "model-index" not in text


def test_what_changed_is_shown_with_both_figures(card):
    before = cards.rows()
    labels = before["label"].to_pylist()
    labels[4:6] = ["Akashiwo|"] * 2
    metrics = {split: cards.scores(before, split) for split in ("val", "test")}
    after = cards.rows(label=labels)
    text = render.markdown(
        cards.made(after, [*cards.CLASSES[:3], "Akashiwo|", "rare"], previous=(card, metrics, before)), []
    )
    part = text.split("## What changed since the previous version")[1].split("##")[0]
    assert "`ptvr/20260301T120000_ab12cd`" in part
    assert re.search(r"\| top-1, test \| 0\.\d{3} \| 0\.\d{3} \| [+-]0\.\d{3} \| yes \|", part)
    assert "| Detonula_Cerataulina_Lauderia | Akashiwo&#124; | 2 |" in part
    assert "New classes: Akashiwo&#124;." in part
    assert "ROIs with another label: 2" in part
    assert "ROIs new" not in part
    assert "cannot be compared" not in part
