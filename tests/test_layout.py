"""What holds the layout together: directions of import, one version, manifests that tell the truth, a clean lock."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / "shared"
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/fiftyone.yml"))
# From the bottom: packages know plain data and no other package; workflows take several of them; jobs take both, and
# know FiftyOne. So do these doors, beside them the one that a package may have, named store.py, and what asks for
# FiftyOne Enterprise, one module for each thing.
PACKAGES = {"classifier", "embeddings", "review", "sync", "lineage"}
WORKFLOWS, JOBS, ENTERPRISE = "workflows", "jobs", "enterprise"
DOORS = (
    *("operators", "forms", "tables", "samples", "vectors", "clustered", "training_data", "focus_views", "selected"),
    *("workspaces", "labelled", "labelling", "media"),
)
# Not to be imported before an operator runs: together they take many seconds.
HEAVY = {
    "torch",
    "torchvision",
    "ultralytics",
    "timm",
    "umap",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "openvino",
    "transformers",
}
MODULES = sorted(SHARED.rglob("*.py"))


def manifest(plugin: Path) -> dict:
    return yaml.safe_load((plugin / "fiftyone.yml").read_text())


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imports(path: Path) -> list[tuple[int, str]]:
    """Every import of a module, wherever it stands, as (level, dotted name); level 0 is absolute."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from . import samples` names a module as well as `from .samples import read` does.
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found += [(node.level, name) for name in names]
    return found


def inside(path: Path, level: int, name: str) -> tuple[str, ...]:
    """The module that a relative import in a file of shared/ means, as parts below shared/."""
    package = path.relative_to(SHARED).parent.parts
    assert level - 1 <= len(package), f"{path}: an import reaches out of shared/"
    return (*package[: len(package) - level + 1], *name.split("."))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    """The files of the project: what git knows and what it does not ignore, or all but what is built."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode == 0:
        paths = [ROOT / line for line in listing.stdout.splitlines()]
    else:
        built = {".venv", "build", "dist", ".git", "__pycache__"}
        paths = [path for path in ROOT.rglob("*") if not built & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


# --- directions of import ---


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_shared_imports_itself_relatively_and_no_plugin(path: Path) -> None:
    absolute = {name.split(".")[0] for level, name in imports(path) if level == 0}
    assert not absolute & {"shared", "plugins"}


def layer(path: Path) -> str:
    """The folder of shared/ that a module is in, or its own name where it is in none."""
    return path.relative_to(SHARED).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The folders and modules of shared/ that a module of it imports, itself left out."""
    return {inside(path, level, name)[0] for level, name in imports(path) if level > 0} - {layer(path)}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_doors_jobs_and_stores_know_fiftyone(path: Path) -> None:
    if layer(path) in {JOBS, ENTERPRISE, *DOORS} or (layer(path) in PACKAGES and path.name == "store.py"):
        return
    assert not {name for level, name in imports(path) if level == 0 and name.split(".")[0] in ("fiftyone", "eta")}


@pytest.mark.parametrize("path", [p for p in MODULES if layer(p) in PACKAGES], ids=named)
def test_a_package_imports_no_other_package_and_no_door_to_fiftyone(path: Path) -> None:
    assert not imported(path) & (PACKAGES | set(DOORS) - {"media"})


@pytest.mark.parametrize("path", [p for p in MODULES if layer(p) == WORKFLOWS], ids=named)
def test_a_workflow_imports_no_door_to_fiftyone(path: Path) -> None:
    assert not imported(path) & (set(DOORS) - {"media"})


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent == SHARED and layer(p) not in DOORS], ids=named)
def test_a_tool_imports_no_package_and_no_door_to_fiftyone(path: Path) -> None:
    assert not imported(path) & (PACKAGES | set(DOORS) - {"media"})


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_nothing_below_imports_workflows_or_jobs(path: Path) -> None:
    above = {WORKFLOWS: {JOBS}, JOBS: set()}.get(layer(path), {WORKFLOWS, JOBS})
    assert not imported(path) & above


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_from_itself_and_shared_only(plugin: Path) -> None:
    for path in plugin.glob("*.py"):
        for level, name in imports(path):
            assert level <= 1, f"{path.name} reaches out of its plugin with {'.' * level}{name}"
            assert level == 1 or name.split(".")[0] not in {"plugins", "shared"}, f"{path.name} imports {name}"


