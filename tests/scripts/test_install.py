"""The install script, against a stand-in with the documented signatures of `fiftyone.management`."""

import enum
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from scripts import install
from scripts.build_zips import build

ROOT = Path(__file__).resolve().parents[2]


class Role(enum.Enum):
    ADMIN = "ADMIN"


class Permission(enum.Enum):
    MANAGE = "MANAGE"


class Management(SimpleNamespace):
    """What the documentation says of the functions that are used, and what has been done by them."""

    UserRole, DatasetPermission = Role, Permission

    def __init__(self, **secrets: str) -> None:
        super().__init__(secrets=secrets, plugins={}, permissions={})

    def list_secrets(self) -> list[str]:
        return list(self.secrets)

    def add_secret(self, key: str, value: str, description: str | None = None) -> None:
        assert key not in self.secrets
        assert key == key.upper()
        self.secrets[key] = value

    def update_secret(self, key: str, value: str | None = None, description: str | None = None) -> None:
        assert key in self.secrets
        if value == "refused":
            raise RuntimeError(f"no room for {value}")
        self.secrets[key] = value

    def delete_secret(self, key: str) -> None:
        del self.secrets[key]

    def upload_plugin(self, plugin_path: str, overwrite: bool = False, optimize: bool = False) -> Any:
        said = install.manifest(Path(plugin_path))
        assert overwrite or said["name"] not in self.plugins
        self.plugins[said["name"]] = said

    def set_plugin_enabled(self, plugin_name: str, enabled: bool) -> None:
        self.plugins[plugin_name]["enabled"] = enabled

    def set_plugin_operator_permissions(
        self,
        plugin_name: str,
        operator_name: str,
        minimum_role: Role | None = None,
        minimum_dataset_permission: Permission | None = None,
    ) -> None:
        assert operator_name in self.plugins[plugin_name]["operators"]
        assert minimum_role or minimum_dataset_permission
        self.permissions[f"{plugin_name}/{operator_name}"] = minimum_role or minimum_dataset_permission


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build(tmp_path_factory.mktemp("dist"))


def test_all_is_uploaded_set_and_permitted(zips: list[Path]) -> None:
    fom = Management()
    said = list(install.install(fom, zips, {"MBARI_ARTIFACTS": "s3://b/p", "MBARI_WEBHOOK_URL": ""}))
    assert len(fom.plugins) == 5
    assert all(plugin["enabled"] for plugin in fom.plugins.values())
    assert fom.secrets == {"MBARI_ARTIFACTS": "s3://b/p"}
    assert fom.permissions["@mbari/lineage_card/promote_to_production"] is Role.ADMIN
    assert fom.permissions["@mbari/sync_back/sync_back"] is Permission.MANAGE
    assert not any("s3://b/p" in line for line in said)


def test_again_it_is_an_upgrade_that_leaves_secrets(zips: list[Path]) -> None:
    fom = Management(AWS_SESSION_TOKEN="old", MBARI_ARTIFACTS="s3://b/p")
    for _ in range(2):
        said = list(install.install(fom, zips, {"AWS_SESSION_TOKEN": "new", "MBARI_ARTIFACTS": ""}))
        assert fom.secrets == {"AWS_SESSION_TOKEN": "old", "MBARI_ARTIFACTS": "s3://b/p"}
        assert "secret AWS_SESSION_TOKEN: there already, left as it is" in said


def test_rotating_replaces_adds_deletes_and_touches_nothing_else() -> None:
    fom = Management(AWS_SESSION_TOKEN="old", MBARI_WEBHOOK_URL="stays", AWS_ACCESS_KEY_ID="old")
    wanted = {
        "AWS_SESSION_TOKEN": "",
        "AWS_ACCESS_KEY_ID": "new",
        "MBARI_ARTIFACTS": "s3://b/p",
        "MBARI_VOCABULARY": "",
    }
    assert list(install.set_secrets(fom, wanted, rotate=True)) == [
        "secret AWS_ACCESS_KEY_ID: replaced",
        "secret AWS_SESSION_TOKEN: deleted, since the file has no value for it",
        "secret MBARI_ARTIFACTS: set",
    ]
    assert fom.secrets == {"AWS_ACCESS_KEY_ID": "new", "MBARI_ARTIFACTS": "s3://b/p", "MBARI_WEBHOOK_URL": "stays"}
    assert not fom.plugins


