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
    said = install.install(fom, zips, {"MBARI_ARTIFACTS": "s3://b/p"})
    assert len(fom.plugins) == 5
    assert all(plugin["enabled"] for plugin in fom.plugins.values())
    assert fom.secrets == {"MBARI_ARTIFACTS": "s3://b/p"}
    assert fom.permissions["@mbari/lineage_card/promote_to_production"] is Role.ADMIN
    assert fom.permissions["@mbari/sync_back/sync_back"] is Permission.MANAGE
    assert not any("s3://b/p" in line for line in said)


def test_again_it_is_an_upgrade_and_rotates_secrets_only_when_told(zips: list[Path]) -> None:
    fom = Management(AWS_SESSION_TOKEN="old")
    install.install(fom, zips, {"AWS_SESSION_TOKEN": "new"})
    assert fom.secrets == {"AWS_SESSION_TOKEN": "old"}
    install.install(fom, zips, {"AWS_SESSION_TOKEN": "new"}, rotate=True)
    assert fom.secrets == {"AWS_SESSION_TOKEN": "new"}


def test_one_zip_alone_is_installed(zips: list[Path]) -> None:
    fom = Management()
    install.install(fom, [path for path in zips if path.stem == "apply_model"], {})
    assert list(fom.plugins) == ["@mbari/apply_model"]
    assert fom.permissions == {}


def test_a_misspelt_secret_is_found_before_anything_is_done(zips: list[Path]) -> None:
    fom = Management()
    with pytest.raises(ValueError, match="No plugin asks for MBARI_ARTEFACTS"):
        install.install(fom, zips, {"MBARI_ARTEFACTS": "x"})
    assert not fom.plugins


def test_with_open_source_fiftyone_it_says_what_is_missing(zips: list[Path]) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "install.py"), str(zips[0].parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "it takes FiftyOne Enterprise's SDK" in done.stderr


def test_the_example_of_secrets_names_each_that_the_plugins_ask_for() -> None:
    example = yaml.safe_load((ROOT / "deploy" / "secrets.example.yml").read_text())
    asked = yaml.safe_load((ROOT / "plugins" / "train_classifier" / "fiftyone.yml").read_text())["secrets"]
    assert sorted(example) == sorted(asked)
