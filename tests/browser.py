"""FiftyOne's App in a real browser, used by mouse and keyboard as a person would."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

SCREENSHOTS = Path(__file__).resolve().parent.parent / "build" / "screenshots"
SECONDS = 240  # a loaded machine takes its time
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_APP = f"""
import sys
import fiftyone as fo
from fiftyone.core.service import Service
Service._wait_for_child_port.__defaults__ = (None, {SECONDS})  # FiftyOne's minute is too short for a loaded machine
fo.launch_app(fo.load_dataset(sys.argv[1]), remote=True, address="127.0.0.1", port=int(sys.argv[2])).wait(-1)
"""
# The texts of a form that are red, or stand in a red box.
_RED = """form => [...form.querySelectorAll('*')].filter(part => {
    const [red, green, blue] = getComputedStyle(part).color.match(/[0-9.]+/g).map(Number);
    const text = part.children.length === 0 && part.textContent.trim();
    return text && (red > 150 && green < 100 && blue < 100 || part.closest('.MuiAlert-colorError'));
}).map(part => part.textContent.trim())"""


def chromium() -> str:
    """The path of the browser; skips the test where there is none, or fails where one is required."""
    path = shutil.which("chromium")
    if path and importlib.util.find_spec("playwright"):
        return path
    reason = "the browser tests need Debian's chromium and the Python package playwright"
    if os.environ.get("MBARI_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def app(dataset: str, log: Path, **env: str) -> Iterator[str]:
    """FiftyOne's App on a dataset, a process of its own; yields the dataset's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", _APP, dataset, str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait_until_up(process, port, log)
            yield f"http://127.0.0.1:{port}/datasets/{dataset}"
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_up(process: subprocess.Popen, port: int, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"the App did not start: {log.read_text()[-2000:]}")


