"""Uploads the five zips to FiftyOne Enterprise, sets the secrets and who may run what, as docs/operators.md has it.

    python scripts/install.py dist --secrets secrets.yml

With FiftyOne Enterprise's SDK and an API connection (`FIFTYONE_API_URI`, `FIFTYONE_API_KEY` of an admin), by the
documented functions of `fiftyone.management`. `secrets.yml` holds one `NAME: value` a line; an empty one is skipped.
Running it again is an upgrade: zips are replaced, permissions set again, secrets that are there stay unless `--rotate`.
"""

import argparse
import re
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import yaml

ROOT = Path(__file__).resolve().parent.parent
# A line of the table of docs/operators.md: operator, ..., least permission.
ROW = re.compile(r"^\| \[`(@mbari/\w+)/(\w+)`\].*\| (\w+), Can (\w+) \|$", re.MULTILINE)


def install(fom: ModuleType, zips: list[Path], secrets: dict[str, str], *, rotate: bool = False) -> list[str]:
    """Does it all.

    Args:
        fom: `fiftyone.management`
        zips: of the plugins
        secrets: by name
        rotate: whether secrets that exist are replaced

    Returns:
        what was done, line by line

    Raises:
        ValueError: before anything is done, when a secret is none that the plugins know
    """
    manifests = {path: manifest(path) for path in zips}
    known = {name for said in manifests.values() for name in said["secrets"]}
    if unknown := sorted(secrets.keys() - known):
        raise ValueError(f"No plugin asks for {', '.join(unknown)}: correct the name.")
    done = []
    there = set(fom.list_secrets())
    for name, value in sorted(secrets.items()):
        if name in there and not rotate:
            done.append(f"secret {name}: there already, left as it is")
            continue
        if name in there:  # for a moment there is none: a run that starts just then says so
            fom.delete_secret(name)
        fom.add_secret(name, value, description="MBARI plugins")
        done.append(f"secret {name}: set")
    for path, said in manifests.items():
        fom.upload_plugin(str(path), overwrite=True)
        fom.set_plugin_enabled(said["name"], True)
        done.append(f"{said['name']} {said['version']}: uploaded")
    uploaded = {said["name"] for said in manifests.values()}
    for plugin, operator, role, permission in ROW.findall((ROOT / "docs" / "operators.md").read_text()):
        if plugin in uploaded:
            least = {"minimum_role": fom.UserRole[role.upper()]}
            least["minimum_dataset_permission"] = fom.DatasetPermission[permission.upper()]
            fom.set_plugin_operator_permissions(plugin, operator, **least)
            done.append(f"{plugin}/{operator}: from {role} and Can {permission} on")
    return done


def manifest(path: Path) -> dict:
    """The manifest in a plugin's zip."""
    with zipfile.ZipFile(path) as archive:
        return yaml.safe_load(archive.read(f"{path.stem}/fiftyone.yml"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dist", type=Path, help="the folder of the zips")
    parser.add_argument("--secrets", type=Path, help="a YAML file of names and values")
    parser.add_argument("--rotate", action="store_true", help="replace secrets that are there")
    given = parser.parse_args()
    wanted = (yaml.safe_load(given.secrets.read_text()) or {}) if given.secrets else {}
    try:
        import fiftyone.management as management
    except ImportError:
        sys.exit("This Python has no fiftyone.management: it takes FiftyOne Enterprise's SDK.")
    found = sorted(given.dist.glob("*.zip"))
    if not found:
        sys.exit(f"There are no zips in {given.dist}: build them with `make zips`.")
    print(*install(management, found, {k: str(v) for k, v in wanted.items() if v}, rotate=given.rotate), sep="\n")
