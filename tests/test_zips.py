"""The zips as an admin gets them: well formed, reproducible, and working where there is no checkout."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import build_zips
from scripts.build_zips import build, plugin_names, unpack
from scripts.surroundings import own_database
from shared import __version__
from tests import labels, rois

ROOT = Path(__file__).resolve().parent.parent
LATER = re.sub(r"\d", "9", __version__)

# Answers each line on its input with what FiftyOne has at that moment: operators, forms, and whose code they are.
PROBE = """
import asyncio, json, os, sys
assert not any(os.path.exists(os.path.join(p, "shared", "operators.py")) for p in sys.path), sys.path
import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.executor import resolve_type
from fiftyone.operators.registry import OperatorRegistry

def look(dataset):
    registry = OperatorRegistry()
    ours = [operator for operator in registry.list_operators() if operator.uri.startswith("@mbari/")]
    # Where FiftyOne puts a plugin among the modules depends on its version; here each is named from its folder on.
    packages = {type(operator).__module__.rpartition(".")[0] for operator in ours}
    above = {package: len(package) - len(package.rpartition(".")[2]) for package in packages}
    modules = {
        name[above[package]:]: module
        for name, module in sys.modules.items()
        for package in packages
        if name == package or name.startswith(package + ".")
    }
    forms = {}
    for operator in ours if dataset else ():
        params = {"operator_uri": operator.uri, "dataset_name": dataset, "params": {}, "target": "inputs"}
        form = asyncio.run(resolve_type(registry, operator.uri, params))
        assert isinstance(form, foo.types.Property), form.error
        forms[operator.uri] = sorted(form.to_json()["type"]["properties"])
    return {
        "errors": registry.list_errors(),
        "labels": {operator.uri: operator.config.label for operator in ours},
        "forms": forms,
        "files": [module.__file__ for module in modules.values()],
        "modules": {name: id(module) for name, module in modules.items() if "." in name},
        "versions": {n.split(".")[0]: m.__version__ for n, m in modules.items() if n.endswith(".shared")},
        "error_classes": len({id(m.InputError) for n, m in modules.items() if n.endswith(".shared.errors")}),
    }

for line in sys.stdin:
    command = json.loads(line)
    if command.get("dataset"):
        dataset = fo.Dataset(persistent=False)
        dataset.add_sample(fo.Sample("/nowhere/roi.png", ground_truth=fo.Classification(label="Calanoida")))
    print("ANSWER", json.dumps(look(dataset.name if command.get("dataset") else None)), flush=True)
    if command.get("dataset"):
        dataset.delete()
"""


@contextmanager
def process(plugins: Path, cwd: Path) -> Iterator:
    """A FiftyOne process that knows nothing but a plugins folder; gives a function that asks it for a look."""
    own_database()  # whose port the process inherits
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["FIFTYONE_PLUGINS_DIR"] = str(plugins)
    cwd.mkdir(exist_ok=True)
    running = subprocess.Popen(
        [sys.executable, "-c", PROBE],
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(cwd / "stderr").open("w"),
        text=True,
    )

    def look(dataset: bool = False) -> dict:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(json.dumps({"dataset": dataset}) + "\n")
        running.stdin.flush()
        for line in running.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise AssertionError((cwd / "stderr").read_text())

    try:
        yield look
    finally:
        assert running.stdin is not None
        running.stdin.close()
        running.wait(60)


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {path.stem: path for path in build(tmp_path_factory.mktemp("dist"))}


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The zips of a later release: another version number of the same length, the label of one operator changed."""
    tree = tmp_path_factory.mktemp("later")
    shutil.copytree(ROOT / "plugins", tree / "plugins", symlinks=True)
    shutil.copytree(ROOT / "shared", tree / "shared")
    shutil.copy(ROOT / "LICENSE", tree)
    package = tree / "shared" / "__init__.py"
    package.write_text(package.read_text().replace(f'"{__version__}"', f'"{LATER}"'))
    operator = tree / "plugins" / "train_classifier" / "assign_splits.py"
    text = re.sub(r'\blabel="', 'label="Later: ', operator.read_text(), count=1)
    assert text != operator.read_text()
    operator.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_zips, "ROOT", tree)
        return {path.stem: path for path in build(tree / "dist")}


def replace(archive: Path, plugins: Path) -> None:
    """What `unzip -o` does with a new zip: over the old folder, compiled files of the old code left where they are."""
    unpack(archive, plugins)


def test_there_is_a_zip_of_every_plugin(zips: dict[str, Path]) -> None:
    assert sorted(zips) == plugin_names()
    assert len(zips) == 5