@contextmanager
def person(url: str) -> Iterator["Person"]:
    """Somebody who sits before the App in a browser with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium(), args=_FLAGS, viewport={"width": 1440, "height": 1000}
        )
        context.set_default_timeout(SECONDS * 1000)
        # FiftyOne's advertisement covers a part of the grid until it was dismissed once.
        context.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
        yield Person(context.pages[0], url)
        context.close()


class Person:
    """What a person does with the App, named by what they read on the screen."""

    def __init__(self, page: Any, url: str) -> None:
        from playwright.sync_api import TimeoutError

        self.page = page
        self._timeout = TimeoutError
        self._url = url
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def open_app(self, samples: int) -> None:
        """Loads the App, or loads it again, and waits until the grid says how many samples there are."""
        self.page.goto(self._url)
        self.see(f"{samples:,} samples")

    def open_browser(self, search: str) -> None:
        """Opens the operator browser by the backquote key and searches."""
        box = self.page.get_by_placeholder("Search operations by name...")
        for _ in range(SECONDS // 10):
            self.page.keyboard.press("`")
            try:  # the App draws the grid before it listens to keys
                box.wait_for(timeout=10_000)
                break
            except self._timeout:
                continue
        box.fill(search)

    def open_form(self, operator: str, search: str | None = None) -> None:
        """Opens an operator's form by its name in the operator browser, found by what is searched for, or by it."""
        self.open_browser(search or operator)
        # The buttons move when the App has learnt whether the operator can be scheduled.
        with self._answered("resolve-execution-options"), self._redrawn():
            self.page.get_by_text(operator, exact=True).click()
        self.page.wait_for_timeout(500)

    def select(self, *places: int) -> None:
        """Ticks the ROIs at these places of the grid, 0 being the first."""
        for place in places:
            tile = self.page.locator("[data-cy='looker']").nth(place)
            tile.hover()
            tile.locator("label").click()

    def deselect(self, *places: int) -> None:
        """Takes the ticks of the ROIs at these places away."""
        self.select(*places)  # the same boxes

    def open_form_by_button(self, icon: str) -> None:
        """Opens an operator's form by its button above the grid, which shows this Material icon."""
        with self._answered("resolve-execution-options"), self._redrawn():
            self.page.get_by_text(icon, exact=True).click()
        self.page.wait_for_timeout(500)

    def press_icon(self, icon: str) -> None:
        """Presses the button above the grid that shows this Material icon, and does at once what it is for."""
        self.page.get_by_text(icon, exact=True).click()

    def sees_view(self, name: str) -> None:
        """Waits until the list above the sidebar says that a saved view is open."""
        from playwright.sync_api import expect

        chosen = self.page.locator("[data-cy='saved-views-selection']")
        expect(chosen).to_contain_text(name, timeout=SECONDS * 1000)

    def tiles(self, count: int) -> None:
        """Waits until the grid shows so many ROIs."""
        from playwright.sync_api import expect

        expect(self.page.locator("[data-cy='looker']")).to_have_count(count, timeout=SECONDS * 1000)

    def open_saved_views(self) -> None:
        """Shows the list of saved views above the sidebar."""
        self.page.locator("[data-cy='saved-views-selection']").click()

    def open_saved_view(self, name: str) -> None:
        """Chooses a saved view from the list above the sidebar."""
        self.open_saved_views()
        self.page.get_by_text(name, exact=True).click()

    def clear_view(self, samples: int) -> None:
        """Takes the view away, and waits until the grid says that it shows so many samples."""
        self.page.locator("[data-cy='btn-clear-view-bar']").click()
        self.see(f"{samples:,} samples")

    def open_workspace(self, name: str) -> None:
        """Chooses a saved workspace from the list at the top right, which says "Unsaved" until then."""
        workspace = self.page.get_by_text(name, exact=True)
        self._until_there(self.page.get_by_text("Unsaved", exact=True), workspace)
        workspace.click()

    def close_panels(self) -> None:
        """Closes what is open beside the grid; above a narrow grid the App puts the operators' buttons in a list."""
        closing = self.page.locator("[data-cy^='panel-tab'] [title='Close']")
        while closing.count():
            closing.first.click()
            self.page.wait_for_timeout(300)

    def open_panel(self, name: str, shows: str) -> None:
        """Opens a panel by the plus sign beside the tab of the samples, and waits until a text is in it."""
        choice, shown = self.page.get_by_text(name, exact=True).first, self.page.get_by_text(shows).first
        for _ in range(SECONDS // 15):
            if not choice.is_visible():
                self._until_there(self.page.locator("[title='New panel']").first, choice)
            choice.click()  # in the list; or on the tab of the panel, where it is open already
            try:  # a session that connects again takes what was just opened away
                shown.wait_for(timeout=15_000)
                return
            except self._timeout:
                continue
        self.look("not-seen")
        raise AssertionError(f"the panel {name} does not show {shows!r}")

    def open_row(self, text: str) -> None:
        """Clicks a row of a table by a text in it."""
        self.page.locator("tbody tr", has_text=text).first.click()

    def open_box(self, text: str) -> None:
        """Clicks the middle of a text in a figure, such as a box of a graph."""
        drawn = self.page.locator(".js-plotly-plot .textpoint text", has_text=text).first
        drawn.scroll_into_view_if_needed()
        box = drawn.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(300)  # a figure hears a click only where it has seen the mouse come
        self.page.mouse.click(x, y)

    def figures(self, count: int) -> None:
        """Waits until so many figures are drawn."""
        from playwright.sync_api import expect

        drawn = self.page.locator(".js-plotly-plot .main-svg:first-child")
        expect(drawn).to_have_count(count, timeout=SECONDS * 1000)

    def open_map(self, brain_key: str, points: int) -> None:
        """Opens a map in the Embeddings panel, and waits until its points have come."""
        self.page.get_by_text(brain_key, exact=True).click()
        self.see(f"{points:,} points")

    def color_by(self, field: str) -> None:
        """Colours the points of the open map by a field, and waits for the legend."""
        choice = self.page.get_by_text(field, exact=True)
        self._until_there(self.page.get_by_text("Color by"), choice)
        choice.click()
        self.see("Click to hide")

    def lasso(self, left: float, top: float, right: float, bottom: float, look: str | None = None) -> int:
        """Draws around a part of the open map, given in fractions of it; returns how many points that chose.

        With `look`, a screenshot of that name shows the line, just before it is let go.
        """
        self.page.locator(".emb-mode-segment", has_text="Select").click()
        counter = self.page.locator(".emb-plot-counter")
        box = counter.locator("xpath=preceding::canvas[1]").bounding_box()
        x = [box["x"] + box["width"] * part for part in (left, right)]
        y = [box["y"] + box["height"] * part for part in (top, bottom)]
        chosen = counter.filter(has_text=re.compile("[1-9][0-9,]* selected"))
        for _ in range(SECONDS // 5):
            self._drag([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])], look)
            try:  # points can be chosen only some time after the panel has counted them
                chosen.wait_for(timeout=5_000)
                break
            except self._timeout:
                continue
        else:
            self.look("not-seen")
            raise AssertionError("no point is in the lasso")
        count = chosen.inner_text().split(" selected")[0]
        self.see(f"{count} samples")
        return int(count.replace(",", ""))

    def hide(self, field: str) -> None:
        """Unticks a field in the sidebar, so that the grid does not draw it."""
        self.page.locator(f"[data-cy='checkbox-{field}']").click()

    def show(self, field: str) -> None:
        """Ticks a field in the sidebar, so that the grid draws it."""
        self.hide(field)  # the same box

    def write(self, label: str, value: str) -> None:
        """Types into the input below a label, in place of what it holds."""
        box = self._input(label)
        with self._redrawn():
            box.fill(value)
            # In a list of choices Enter would take the one that is marked there, after a text that came all at once.
            box.press("Tab" if box.get_attribute("role") == "combobox" else "Enter")

    def choose(self, label: str, option: str) -> None:
        """Chooses from the list below a label the one that begins with `option`."""
        begins = re.compile("^" + re.escape(option).replace("/", r"\/"))  # JavaScript's end at a bare slash
        self._input(label).click()
        with self._redrawn():
            self.page.get_by_role("option", name=begins).first.click()

    def tick(self, text: str) -> None:
        """Ticks the box beside a text."""
        with self._redrawn():
            self.page.get_by_text(text).first.click()

    def press(self, button: str) -> None:
        """Presses a button, once it can be pressed."""
        self.page.get_by_role("button", name=button, exact=True).click()

    def execute_now(self) -> None:
        """Executes at once what the form would schedule."""
        self.page.get_by_label("split button").locator("[aria-haspopup='menu']").click()
        self.page.get_by_text("Run this operation synchronously").click()
        self.press("Execute")

    def can_press(self, button: str) -> None:
        """Waits until a button can be pressed."""
        from playwright.sync_api import expect

        expect(self.page.get_by_role("button", name=button, exact=True)).to_be_enabled(timeout=SECONDS * 1000)

    def cannot_press(self, button: str) -> None:
        """Waits until a button is there and cannot be pressed."""
        from playwright.sync_api import expect

        expect(self.page.get_by_role("button", name=button, exact=True)).to_be_disabled(timeout=SECONDS * 1000)

    def see(self, text: str) -> None:
        """Waits until a text is on the screen."""
        try:
            self.page.get_by_text(text).first.wait_for()
        except self._timeout:
            self.look("not-seen")
            raise

    def table(self, *header: str) -> list[list[str]]:
        """The rows of the table with this header, once there is one."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            # One question to the page, so that it cannot be drawn anew between two of them.
            for text in self.page.locator("table").all_inner_texts():
                rows = [line.split("\t") for line in text.splitlines()]
                if rows and tuple(rows[0]) == header:
                    return rows[1:]
            self.page.wait_for_timeout(200)
        self.look("not-seen")
        raise AssertionError(f"no table with the columns {header}")

    def complaints(self) -> list[str]:
        """What the open form says in red: boxes, and lines under its inputs."""
        return self.page.get_by_role("dialog").last.evaluate(_RED)

    def events(self, panel: str) -> list[str]:
        """A list to which every event that this panel sends from now on is added, by its name."""
        sent: list[str] = []

        def hear(request: Any) -> None:
            if request.url.endswith("/operators/execute"):
                asked = request.post_data_json
                if asked["operator_uri"].endswith(f"/{panel}"):
                    sent.append(asked["params"]["__method__"])

        self.page.on("request", hear)
        return sent

    def look(self, name: str) -> None:
        """Keeps a screenshot for whoever wants to see what the test saw."""
        self.page.wait_for_timeout(700)  # what is being drawn
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def _until_there(self, press: Any, awaited: Any) -> None:
        """Clicks what opens a list until the list is there: a panel that is drawn anew closes it again."""
        for _ in range(SECONDS // 5):
            press.click()
            try:
                awaited.wait_for(timeout=5_000)
                return
            except self._timeout:
                continue
        self.look("not-seen")
        raise AssertionError(f"{awaited} is not offered")

    def _drag(self, corners: list[tuple[float, float]], look: str | None) -> None:
        mouse = self.page.mouse
        mouse.move(*corners[0])
        mouse.down()
        for corner in corners[1:]:
            mouse.move(*corner, steps=12)
        if look:
            self.look(look)
        mouse.up()

    def _input(self, label: str) -> Any:
        # FiftyOne does not tie its labels to the inputs; a list of choices is a `div`.
        follows = "following::*[self::input or @role='combobox'][1]"
        form = self.page.get_by_role("dialog").last  # a panel behind it may show the same word
        return form.locator(f"xpath=.//*[normalize-space(text())='{label}']/{follows}").first

    def _redrawn(self) -> Any:
        """Waits until FiftyOne has drawn the form anew, as it does after every change."""
        return self._answered("resolve-type")

    def _answered(self, question: str) -> Any:
        return self.page.expect_response(lambda response: response.url.endswith(f"/operators/{question}"))