def test_a_secret_that_cannot_be_set_keeps_its_value_and_the_others_are_tried() -> None:
    fom = Management(AWS_ACCESS_KEY_ID="old", MBARI_ARTIFACTS="old")
    saying = install.set_secrets(fom, {"AWS_ACCESS_KEY_ID": "refused", "MBARI_ARTIFACTS": "new"}, rotate=True)
    assert next(saying) == "secret AWS_ACCESS_KEY_ID: failed (RuntimeError: no room for ...)"
    assert next(saying) == "secret MBARI_ARTIFACTS: replaced"
    with pytest.raises(ValueError, match=r"^As they were before: AWS_ACCESS_KEY_ID\."):
        next(saying)
    assert fom.secrets == {"AWS_ACCESS_KEY_ID": "old", "MBARI_ARTIFACTS": "new"}


def test_one_zip_alone_is_installed(zips: list[Path]) -> None:
    fom = Management()
    list(install.install(fom, [path for path in zips if path.stem == "apply_model"], {}))
    assert list(fom.plugins) == ["@mbari/apply_model"]
    assert fom.permissions == {}


def secrets_file(folder: Path, text: str) -> Path:
    path = folder / "secrets.yml"
    path.write_text(text)
    return path


def test_a_value_is_what_stands_on_its_line(tmp_path: Path) -> None:
    values = ["0123456", "yes", "@s3cr3tpw", "1.20", "a: b", "{x}", "null", "0x1F", "p#w", '"', "2026-01-01"]
    for value in values:
        assert install.read_secrets(secrets_file(tmp_path, f"MBARI_ARTIFACTS: {value}  \n")) == {
            "MBARI_ARTIFACTS": value
        }
    text = "# ours\n\nMBARI_ARTIFACTS: 'abc #def'\nMBARI_VOCABULARY: \"it's\"\nMBARI_WEBHOOK_URL:\n"
    assert install.read_secrets(secrets_file(tmp_path, text)) == {
        "MBARI_ARTIFACTS": "abc #def",
        "MBARI_VOCABULARY": "it's",
        "MBARI_WEBHOOK_URL": "",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("MBARI_ARTIFACTS: a\nhunter2\n", "line 2, is not NAME: value"),
        ("MBARI_ARTIFACTS:hunter2\n", "line 1, is not NAME: value"),
        ("MBARI_ARTIFACTS: hunter2 #3\n", "line 1: put the value between quotes"),
        ("MBARI_ARTIFACTS: hunter2\nMBARI_ARTIFACTS: b\n", "line 2: MBARI_ARTIFACTS is there twice"),
        ("MBARI_ARTEFACTS: hunter2\n", "No plugin asks for MBARI_ARTEFACTS"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_without_a_value(tmp_path: Path, text: str, says: str) -> None:
    done = run("--rotate", "--secrets", str(secrets_file(tmp_path, text)))
    assert done.returncode == 1
    assert says in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def run(*given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "install.py"), *given]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = run("--rotate", "--secrets", str(tmp_path / "none.yml"))
    assert done.returncode == 1
    assert done.stderr.strip().endswith("none.yml cannot be read: No such file or directory.")


def test_with_open_source_fiftyone_it_says_what_is_missing(zips: list[Path]) -> None:
    done = run(str(zips[0].parent))
    assert done.returncode == 1
    assert "it takes FiftyOne Enterprise's SDK" in done.stderr


def test_the_example_of_secrets_names_each_that_the_plugins_ask_for() -> None:
    example = install.read_secrets(ROOT / "deploy" / "secrets.example.yml")
    asked = yaml.safe_load((ROOT / "plugins" / "train_classifier" / "fiftyone.yml").read_text())["secrets"]
    assert sorted(example) == sorted(asked)
