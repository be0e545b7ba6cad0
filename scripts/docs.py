"""Writes what the operators' declarations say between two marks of the plugins' READMEs and of docs/operators.md.

What a person wrote stands outside of the marks and stays. `tests/scripts/test_docs.py` fails where a page is stale.
"""

import ast
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the test whose rules of import are told
BEGIN, END = "<!-- written by `make docs` from the code, down to the next mark -->", "<!-- down to here -->"

WRITES = {"nothing": "reads", "fiftyone": "writes in FiftyOne", "outside": "writes outside of FiftyOne"}
EXECUTION = {"immediate": "at once", "delegated": "scheduled only"}
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}
EXAMPLES = """\
The examples can be pasted into `make python` after `make demo`: `foo` is `fiftyone.operators` there, `dataset` the
demo's, and `view` the samples to work on, its first 300. Ids of runs are to be put in; what an example changes stays
until the next `make demo`. With `"request_delegation": True` a run is scheduled for a worker."""
WIDTH = 120  # of a line of an example, as ruff has it


@dataclass(frozen=True)
class Variable:
    """A name that stands in an example as it is."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Plugin:
    """A plugin as FiftyOne loads it: its operators and panels, and the names of its secrets."""

    name: str
    operators: list[Any]
    panels: list[Any]
    secrets: Mapping[str, str]

    @property
    def readme(self) -> Path:
        return ROOT / "plugins" / self.name / "README.md"


def plugins() -> list[Plugin]:
    """All plugins of this checkout, registered by FiftyOne itself, in the order of their names."""
    os.environ["FIFTYONE_PLUGINS_DIR"] = str(ROOT / "plugins")
    import importlib

    import fiftyone as fo
    from fiftyone.plugins import list_plugins
    from fiftyone.plugins.context import PluginContext

    fo.config.plugins_dir = str(ROOT / "plugins")
    loaded = []
    for definition in list_plugins(builtin=False):
        context = PluginContext(definition)
        context.register_all()
        if context.errors:
            raise ImportError(context.errors[0])
        said = importlib.import_module(f"{type(context.instances[0]).__module__.rpartition('.')[0]}.shared.operators")
        operators = [made for made in context.instances if hasattr(made, "spec")]
        panels = [made for made in context.instances if not hasattr(made, "spec")]
        secrets = {name: said.SECRETS[name] for name in definition.secrets}
        loaded.append(Plugin(definition.name.rpartition("/")[2], operators, panels, secrets))
    return sorted(loaded, key=lambda plugin: plugin.name)


def pages() -> dict[Path, str]:
    """Every page with its text as it should be."""
    known = plugins()
    made = {plugin.readme: readme(plugin) for plugin in known}
    made[ROOT / "docs" / "operators.md"] = overview(known)
    made[ROOT / "docs" / "architecture.md"] = layers()
    return {path: put(path.read_text(), text) for path, text in made.items()}


def put(page: str, text: str) -> str:
    """A page with `text` between its marks.

    Raises:
        ValueError: when a mark is missing, or there twice
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"a page needs these two lines, once each: {BEGIN} and {END}")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.split(END)[1]}"


def readme(plugin: Plugin) -> str:
    """The part of a plugin's README that its declarations say."""
    listed = [
        (f"[`{o.spec.name}`](#{o.spec.name})", o.spec.label, o.spec.description, where(o.spec), touches(o.spec))
        for o in plugin.operators
    ]
    parts = [
        "## Operators",
        table(("operator", "in the App", "what it does", "when it runs", "what it touches"), listed),
        EXAMPLES,
        *(f"The panel `{p.config.name}`, *{p.config.label}*: {p.config.help_markdown}" for p in plugin.panels),
        *(part for operator in plugin.operators for part in chapter(operator)),
        "## Secrets",
        "None is needed until something asks for it. FiftyOne Enterprise keeps them on its Secrets page; open-source "
        "FiftyOne reads\nenvironment variables of the same names. Examples and rights are in the "
        "[admin's page](../../docs/admin.md).",
        table(("secret", "what for"), [(f"`{name}`", text) for name, text in plugin.secrets.items()]),
    ]
    return "\n\n".join(parts)


def chapter(operator: Any) -> list[str]:
    """What is to be said of one operator: its parameters, and how it is called."""
    spec, schema = operator.spec, operator.Params.model_json_schema()
    needed = set(schema.get("required", ()))
    rows = (
        [
            (f"`{name}`", kind(said), default(name, said, needed), purpose(name, operator.Params.model_fields[name]))
            for name, said in schema["properties"].items()
        ]
        if schema.get("properties")
        else []
    )
    facts = [where(spec), touches(spec)]
    facts += ["a button above the grid" + (" runs it at once" if spec.at_once else " opens its form")] * spec.button
    return [
        f"### {spec.name}",
        f"*{spec.label}*: {sentence(spec.description)} {sentence('; '.join(facts))}",
        table(("parameter", "value", "default", "what for"), rows) if rows else "It takes no parameters.",
        f"```python\n{call(operator)}\n```",
    ]


def overview(known: Iterable[Plugin]) -> str:
    """The table of all operators."""
    rows = [
        (
            f"[`{operator.uri}`](../plugins/{plugin.name}/README.md#{operator.spec.name})",
            operator.spec.label,
            touches(operator.spec),
            where(operator.spec),
            "yes" if operator.spec.distributed else "",
            permission(plugin, operator),
        )
        for plugin in known
        for operator in plugin.operators
    ]
    return table(("operator", "in the App", "what it touches", "when it runs", "distributed", "least permission"), rows)