@pytest.mark.parametrize("name", plugin_names())
def test_a_zip_holds_one_folder_with_the_code_and_nothing_else(zips: dict[str, Path], name: str) -> None:
    assert zips[name].stat().st_size < 1_000_000
    with zipfile.ZipFile(zips[name]) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(set(names)) == len(names)
        assert {entry.split("/")[0] for entry in names} == {name}
        inside = {entry.removeprefix(f"{name}/") for entry in names}
        assert {"fiftyone.yml", "__init__.py", "README.md", "requirements.txt", "LICENSE", "assets/icon.svg"} <= inside
        shared = {f"shared/{path.relative_to(ROOT / 'shared').as_posix()}" for path in (ROOT / "shared").rglob("*.py")}
        code = {f"{path.name}" for path in (ROOT / "plugins" / name).glob("*.py")}
        assert {entry for entry in inside if entry.endswith(".py")} == shared | code
        assert not [e for e in inside if "test" in e.lower().split("/")[0] or "__pycache__" in e or e.endswith(".pyc")]
        assert archive.read(f"{name}/shared/__init__.py") == (ROOT / "shared" / "__init__.py").read_bytes()
        assert archive.read(f"{name}/LICENSE") == (ROOT / "LICENSE").read_bytes()
        for info in archive.infolist():
            assert stat.S_ISREG(info.external_attr >> 16), f"{info.filename} is not a plain file"
            assert stat.S_IMODE(info.external_attr >> 16) == 0o644


