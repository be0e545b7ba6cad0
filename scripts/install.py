"""Uploads the five zips to FiftyOne Enterprise, says who may run what, and sets the secrets.

    python scripts/install.py dist --secrets secrets.yml
    python scripts/install.py --rotate --secrets secrets.yml    the secrets alone

With FiftyOne Enterprise's SDK and an API connection (`FIFTYONE_API_URI`, `FIFTYONE_API_KEY` of an admin), by the
documented functions of `fiftyone.management`. Running the first again is an upgrade: zips are replaced, permissions set
again, secrets that are there stay. `--rotate` replaces those, deletes what the file names without a value, and leaves
plugins and permissions as they are.
"""

import argparse
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import yaml

ROOT = Path(__file__).resolve().parents[1]

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


def install(fom: ModuleType, zips: list[Path], secrets: Mapping[str, str]) -> Iterator[str]:
    """Uploads, permits, and sets the secrets that are not there yet.

    Args:
        fom: `fiftyone.management`
        zips: of the plugins
        secrets: by name

    Yields:
        what was done, line by line

    Raises:
        ValueError: at the end, when secrets could not be set
    """
    manifests = {path: manifest(path) for path in zips}
    for path, said in manifests.items():
        fom.upload_plugin(str(path), overwrite=True)
        fom.set_plugin_enabled(said["name"], True)
        yield f"{said['name']} {said['version']}: uploaded"
    restricted = [
        (MANAGERS, {"minimum_dataset_permission": fom.DatasetPermission.MANAGE}, "those who manage the dataset"),
        (ADMINS_ONLY, {"minimum_role": fom.UserRole.ADMIN}, "admins"),
    ]
    uploaded = {said["name"] for said in manifests.values()}
    for operators, least, who in restricted:
        for plugin in uploaded & operators.keys():
            for operator in operators[plugin]:
                fom.set_plugin_operator_permissions(plugin, operator, **least)
                yield f"{plugin}/{operator}: for {who}"
    yield from set_secrets(fom, secrets)


def set_secrets(fom: ModuleType, secrets: Mapping[str, str], *, rotate: bool = False) -> Iterator[str]:
    """Sets each secret; one that fails does not keep the others from it.

    Args:
        fom: `fiftyone.management`
        secrets: by name; an empty one is passed over, or deleted when rotating
        rotate: whether secrets that exist are replaced

    Yields:
        what was done, line by line

    Raises:
        ValueError: at the end, with the names of those that failed
    """
    # Keys by its signature, objects with a key by its text.
    there = {getattr(secret, "key", secret) for secret in fom.list_secrets()}
    failed = []
    for name, value in sorted(secrets.items()):
        try:
            said = _set_secret(fom, name, value, name in there, rotate)
        except Exception as error:  # of the SDK, of the network: the other secrets are tried all the same
            failed.append(name)
            reason = str(error).replace(value, "...") if value else str(error)
            said = f"failed ({type(error).__name__}: {reason})"
        if said:
            yield f"secret {name}: {said}"
    if failed:
        raise ValueError(f"As they were before: {', '.join(failed)}. Mend the reason above, and run this again.")


def _set_secret(fom: ModuleType, name: str, value: str, there: bool, rotate: bool) -> str | None:
    """What became of a secret; None where there is nothing to tell."""
    if there and not rotate:
        return "there already, left as it is" if value else None
    if there and value:
        fom.update_secret(name, value)
        return "replaced"
    if there:
        fom.delete_secret(name)
        return "deleted, since the file has no value for it"
    if value:
        fom.add_secret(name, value, description="MBARI plugins")
        return "set"
    return None


def read_secrets(path: Path) -> dict[str, str]:
    """The names and values of a file of secrets: one `NAME: value` a line.

    A value is the text up to the end of its line, whatever it looks like: YAML would make numbers of some passwords,
    and cut others.

    Raises:
        ValueError: one sentence that shows no value
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}.") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pair = re.fullmatch(r"([A-Za-z_]+):(?:\s+(.*?))?\s*", line)
        if pair is None:
            raise ValueError(f"{path}, line {number}, is not NAME: value.")
        name, value = pair[1], pair[2] or ""
        if name in found:
            raise ValueError(f"{path}, line {number}: {name} is there twice.")
        quoted = re.fullmatch(r"(['\"])(.*)\1", value)
        if quoted is None and (value.startswith("#") or " #" in value):
            raise ValueError(f"{path}, line {number}: put the value between quotes, '...', or the remark elsewhere.")
        found[name] = quoted[2] if quoted else value
    known = yaml.safe_load((ROOT / "plugins" / "train_classifier" / "fiftyone.yml").read_text())["secrets"]
    if unknown := sorted(found.keys() - set(known)):
        raise ValueError(f"No plugin asks for {', '.join(unknown)}: correct the name.")
    return found


def manifest(path: Path) -> dict:
    """The manifest in a plugin's zip."""
    with zipfile.ZipFile(path) as archive:
        return yaml.safe_load(archive.read(f"{path.stem}/fiftyone.yml"))


def main() -> Iterator[str]:
    """Does what the command line says; a ValueError is one sentence for whoever called it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dist", type=Path, nargs="?", help="the folder of the zips")
    parser.add_argument("--secrets", type=Path, help="a file of one NAME: value a line")
    parser.add_argument("--rotate", action="store_true", help="the secrets alone: replace those that are there")
    given = parser.parse_args()
    if given.rotate and (given.dist or not given.secrets):
        parser.error("--rotate takes --secrets and no folder: it leaves the plugins as they are")
    if not given.rotate and not given.dist:
        parser.error("name the folder of the zips")
    secrets = read_secrets(given.secrets) if given.secrets else {}
    zips = sorted(given.dist.glob("*.zip")) if given.dist else []
    if given.dist and not zips:
        raise ValueError(f"There are no zips in {given.dist}: build them with `make zips`.")
    try:
        import fiftyone.management as management
    except ImportError:
        raise ValueError("This Python has no fiftyone.management: it takes FiftyOne Enterprise's SDK.") from None
    yield from set_secrets(management, secrets, rotate=True) if given.rotate else install(management, zips, secrets)


if __name__ == "__main__":
    try:
        for done in main():
            print(done)
    except ValueError as error:
        sys.exit(str(error))
