"""Uploads the five zips to FiftyOne Enterprise, sets the secrets and says who may run what.

    python scripts/install.py dist --secrets secrets.yml

With FiftyOne Enterprise's SDK and an API connection (`FIFTYONE_API_URI`, `FIFTYONE_API_KEY` of an admin), by the
documented functions of `fiftyone.management`. `secrets.yml` holds one `NAME: value` a line; an empty one is skipped.
Running it again is an upgrade: zips are replaced, permissions set again, secrets that are there stay unless `--rotate`.
"""

import argparse
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import yaml

# Whoever may edit a dataset may run an operator, which is FiftyOne's default, but for these. `stop_run` is none of
# them: whoever starts something by accident must be able to end it.
ADMINS_ONLY = {
    "@mbari/lineage_card": ("promote_to_production", "rollback_alias"),
    "@mbari/train_classifier": ("check_setup",),
}
MANAGERS = {
    "@mbari/sync_back": ("sync_back", "revert_sync", "pull_labels", "add_label"),
    "@mbari/lineage_card": ("promote_model",),
}


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
    restricted = [
        (MANAGERS, {"minimum_dataset_permission": fom.DatasetPermission.MANAGE}, "those who manage the dataset"),
        (ADMINS_ONLY, {"minimum_role": fom.UserRole.ADMIN}, "admins"),
    ]
    uploaded = {said["name"] for said in manifests.values()}
    for operators, least, who in restricted:
        for plugin in uploaded & operators.keys():
            for operator in operators[plugin]:
                fom.set_plugin_operator_permissions(plugin, operator, **least)
                done.append(f"{plugin}/{operator}: for {who}")
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
