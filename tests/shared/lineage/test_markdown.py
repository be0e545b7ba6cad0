"""Any text shows as itself: judged by a Markdown parser of another's make."""

import re
import string
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from shared.lineage import markdown

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Shown(HTMLParser):
    """The text that a browser would show, and the elements it is in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "br":
            self.text += "\n"

    def handle_data(self, data):
        self.text += data
        if self.cells:
            self.cells[-1] += data


TEXTS = st.text(
    st.one_of(st.sampled_from(string.punctuation + "ab1 _`*<>|$\\"), st.characters(codec="utf-8")), max_size=40
)


def visible(text: str) -> str:
    """What `inline` promises to show of a text."""
    text = re.sub(r"\r\n|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", "↵", text).replace("\t", " ")
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    text = "␣" * before + inner + "␣" * (len(text) - len(inner) - before)
    return re.sub("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def squeezed(text: str) -> str:
    return re.sub(r"[ \xa0\u1680\u2000-\u200a\u202f\u205f\u3000]+", " ", text).strip()


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("a|b")
@example("<img src=x onerror=alert(1)>")
@example("&lt;b&gt;")
@example("$x_1$ \\(y\\)")
@example("[a](javascript:alert(1)) ![b](c) <http://d.e>")
@example("*a* **b** __c__ _d_ ~~e~~ `f` ``g``")
@example("a\n---\nb\n\n# c")
@example("    code")
@example(" ")
@example("a ")
@example("1. a")
@example("12) a")
@example("- a")
@example("+")
@example("===")
@example("\\")
@example("a\\|b\\\\|c")
@example("[^1]: note")
@example("\u202eabc")
def test_a_name_shows_as_itself_in_a_line_and_in_a_cell(text):
    shown = Shown(PARSER.render(markdown.inline(text)))
    assert squeezed(shown.text) == squeezed(visible(text))
    assert set(shown.elements) <= {"p"}
    table = Shown(PARSER.render(markdown.table(["name", "n"], [[markdown.inline(text), "7"]])))
    assert [squeezed(cell) for cell in table.cells] == ["name", "n", squeezed(visible(text)), "7"]
    assert set(table.elements) <= {"table", "thead", "tbody", "tr", "th", "td"}


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=4).map("\n".join))
@example("a\n\n# b\n---\n> c\n- d\n```\ne\n```\n<div>f</div>\n\n    g")
@example("---\nlicense: mit\n---")
@example("| a |\n|---|\n| b |")
@example("a\n===")
@example("<!-- a\n-->")
def test_what_a_person_wrote_shows_line_by_line(text):
    shown = Shown(PARSER.render(markdown.quoted(text)))
    assert set(shown.elements) <= {"blockquote", "p", "br"}
    lines = [squeezed(visible(line.strip())) for line in re.split(r"\r\n|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", text)]
    assert [squeezed(line) for line in shown.text.split("\n") if squeezed(line)] == [line for line in lines if line]


def test_plain_names_stay_readable_in_the_source():
    for name in ("Pseudo-nitzschia", "fecal_pellet", "Detonula_Cerataulina_Lauderia", "0.01", "-1", "a/b (c)", "12"):
        assert markdown.inline(name) == name


@pytest.mark.parametrize("text", ["a`b", "`", "a|b", "", "a\nb", "<b>"])
def test_what_cannot_be_code_is_escaped_instead(text):
    assert "<code>" not in PARSER.render(markdown.code(text))


def test_code_is_code():
    assert markdown.code("ptvr/2026_ab") == "`ptvr/2026_ab`"