def layers() -> str:
    """Every module and package of shared/ under its layer, with what it says of itself."""
    # The rules of import are those that the test holds.
    from tests.test_layout import DOORS, ENTERPRISE, JOBS, PACKAGES, WORKFLOWS

    shared = ROOT / "shared"
    tools = sorted(path.stem for path in shared.glob("*.py") if path.stem not in {"__init__", *DOORS})
    inner = {name: sorted(p.stem for p in (shared / name).glob("[!_]*.py")) for name in (JOBS, WORKFLOWS, ENTERPRISE)}
    parts = []
    for title, names in (
        (f"Jobs (`shared/{JOBS}/`)", [f"{JOBS}/{name}" for name in inner[JOBS]]),
        ("Doors to FiftyOne", sorted(DOORS)),
        (f"FiftyOne Enterprise (`shared/{ENTERPRISE}/`)", [f"{ENTERPRISE}/{name}" for name in inner[ENTERPRISE]]),
        (f"Workflows (`shared/{WORKFLOWS}/`)", [f"{WORKFLOWS}/{name}" for name in inner[WORKFLOWS]]),
        ("Packages", sorted(PACKAGES)),
        ("Tools", tools),
    ):
        rows = [
            (f"[`{name.rpartition('/')[2]}`](../shared/{path})", said) for name in names for path, said in [_says(name)]
        ]
        parts += [f"### {title}", table(("module", "what it is"), rows)]
    return "\n\n".join(parts)


def _says(name: str) -> tuple[str, str]:
    """The path of a module or package of shared/, and the first line of its docstring."""
    folder = ROOT / "shared" / name
    path, source = (name, folder / "__init__.py") if folder.is_dir() else (f"{name}.py", folder.with_suffix(".py"))
    said = ast.get_docstring(ast.parse(source.read_text())) or ""
    return path, said.partition("\n")[0]


def where(spec: Any) -> str:
    """When an operator runs: at once, or on a worker."""
    either = "at once, or scheduled" if spec.quick else "scheduled by default, or at once"
    return EXECUTION.get(spec.execution, either)


def touches(spec: Any) -> str:
    """What an operator does to data."""
    return WRITES[spec.writes]


def permission(plugin: Plugin, operator: Any) -> str:
    """Who may run an operator on FiftyOne Enterprise, after `scripts/install.py`: else it is FiftyOne's default."""
    from scripts.install import ADMINS_ONLY, MANAGERS

    if operator.spec.name in ADMINS_ONLY.get(f"@mbari/{plugin.name}", ()):
        return "Admin"
    manages = operator.spec.name in MANAGERS.get(f"@mbari/{plugin.name}", ())
    return "Member, Can manage" if manages else "Member, Can edit"


def kind(said: Mapping[str, Any]) -> str:
    """Which values a parameter takes, out of its JSON schema."""
    if choices := said.get("anyOf"):
        return kind(next(choice for choice in choices if choice["type"] != "null"))
    if values := said.get("enum"):
        return " or ".join(f"`{value}`" for value in values)
    if said["type"] == "array":
        return f"list of: {kind(said['items'])}"
    bounds = [
        f"{words} {said[key]:,}"
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in said
    ]
    bounds = [" ".join(bounds)] * bool(bounds)
    if "multipleOf" in said:
        bounds.append(f"a multiple of {said['multipleOf']}")
    if "pattern" in said and said["pattern"] != r"\S":
        bounds.append(f"like `{said['pattern']}`")
    return ", ".join([TYPES[said["type"]], *bounds])


def default(name: str, said: Mapping[str, Any], needed: set[str]) -> str:
    """The default of a parameter, as Python has it."""
    if name in needed:
        return "must be given"
    value = said.get("default")
    return "none" if value in (None, [], "") else f"`{value}`"


def purpose(name: str, field: Any) -> str:
    """The name of a parameter in the form, and what it is for."""
    title = field.title or name.replace("_", " ").capitalize()
    return f"*{title}*: {field.description}" if field.description else f"*{title}*"


def sentence(text: str) -> str:
    """A text that begins with a capital and ends with a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def example(operator: Any) -> dict[str, Any]:
    """The parameters of an operator's example: those whose declarations give one."""
    fields = operator.Params.model_fields
    return {name: field.examples[0] for name, field in fields.items() if field.examples}


def call(operator: Any) -> str:
    """How an operator is called from Python, laid out as ruff has it."""
    spec, given = operator.spec, example(operator)
    request = (
        {"view": Variable("view")} if spec.target else {"dataset": Variable("dataset")} if spec.needs_dataset else {}
    )
    request |= {"params": given} if given else {}
    request |= {"request_delegation": True} if spec.execution == "delegated" else {}
    uri = literal(operator.uri)
    flat = f"foo.execute_operator({', '.join([uri, literal(request)] if request else [uri])})"
    if len(flat) <= WIDTH:
        return flat
    return f"foo.execute_operator(\n    {uri},\n    {laid_out(request, '    ', len('    ,'))},\n)"


def laid_out(value: Any, indent: str, taken: int) -> str:
    """A value as Python source: on what `taken` leaves of a line, or a dictionary with a line for each of its items."""
    flat = literal(value)
    if taken + len(flat) <= WIDTH or not isinstance(value, Mapping):
        return flat
    inner = f"{indent}    "
    items = [(f"{inner}{literal(key)}: ", each) for key, each in value.items()]
    lines = [f"{start}{laid_out(each, inner, len(start) + 1)},\n" for start, each in items]
    return f"{{\n{''.join(lines)}{indent}}}"


def literal(value: Any) -> str:
    """A value as Python source, on one line, with double quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def main() -> None:
    for path, text in pages().items():
        if path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
