"""Every page of the project: what it links to is there, and the README is short enough to be read."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.test_layout import ROOT, named, tracked

PAGES = [path for path in tracked() if path.suffix == ".md" and "shared" not in path.relative_to(ROOT).parts]


def prose(page: Path) -> str:
    """A page without what stands in it as code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()<>]", "", code[0]), text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: a second heading of one name gets `-1`."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return set(found)


def dead(page: Path) -> list[str]:
    """The links and pictures of a page that lead nowhere within the project."""
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        place, _, anchor = unquote(target).partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        to = (page.parent / place).resolve() if place else page
        if not to.is_relative_to(ROOT) or not to.exists() or (anchor and anchor not in anchors(to)):
            missing.append(target)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    assert not dead(page)


def test_a_dead_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# The `head` of it\n\n[a](#the-head-of-it) [b](#no) ![c](c.png) `[d](d)` [e](../e.md) [f](https://f.g/h)\n"
    )
    assert dead(page) == ["#no", "c.png", "../e.md"]


def test_pages_name_no_lines_of_files() -> None:
    assert not [named(page) for page in PAGES if re.search(r"\.py(:\d|#L\d)", page.read_text())]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
