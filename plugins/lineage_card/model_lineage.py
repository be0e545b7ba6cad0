"""The panel `model_lineage`: all model versions, and of one its figures, card, data and descendants.

What it shows is put together in `shared/lineage` as plain data; here it is only laid out. Every button opens the form
of the operator that does the work.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone.core.odm as odm
import fiftyone.operators.types as types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel, PanelConfig
from fiftyone.operators.registry import OperatorRegistry

from .promotion import history_rows
from .shared.lineage import family, figures, overview
from .shared.lineage.overview import Entry, Opened
from .shared.lineage.registry import Registry
from .shared.memo import cached, forget
from .shared.operators import secrets

PAGE = 25  # versions on one page
ALL = "all models"
COLUMNS = {  # in a panel of half the window the last ones are reached by scrolling
    "version": "Version",
    "aliases": "Alias",
    "top1": "Top-1",
    "macro_f1": "Macro F1",
    "data": "Data",
    "freshness": "Data since",
    "trained": "Trained (UTC)",
    "dataset": "Dataset",
    "judged": "Judged on",
}
MOVES = {"at": "When", "alias": "Alias", "by": "By", "reason": "Why", "how": "How", "version": "To", "before": "From"}
PARTS = {"overview": ("Overview", "info"), "figures": ("Figures", "bar_chart"), "card": ("Card", "description")}
OPENED = "lineage_card/opened"  # the key under which what was read of a version is remembered for a short while
LINEAGE, APPLY = "@mbari/lineage_card", "@mbari/apply_model/apply_model"
NONE_YET = (
    "## No model version yet\n\nLabel some ROIs, give them splits, and run **Train a classifier** from the operator "
    "browser (press the key `` ` ``). Each training appears here, with the data that it learned from."
)
HOW_TO_READ = (
    "Click a version to see how good it is, what it learned from, and what can be done with it.\n\n**Alias**: a name, "
    "such as `production`, that is moved from version to version. **Data**: equal letters mean the very same training "
    "data. **Data since**: whether those labels have changed, as of the last look."
)
FAMILY = (
    "### Where it comes from, and what came of it\n\nFrom left to right: what it was fine-tuned from, this version, "
    "and those that were fine-tuned from it; in green the data. Click a version to open it."
)

# Headings as large as in FiftyOne's own panels, and nothing wider than the panel but what scrolls by itself.
_HEADINGS = {
    "& h1": {"fontSize": "1.5rem"},
    "& h2": {"fontSize": "1.3rem"},
    "& h3, & h4": {"fontSize": "1.1rem"},
    "& :is(h1, h2, h3, h4):not(:first-of-type), & h2": {"mt": 2},
    "& :is(h1, h2, h3, h4)": {"mb": 0.5},
}
_CELLS = {"& td, & th": {"py": 0.75, "px": 1}, "& th:empty": {"p": 0, "border": 0}, "& :has(> table)": {"my": 1}}
_TEXT = {"container": {"sx": {**_HEADINGS, **_CELLS, "overflowX": "auto"}}}
_PAGE = {"grid": {"sx": {"p": 2, "gridTemplateColumns": "minmax(0, 1fr)", "gridAutoRows": "max-content"}}}
_BAR = {"grid": {"sx": {"display": "flex", "flexWrap": "wrap", "alignItems": "center"}}}
_IN_BAR = {"item": {"sx": {"width": "auto"}}}
_CELL = {"sx": {"fontSize": "0.875rem", "whiteSpace": "nowrap", "px": 1}}
_TABLE = {
    "tableContainer": {"sx": {"overflowX": "auto"}},
    "tableHeadCell": _CELL,
    "tableBodyCell": {"sx": {**_CELL["sx"], "cursor": "pointer"}},
}
_STILL = {"displayModeBar": False, "scrollZoom": False, "responsive": True}  # a wheel over a figure scrolls the panel


class _Reading(PanelConfig):
    """A panel that changes nothing by itself; FiftyOne's own configuration of panels takes no risk level."""

    @property
    def risk_level(self) -> Any:
        """Low: it only reads."""
        return types.RiskLevel.LOW