def test_the_check_of_imports_sees_what_it_must(tmp_path: Path) -> None:
    path = tmp_path / "made_up.py"
    path.write_text(
        "import torch\nfrom ..lineage import plots\nfrom . import data\ndef f():\n    from eta import core\n"
    )
    assert sorted(imports(path)) == [(0, "eta"), (0, "torch"), (1, "data"), (2, "lineage")]
    assert inside(SHARED / "classifier" / "made_up.py", 2, "lineage") == ("lineage",)
    assert inside(SHARED / "classifier" / "made_up.py", 1, "data") == ("classifier", "data")


# --- manifests ---


def test_there_are_the_five_plugins() -> None:
    assert [p.name for p in PLUGINS] == [
        "apply_model",
        "custom_embeddings",
        "lineage_card",
        "sync_back",
        "train_classifier",
    ]


def test_one_version_number_everywhere() -> None:
    version = project()["version"]
    package = re.search(r'^__version__ = "(.+)"$', (SHARED / "__init__.py").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert package is not None
    assert newest is not None
    assert {package[1], newest[1], *(manifest(p)["version"] for p in PLUGINS)} == {version}


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_manifest_is_complete(plugin: Path) -> None:
    said = manifest(plugin)
    assert said["name"] == f"@mbari/{plugin.name}"
    assert said["license"] == project()["license"]
    assert said["fiftyone"]["version"] == next(
        d.removeprefix("fiftyone") for d in project()["dependencies"] if re.match(r"fiftyone[>=<]", d)
    )
    assert said["description"].strip()
    for name in ("README.md", "requirements.txt", "assets/icon.svg"):
        assert (plugin / name).stat().st_size > 0


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_asks_for_what_the_lock_was_made_from(plugin: Path) -> None:
    lines = (plugin / "requirements.txt").read_text().splitlines()
    asked = {line for line in lines if line and not line.startswith("#")}
    assert asked
    assert asked <= set(project()["dependencies"])


def test_all_plugins_register_in_the_same_way() -> None:
    assert len({(plugin / "__init__.py").read_text() for plugin in PLUGINS}) == 1
    for plugin in PLUGINS:
        assert (plugin / "shared").readlink() == Path("../../shared")


# --- registering, in a process of its own ---

REGISTER = """
import json, sys
from fiftyone.plugins.context import PluginContext
from fiftyone.plugins import list_plugins
found = {}
before = set(sys.modules)
for definition in list_plugins(builtin=False):
    context = PluginContext(definition)
    context.register_all()
    found[definition.name] = {
        "uris": [operator.uri for operator in context.instances],
        "secrets": definition.secrets,
        "errors": context.errors,
    }
print(json.dumps({"plugins": found, "new": sorted(set(sys.modules) - before), "all": sorted(sys.modules)}))
"""


def register(plugins: Path) -> dict:
    """What a fresh FiftyOne process finds in a plugins folder; without a database."""
    environment = os.environ | {"FIFTYONE_PLUGINS_DIR": str(plugins), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", REGISTER], env=environment, cwd="/", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"log": done.stdout + done.stderr}


@pytest.fixture(scope="module")
def registered() -> dict:
    return register(ROOT / "plugins")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_every_operator_of_the_manifest_registers_and_none_is_missing_there(registered: dict, plugin: Path) -> None:
    said = manifest(plugin)
    found = registered["plugins"][said["name"]]
    assert found["errors"] == []
    operators = said.get("operators", []) + said.get("panels", [])
    assert sorted(found["uris"]) == sorted(f"{said['name']}/{name}" for name in operators)
    # FiftyOne leaves out, without a word, what the manifest does not list.
    classes = _classes(plugin)
    assert len(classes) == len(operators), f"OPERATORS of {plugin.name} has {classes}, the manifest {operators}"


def _classes(plugin: Path) -> list[str]:
    for node in ast.parse((plugin / "operators.py").read_text()).body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == "OPERATORS":
            assert isinstance(node.value, ast.Tuple)
            return [ast.unparse(element) for element in node.value.elts]
    raise AssertionError(f"{plugin.name}/operators.py names no OPERATORS")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_manifest_names_every_secret_that_operators_ask_for(plugin: Path) -> None:
    asked = next(
        node.value
        for node in ast.parse((SHARED / "operators.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SECRETS"
    )
    assert sorted(manifest(plugin)["secrets"]) == sorted(ast.literal_eval(asked))


def test_registering_imports_nothing_heavy(registered: dict) -> None:
    new = {name.split(".")[0] for name in registered["new"]}
    assert not new & HEAVY
    # FiftyOne itself imports none of the worst either, so that the check above can see them.
    assert not {name.split(".")[0] for name in registered["all"]} & {"torch", "ultralytics", "timm", "transformers"}
    assert [name for name in registered["new"] if name.endswith("train_classifier.shared.operators")]


def test_a_plugin_without_its_shared_code_says_to_use_the_zip(tmp_path: Path) -> None:
    folder = tmp_path / "sync_back"
    folder.mkdir()
    for name in ("__init__.py", "operators.py", "fiftyone.yml"):
        (folder / name).write_bytes((ROOT / "plugins" / "sync_back" / name).read_bytes())
    (folder / "shared").write_text("../../shared")  # what a download without links leaves
    found = register(tmp_path)
    errors = found["plugins"]["@mbari/sync_back"]["errors"]
    assert len(errors) == 1
    sentence = f"@mbari/sync_back has no shared/ code in {folder}: install the zip that `make zips` builds instead"
    assert errors[0].strip().splitlines()[-1] == f"ImportError: {sentence}"
    assert sentence in found["log"]


def test_why_a_plugin_does_not_load_is_in_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "sync_back"
    shutil.copytree(ROOT / "plugins" / "sync_back", folder)
    (folder / "operators.py").write_text("import there_is_no_such_module\n")
    found = register(tmp_path)
    assert len(found["plugins"]["@mbari/sync_back"]["errors"]) == 1
    assert "@mbari/sync_back cannot be loaded" in found["log"]
    assert "No module named 'there_is_no_such_module'" in found["log"]


# --- the lock and the tree ---


@pytest.mark.parametrize("lock", ["requirements.lock", "deploy/worker.lock", "scripts/uv.txt"])
def test_a_lock_is_hashed_and_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pinned = [block for block in re.split(r"(?m)^(?=[A-Za-z0-9])", text) if "==" in block]
    assert pinned
    assert not [block for block in pinned if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block)]
    assert not re.search(r"https?:|file:|--index|--find-links|--trusted|@ ", text)
    assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|opt|usr)/", text)


def test_the_lock_has_one_cv2_and_every_dependency() -> None:
    lines = re.findall(r"^[A-Za-z0-9_.-]+==.*", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    # pyproject switches the other cv2 off with a platform that does not exist.
    pins = {line.split("==")[0] for line in lines if "sys_platform == 'never'" not in line}
    assert [name for name in pins if name.startswith("opencv")] == ["opencv-python-headless"]
    assert {re.match(r"[\w-]+", dependency)[0] for dependency in project()["dependencies"]} <= pins  # type: ignore[index]


def test_no_file_is_over_a_megabyte_and_none_names_this_machine() -> None:
    # Written so that this file does not match itself.
    local = re.compile(r"(?<![\w.})])/(?:root|work|home)/" + r"[a-z]|/tmp/" + "scratch")
    for path in tracked():
        assert path.stat().st_size < 1_000_000, named(path)
        if path.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".lock", ".sh", ""}:
            assert not local.search(path.read_text()), named(path)