def test_zips_are_the_same_bytes_from_run_to_run(zips: dict[str, Path], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland", "LC_ALL": "C"}
    command = [sys.executable, str(ROOT / "scripts" / "build_zips.py"), "--dist", str(tmp_path)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert {path.stem: path.read_bytes() for path in tmp_path.glob("*.zip")} == {
        name: path.read_bytes() for name, path in zips.items()
    }
    assert not list(tmp_path.glob(".*")), "an unfinished zip was left behind"


def test_a_zip_that_is_too_big_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_zips, "LIMIT", 1_000)
    with pytest.raises(ValueError, match=r"apply_model\.zip has [\d,]+ bytes; 1,000 is the most"):
        build(tmp_path, ["apply_model"])
    assert not (tmp_path / "apply_model.zip").exists()


def test_the_operators_of_unpacked_zips_are_there_without_the_checkout(zips: dict[str, Path], tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    for archive in zips.values():
        unpack(archive, plugins)
    with process(plugins, tmp_path / "elsewhere") as look:
        seen = look(dataset=True)
    assert seen["errors"] == []
    expected = set()
    for name in zips:
        manifest = yaml.safe_load((plugins / name / "fiftyone.yml").read_text())
        names = manifest["operators"] + manifest.get("panels", [])
        expected |= {f"{manifest['name']}/{name}" for name in names}
    assert set(seen["labels"]) == expected
    assert {"@mbari/train_classifier/train_classifier", "@mbari/lineage_card/model_lineage"} <= expected
    assert set(seen["forms"]) == expected
    assert {"model_name", "epochs", "base_weights"} <= set(seen["forms"]["@mbari/train_classifier/train_classifier"])
    assert seen["files"]
    assert all(file.startswith(str(plugins)) for file in seen["files"])


def test_a_zip_replaced_under_a_running_process_brings_its_new_code(
    zips: dict[str, Path], newer: dict[str, Path], tmp_path: Path
) -> None:
    plugins = tmp_path / "plugins"
    unpack(zips["train_classifier"], plugins)
    uri = "@mbari/train_classifier/assign_splits"
    with process(plugins, tmp_path / "elsewhere") as look:
        before, again = look(), look()
        replace(newer["train_classifier"], plugins)
        after = look()
    assert before["errors"] == after["errors"] == []
    assert before["versions"] == {"train_classifier": __version__}
    # A second look at the same code must not load it anew: an operator may be running from it.
    assert again["modules"] == before["modules"]
    assert after["labels"][uri] == f"Later: {before['labels'][uri]}"
    # The same length as before and compiled already: only the zip's time stamps tell Python that it changed.
    assert after["versions"] == {"train_classifier": LATER}
    assert not set(after["modules"].values()) & set(before["modules"].values())


def test_a_broken_zip_is_mended_by_the_next_one(zips: dict[str, Path], tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    unpack(zips["train_classifier"], plugins)
    (plugins / "train_classifier" / "operators.py").write_text(
        "from .shared import errors\nraise RuntimeError('half')\n"
    )
    with process(plugins, tmp_path / "elsewhere") as look:
        broken = look()
        replace(zips["train_classifier"], plugins)
        mended = look()
    assert "RuntimeError: half" in broken["errors"][0]
    assert broken["labels"] == {}
    assert mended["errors"] == []
    assert "@mbari/train_classifier/assign_splits" in mended["labels"]


def test_two_plugins_of_different_versions_live_together(
    zips: dict[str, Path], newer: dict[str, Path], tmp_path: Path
) -> None:
    plugins = tmp_path / "plugins"
    unpack(zips["apply_model"], plugins)
    unpack(newer["train_classifier"], plugins)
    with process(plugins, tmp_path / "elsewhere") as look:
        seen = look(dataset=True)
    assert seen["errors"] == []
    assert seen["versions"] == {"apply_model": __version__, "train_classifier": LATER}
    assert seen["error_classes"] == 2, "each zip brings classes of its own"
    assert "@mbari/apply_model/apply_model" in seen["forms"]
    assert seen["labels"]["@mbari/train_classifier/assign_splits"].startswith("Later: ")


# The whole loop by the zips' code alone, from corrected labels to predictions and back to the label store: each
# operator as the delegated worker executes it.
LOOP = """
import json, os, sys
assert not any(os.path.exists(os.path.join(p, "shared", "operators.py")) for p in sys.path), sys.path
import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.delegated import DelegatedOperationService

def run(uri, **params):
    scheduled = foo.execute_operator(uri, {"dataset": dataset, "params": params, "request_delegation": True})
    service = DelegatedOperationService()
    outcome = service.execute_operation(service.get(scheduled.result["id"]))
    outcome.raise_exceptions()
    dataset.reload()
    return outcome.result

dataset = fo.load_dataset(sys.argv[1])
pulled = run("@mbari/sync_back/pull_labels", apply=True)
dataset.limit(3).tag_samples(sys.argv[2])
listed = dataset.skip(3).limit(2)
corrected = foo.execute_operator("@mbari/sync_back/correct_labels", {"view": listed, "params": {"label": sys.argv[2]}})
dataset.reload()
labels = [
    pulled["counts"]["compared"],
    corrected.result["counts"]["corrected"],
    run("@mbari/sync_back/apply_corrections")["counts"]["applied"],
    run("@mbari/sync_back/preview_sync")["counts"]["would_change"],
    run("@mbari/sync_back/sync_back")["updated"],
]
splits = run("@mbari/train_classifier/assign_splits")
quick = {"base_weights": "yolov8n-cls.yaml", "imgsz": 32, "epochs": 1, "batch": 8}
trained = run("@mbari/train_classifier/train_classifier", model_name="zipped", **quick)
applied = run("@mbari/apply_model/apply_model", model="zipped@candidate")
checked = run("@mbari/train_classifier/check_setup")
print("ANSWER", json.dumps([labels, splits["counts"], trained["version"], applied, checked["checks"]]))
"""


def test_the_operators_of_unpacked_zips_run_without_the_checkout(
    zips: dict[str, Path], tmp_path: Path, dataset: Any, registry: Any, db: Any
) -> None:
    for name in ("train_classifier", "apply_model", "sync_back"):
        unpack(zips[name], tmp_path / "plugins")
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 10))
    dataset.set_values("elemental_id", [f"e{n}" for n in range(30)])
    was = dict(zip(*dataset.values(["elemental_id", "ground_truth.label"]), strict=True))
    db["rois"].insert_many([{"elemental_id": source, "label": label} for source, label in was.items()])
    right = rois.CLASSES[-1]
    assert all(was[f"e{n}"] != right for n in range(5))
    dataset.persistent = True  # another process looks at it
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "FIFTYONE_PLUGINS_DIR": str(tmp_path / "plugins"),
        "MBARI_ARTIFACTS": str(tmp_path / "artifacts"),
        "MBARI_LABEL_STORE": labels.store_uri(db.name),
    }
    command = [sys.executable, "-c", LOOP, dataset.name, right]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stderr
    sync, counts, version, applied, checks = json.loads(answers[0].removeprefix("ANSWER "))
    assert sync == [30, 2, 5, 5, 5]
    assert labels.held(db["rois"]) == was | {f"e{n}": right for n in range(5)}
    assert counts["train"] + counts["val"] + counts["test"] == 30
    assert applied["model"] == version == registry.resolve("zipped").name
    assert applied["counts"]["written"] == 30
    states = {row["item"]: row["state"] for row in checks}
    assert states["versions"] == states["label store"] == "ok"
    dataset.reload()
    assert dataset.values("ground_truth.label")[:5] == [right] * 5
    assert dataset.exists(applied["prediction_field"]).count() == 30