class ModelLineage(Panel):
    """Shows the registry of model versions."""

    @property
    def config(self) -> PanelConfig:
        """FiftyOne's view of the panel."""
        return _Reading(
            name="model_lineage",
            label="Model lineage",
            icon="account_tree",
            category=Categories.CUSTOM,
            help_markdown="Every model version, the data it learned from, and what came of it.",
        )

    # --- what a person does ---

    def on_load(self, ctx: Any) -> None:
        """Begins with the list."""
        ctx.panel.set_state({"version": None, "page": 0, "filters": {"model": ALL, "named": False}})

    def choose_model(self, ctx: Any) -> None:
        """Shows the versions of one model, or of all."""
        ctx.panel.set_state({"filters.model": ctx.params.get("value"), "page": 0})

    def choose_named(self, ctx: Any) -> None:
        """Shows only the versions that an alias points to, or all."""
        ctx.panel.set_state({"filters.named": bool(ctx.params.get("value")), "page": 0})

    def newer(self, ctx: Any) -> None:
        """Turns a page back."""
        ctx.panel.set_state("page", max(_page(ctx) - 1, 0))

    def older(self, ctx: Any) -> None:
        """Turns a page on."""
        ctx.panel.set_state("page", _page(ctx) + 1)

    def open_row(self, ctx: Any) -> None:
        """Opens the version whose row was clicked."""
        shown, row = ctx.panel.get_state("shown") or [], ctx.params.get("row", -1)
        if 0 <= row < len(shown):
            _open(ctx, shown[row])

    def open_box(self, ctx: Any) -> None:
        """Opens the version whose box was clicked."""
        name = str(ctx.params.get("id") or "")
        if name in {entry.name for entry in _listed()}:
            _open(ctx, name)

    def close(self, ctx: Any) -> None:
        """Goes back to the list."""
        ctx.panel.set_state("version", None)

    def choose_part(self, ctx: Any) -> None:
        """Shows another part of the version."""
        ctx.panel.set_state("part", ctx.params.get("part"))

    def apply(self, ctx: Any) -> None:
        """Opens the form of `apply_model`; without a selection its target is the current view."""
        self._prompt(ctx, APPLY, model=_version(ctx))

    def compare(self, ctx: Any) -> None:
        """Opens the form of `compare_models` with this version and the one it has to measure itself by."""
        rival = overview.rival(_listed(), _version(ctx))
        self._prompt(ctx, f"{LINEAGE}/compare_models", models=[*([rival] if rival else []), _version(ctx)])

    def promote(self, ctx: Any) -> None:
        """Opens the form of `promote_model`."""
        self._prompt(ctx, f"{LINEAGE}/promote_model", model=_version(ctx))

    def show_training_data(self, ctx: Any) -> None:
        """Opens the form of `show_training_data`."""
        self._prompt(ctx, f"{LINEAGE}/show_training_data", model=_version(ctx))

    def verify(self, ctx: Any) -> None:
        """Opens the form of `verify_version`."""
        self._prompt(ctx, f"{LINEAGE}/verify_version", model=_version(ctx))

    def write_note(self, ctx: Any) -> None:
        """Opens the form of `write_card`."""
        self._prompt(ctx, f"{LINEAGE}/write_card", model=_version(ctx))

    def show_runs(self, ctx: Any) -> None:
        """Opens the form of `show_runs`."""
        self._prompt(ctx, f"{LINEAGE}/show_runs")

    def redraw(self, ctx: Any) -> None:
        """Shows what a form that was opened from here has changed."""
        forget(OPENED)  # what is drawn next is read anew

    def _prompt(self, ctx: Any, uri: str, **params: Any) -> None:
        """Opens an operator's form with some of its parameters filled in."""
        if OperatorRegistry().operator_exists(uri):
            ctx.prompt(uri, params=params, on_success=self.redraw)
        else:
            ctx.ops.notify(f"The operator {uri} is not installed here.", variant="error")

    # --- what is drawn ---

    def render(self, ctx: Any) -> types.Property:
        """Draws the list, or the version that is open."""
        panel = types.Object()
        listed = _listed()
        if _version(ctx):
            self._draw_version(ctx, panel, listed)
        elif listed:
            self._draw_list(ctx, panel, listed)
        else:
            _text(panel, "none_yet", NONE_YET)
        return types.Property(panel, view=types.GridView(orientation="vertical", gap=2, componentsProps=_PAGE))

    def _draw_list(self, ctx: Any, panel: types.Object, listed: Sequence[Entry]) -> None:
        model = ctx.panel.get_state("filters.model") or ALL
        chosen = overview.chosen(listed, None if model == ALL else model, bool(ctx.panel.get_state("filters.named")))
        pages = max(-(-len(chosen) // PAGE), 1)
        page = min(_page(ctx), pages - 1)
        shown = overview.with_freshness(odm.get_db_conn(), chosen[page * PAGE : (page + 1) * PAGE])
        ctx.panel.set_state({"shown": [entry.name for entry in shown], "page": page})
        _text(panel, "how", HOW_TO_READ)
        self._draw_filters(panel, overview.models(listed))
        _table(ctx, panel, "rows", COLUMNS, [overview.row(entry) for entry in shown], on_click_row=self.open_row)
        if pages > 1:
            foot = panel.h_stack("foot", gap=2, componentsProps=_BAR)
            _button(foot, "newer", "Newer", "chevron_left", self.newer, disabled=page == 0)
            _button(foot, "older", "Older", "chevron_right", self.older, disabled=page == pages - 1)
            where = f"Page {page + 1} of {pages}, {len(chosen):,} versions"
            foot.str(f"page_{page}_of_{pages}", default=where, view=types.MarkdownView(componentsProps=_IN_BAR))

    def _draw_filters(self, panel: types.Object, models: Sequence[str]) -> None:
        # What they show at first is set in `on_load`: a `default` would send an event when it is drawn, as tabs do.
        bar = panel.h_stack("filters", gap=2, componentsProps=_BAR)
        choice = types.DropdownView(componentsProps=_IN_BAR)
        for value in (ALL, *models):
            choice.add_choice(value, label=value)
        bar.enum("model", choice.values(), view=choice, on_change=self.choose_model)
        only = types.CheckboxView(componentsProps=_IN_BAR)
        bar.bool("named", label="Only those with an alias", view=only, on_change=self.choose_named)
        _button(bar, "runs", "Runs", "history", self.show_runs, variant="outlined")

    def _draw_version(self, ctx: Any, panel: types.Object, listed: Sequence[Entry]) -> None:
        name = _version(ctx)
        entry = next((entry for entry in listed if entry.name == name), None)
        panel.btn("back", "All versions", icon="arrow_back", on_click=self.close, variant="outlined")
        _text(panel, "title", f"# {name}")
        opened = cached((OPENED, name), lambda: _read(ctx, name))
        for number, problem in enumerate(opened.problems):
            panel.view(f"problem_{number}", types.Warning(label=problem))
        if entry is None or opened.record is None:
            return
        self._draw_buttons(panel)
        part = ctx.panel.get_state("part") or "overview"
        self._draw_parts(panel, part)
        if part == "figures":
            _draw_figures(panel, opened)
        elif part == "card":
            _text(panel, "card", opened.markdown or "There is no card that could be shown.")
        else:
            self._draw_overview(ctx, panel, opened, entry, listed)

    def _draw_buttons(self, panel: types.Object) -> None:
        bar = panel.h_stack("buttons", gap=1, componentsProps=_BAR)
        _button(bar, "apply", "Apply to the current view", "play_arrow", self.apply, variant="contained")
        _button(bar, "training_data", "Show training data", "collections", self.show_training_data)
        _button(bar, "compare", "Compare", "compare_arrows", self.compare)
        _button(bar, "promote", "Promote", "trending_up", self.promote)
        _button(bar, "verify", "Verify", "fact_check", self.verify)
        _button(bar, "note", "Add a note", "edit_note", self.write_note)

    def _draw_parts(self, panel: types.Object, chosen: str) -> None:
        # Tabs would send an event when they are drawn as well: answered late, it takes back a click in the meantime.
        bar = panel.h_stack("parts", gap=1, componentsProps=_BAR)
        for part, (label, icon) in PARTS.items():
            variant = "contained" if part == chosen else "outlined"
            _button(bar, part, label, icon, self.choose_part, params={"part": part}, variant=variant)

    def _draw_overview(
        self, ctx: Any, panel: types.Object, opened: Opened, entry: Entry, listed: Sequence[Entry]
    ) -> None:
        _text(panel, "facts", "\n".join(f"- **{word}:** {said}" for word, said in overview.facts(opened, entry)))
        moves = cached((OPENED, "moves", entry.name), lambda: _moves(entry))
        if moves:
            _text(panel, "moves_title", "### Its aliases: who moved them, when and why")
            _table(ctx, panel, "moves", MOVES, moves)
        boxes, left_out = family.family(listed, entry.name)
        more = f" {left_out} later ones are not drawn." if left_out else ""
        _text(panel, "family_title", FAMILY + more)
        _plot(panel, "family", family.drawing(boxes), on_click=self.open_box)


def _draw_figures(panel: types.Object, opened: Opened) -> None:
    classes = opened.card.data.classes if opened.card else {}
    made = figures.figures(opened.metrics, opened.training_csv, classes)
    _text(panel, "judged", overview.judged(opened) if made else "There is nothing that could be drawn of this version.")
    for figure in made:
        _text(panel, f"about_{figure['name']}", f"### {figure['title']}\n\n{figure['caption']}")
        _plot(panel, figure["name"], figure)


def _button(bar: types.Object, name: str, label: str, icon: str, on_click: Any, **more: Any) -> None:
    bar.btn(name, label, icon=icon, on_click=on_click, componentsProps=_IN_BAR, **more)


def _text(panel: types.Object, name: str, markdown: str) -> None:
    panel.str(name, default=markdown, view=types.MarkdownView(componentsProps=_TEXT))


def _plot(panel: types.Object, name: str, figure: dict[str, Any], **events: Any) -> None:
    height = f"{figure['height']}px"
    panel.plot(name, data=figure["traces"], layout=figure["layout"], config=_STILL, height=height, **events)


def _table(
    ctx: Any, panel: types.Object, name: str, columns: Mapping[str, str], rows: Sequence[Any], **events: Any
) -> None:
    table = types.TableView(componentsProps=_TABLE, **events)
    for key, label in columns.items():
        table.add_column(key, label=label)
    # The App merges what it gets into what it has: a shorter list would be followed by the rest of a longer one.
    name = f"{name}_{len(rows)}"
    panel.list(name, types.Object(), view=table)
    ctx.panel.set_data(name, list(rows))


def _moves(entry: Entry) -> list[dict[str, Any]]:
    """The moves of aliases to this version, and away from it, the newest first."""
    registry, version = Registry(odm.get_db_conn()), entry.name.rpartition("/")[2]
    return [
        {"alias": f"{entry.model}@{alias}", **row}
        for alias in registry.aliases(entry.model)
        for row in history_rows(registry.history(entry.model, alias))
        if version in (row["version"], row["before"])
    ]


def _listed() -> list[Entry]:
    return overview.entries(odm.get_db_conn())


def _read(ctx: Any, name: str) -> Opened:
    known = secrets(ctx)
    return overview.open_version(odm.get_db_conn(), name, known.get("MBARI_ARTIFACTS", ""), known)


def _page(ctx: Any) -> int:
    return int(ctx.panel.get_state("page") or 0)


def _version(ctx: Any) -> str:
    return str(ctx.panel.get_state("version") or "")


def _open(ctx: Any, name: str) -> None:
    forget(OPENED)  # somebody may have added a note, or mended what was damaged
    ctx.panel.set_state({"version": name, "part": "overview"})
