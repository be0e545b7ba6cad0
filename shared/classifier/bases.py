"""Where weights come from: hub names, files, `s3://`, networks from scratch, and which are trusted."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..artifacts import fetch_uri
from ..errors import InputError, StorageError, WeightsError

_HUB_NAME = re.compile(r"yolo(v8|11|26)[nsmlx]-cls\.pt")
_SCRATCH_NAME = re.compile(r"yolo(v8|11|26)[nsmlx]-cls\.yaml")
_OTHERWISE = "give the weights as a file, an s3:// URI or a model of the registry instead"


def trusted_prefixes(secrets: Mapping[str, str]) -> tuple[str, ...]:
    """The prefixes under which weights must lie, from `MBARI_TRUSTED_WEIGHTS`; none means anywhere."""
    listed = (secrets.get("MBARI_TRUSTED_WEIGHTS") or "").split(",")
    return tuple(prefix.strip() for prefix in listed if prefix.strip())


def resolve_base(name: str, dest: Path, secrets: Mapping[str, str], trusted: Iterable[str] = ()) -> Path:
    """A local path to the weights that a person named.

    Args:
        name: a name of Ultralytics' hub (`yolov8n-cls.pt`; 8, 11 or 26, any size), the same ending in
            `.yaml` for a network from scratch, a file or folder, an `s3://` URI, or a Hugging Face model as
            `hf://owner/name`
        dest: folder for what is downloaded
        secrets: for `s3://`, see `s3.client`
        trusted: prefixes of which a file or URI must have one; empty means any. Names of
            Ultralytics' hub are always trusted.

    Returns:
        the file or folder; for a network from scratch the name as it is

    Raises:
        InputError: if there is no such name
        WeightsError: if it is not under a trusted prefix
        StorageError: if it cannot be fetched
    """
    name = name.strip()
    trusted = tuple(trusted)
    if not name:
        raise InputError("No weights are named: give a name such as yolov8n-cls.pt, a file or an s3:// URI.")
    is_local_file = "://" not in name and Path(name).expanduser().exists()
    if _HUB_NAME.fullmatch(name) and not is_local_file:
        return _from_hub(name, dest)
    if name.endswith((".yaml", ".yml")):
        # Ultralytics evaluates parts of a YAML file, so only those that come with it are taken.
        if not _SCRATCH_NAME.fullmatch(name):
            raise InputError(f"'{name}' is not a network to train from scratch: name one such as yolov8n-cls.yaml.")
        return Path(name)
    if "://" in name and not name.startswith(("s3://", "hf://")):
        raise InputError(f"Weights cannot be read from '{name}': {_OTHERWISE}.")
    if trusted and not is_trusted(name, trusted):
        raise WeightsError(f"'{name}' is not under one of the trusted places: {', '.join(trusted)}.")
    if name.startswith("hf://"):
        return _from_hugging_face(name.removeprefix("hf://"), dest)
    if not is_local_file and re.fullmatch(r"[\w.-]+\.pt", name):
        raise InputError(
            f"There is no file '{name}', and it is not a classifier of Ultralytics' hub: those are named such as "
            "yolov8n-cls.pt, yolo11s-cls.pt or yolo26m-cls.pt."
        )
    return fetch_uri(name, dest, secrets)


def is_trusted(name: str, trusted: Iterable[str]) -> bool:
    """Whether a file or URI lies under one of the prefixes, whole path segments compared.

    Local paths are compared after links and `..` are resolved; a URI with such segments is never
    trusted, since who reads it may resolve them.
    """
    if "://" not in name:
        path = Path(name).expanduser().resolve()
        return any(path.is_relative_to(Path(p).expanduser().resolve()) for p in trusted if "://" not in p)
    parts = _segments(name)
    if any(part in ("", ".", "..") for part in parts[2:]):
        return False
    prefixes = (_segments(p) for p in trusted if "://" in p)
    return any(parts[: len(prefix)] == prefix for prefix in prefixes)


def _segments(uri: str) -> list[str]:
    """Of `s3://bucket/a/b` the list `s3:`, ``, `bucket`, `a`, `b`."""
    return uri.rstrip("/").split("/")


def _from_hub(name: str, dest: Path) -> Path:
    """A file of Ultralytics' hub, downloaded by Ultralytics where it is not here already."""
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.downloads import attempt_download_asset

    for known in (dest / name, Path(SETTINGS["weights_dir"]) / name):
        if known.is_file():
            return known
    dest.mkdir(parents=True, exist_ok=True)
    try:
        file = Path(attempt_download_asset(dest / name))
    # Ultralytics raises errors of many kinds: of requests, of curl, its own.
    except Exception as error:
        (dest / name).unlink(missing_ok=True)
        raise StorageError(
            f"{name} could not be downloaded, there is no way to Ultralytics' hub: {_OTHERWISE}."
        ) from error
    if not file.is_file():
        raise StorageError(f"{name} could not be downloaded from Ultralytics' hub: {_OTHERWISE}.")
    return file


def _from_hugging_face(repo: str, dest: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    pieces = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
    try:
        return Path(snapshot_download(repo, local_dir=dest / repo, allow_patterns=pieces))
    except HFValidationError as error:
        raise InputError(f"'hf://{repo}' is not a name on Hugging Face: write hf://owner/name.") from error
    except LocalEntryNotFoundError as error:
        raise StorageError(
            f"hf://{repo} could not be downloaded, there is no way to Hugging Face: {_OTHERWISE}."
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"There is no public model '{repo}' on Hugging Face.") from error
    except Exception as error:
        raise StorageError(f"hf://{repo} could not be downloaded ({type(error).__name__}): {_OTHERWISE}.") from error
