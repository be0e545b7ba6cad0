"""What an admin wants to know on the first day: what works here, what is missing, and what to do about it.

It runs where the operator runs: executed at once it looks at the App's server, scheduled at a worker.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from .. import __version__
from ..errors import ImageError, ReadOnlyError, SuiteError

if TYPE_CHECKING:
    from pymongo.database import Database

SHOWN = ("fiftyone", "torch", "torchvision", "ultralytics", "timm", "openvino", "transformers", "boto3")
DELEGATED = "delegated_ops"  # FiftyOne's collection of scheduled runs
WAITING_SECONDS = 900  # after which a queued run is worth a look, while no worker runs anything
HUBS = {"huggingface.co": "hf:// weights and backbones", "github.com": "Ultralytics' networks such as yolov8n-cls.pt"}
SCRATCH_BYTES = 1 << 30  # what a training of 60,000 ROIs takes
REACH_SECONDS = 3.0

Row = dict[str, str]


class Plugin(NamedTuple):
    """An installed plugin of the suite, as FiftyOne knows it."""

    name: str
    version: str
    folder: Path


def run(
    secrets: Mapping[str, str], db: Database, plugins: Sequence[Plugin] = (), media: Sequence[str] = ()
) -> list[Row]:
    """Tries each thing; none of them writes anything that stays.

    Args:
        secrets: the suite's secrets that are set
        db: FiftyOne's database
        plugins: those of the suite that are installed here
        media: some file paths or URIs of the open dataset

    Returns:
        rows of item, state ("ok", "read only", "not set", "not reached", "failed") and detail; no secret is in any
    """
    checks: list[tuple[str, Callable[[], Row]]] = [
        ("versions", lambda: _versions(plugins)),
        ("plugins", lambda: _plugins(plugins)),
        ("processor", _processor),
        ("GPU", _gpu),
        ("scratch space", _scratch),
        ("database", lambda: _database(db)),
        ("scheduled runs", lambda: _scheduled(db)),
        ("artifact root", lambda: _artifacts(secrets)),
        ("S3 credentials", lambda: _credentials(secrets, media)),
        ("media", lambda: _media(secrets, media)),
        ("label store", lambda: _label_store(secrets)),
        ("vocabulary", lambda: _vocabulary(secrets)),
        ("trusted weights", lambda: _trusted(secrets)),
        ("model hub", _hub),
        ("webhook", lambda: _webhook(secrets)),
        ("price per hour", lambda: _price(secrets)),
    ]
    rows = []
    for item, check in checks:
        try:
            row = check()
        except SuiteError as error:
            row = _failed(str(error))
        except Exception as error:  # one broken thing must not hide the state of the others
            row = _failed(f"{type(error).__name__} while checking; look into the worker's log.")
        rows.append({"item": item, **row})
    return rows


def _ok(detail: str) -> Row:
    return {"state": "ok", "detail": detail}


def _failed(detail: str) -> Row:
    return {"state": "failed", "detail": detail}


def _not_set(secret: str, consequence: str) -> Row:
    return {"state": "not set", "detail": f"{secret} is not set: {consequence}"}


def _versions(plugins: Sequence[Plugin]) -> Row:
    found = [f"suite {__version__}", f"Python {platform.python_version()}"]
    found += [f"{name} {version}" for name in SHOWN if (version := _installed(name))]
    wrong = sorted({problem for plugin in plugins for problem in _unmet(plugin)})
    owners = sorted(set(importlib.metadata.packages_distributions().get("cv2", ())))
    if len(owners) > 1:
        wrong.append(f"{' and '.join(owners)} bring one and the same cv2 (keep opencv-python-headless alone)")
    if wrong:
        return _failed(f"{'; '.join(wrong)}: renew the image of the App or the worker. Found: {', '.join(found)}")
    import torch
    import torchvision

    # A torchvision built for another torch imports, and then has no operators.
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return _ok(", ".join(found))


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _unmet(plugin: Plugin) -> list[str]:
    """What a plugin's requirements.txt asks for and this machine does not have."""
    from packaging.requirements import Requirement

    problems = []
    for line in (plugin.folder / "requirements.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        asked = Requirement(line)
        version = _installed(asked.name)
        if version is None:
            problems.append(f"{asked} is missing")
        elif not asked.specifier.contains(version, prereleases=True):
            problems.append(f"{asked.name} is {version} and should be {asked.specifier}")
    return problems


def _plugins(plugins: Sequence[Plugin]) -> Row:
    if len({plugin.version for plugin in plugins}) < 2:
        return _ok(", ".join(sorted(plugin.name.rpartition("/")[2] for plugin in plugins)))
    said = ", ".join(f"{plugin.name.rpartition('/')[2]} {plugin.version}" for plugin in sorted(plugins))
    return _failed(f"they are of different releases: {said}; upload the zips of one release, once none is rolled back")


def _processor() -> Row:
    import torch

    bfloat16 = "with" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "without"
    return _ok(f"{os.cpu_count()} cores, {bfloat16} bfloat16")


def _gpu() -> Row:
    import torch

    if not torch.cuda.is_available():
        if not _has_gpu():
            return _ok("none: everything runs on the processor; long trainings want a GPU worker")
        if torch.version.cuda is None:
            return _failed(
                f"this machine has one, and torch {torch.__version__} is built without CUDA: change the image"
            )
        return _failed(
            f"this worker should have one, and torch, built for CUDA {torch.version.cuda}, finds none that it can use: "
            "look at the driver (nvidia-smi), and at what the container is given"
        )
    names = []
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        names.append(f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    torch.zeros(1, device="cuda").add_(1).item()
    return _ok("; ".join(names))


def _has_gpu() -> bool:
    """Whether there is a GPU, or the container was started to have one."""
    given = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")
    return given not in ("", "void", "none") or Path("/proc/driver/nvidia/gpus").is_dir()


def _scratch() -> Row:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    detail = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < SCRATCH_BYTES:
        return _failed(f"{detail}; a training of 60,000 ROIs needs 1 GiB (TMPDIR chooses the folder)")
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        probe.write(b"x")
    return _ok(detail)


def _database(db: Database) -> Row:
    version = db.client.server_info()["version"]
    return _ok(f"MongoDB {version}, {db['mbari_versions'].estimated_document_count():,} model versions")


def _scheduled(db: Database) -> Row:
    ended = db[DELEGATED].find_one({"completed_at": {"$ne": None}}, sort=[("completed_at", -1)])
    seen = f"the last run ended {_ago(ended['completed_at'])}" if ended else "no worker has ended a run yet"
    waiting = db[DELEGATED].find_one({"run_state": "queued"}, sort=[("queued_at", 1)])
    if waiting is None or not waiting.get("queued_at"):
        return _ok(f"{seen}; none is waiting")
    since = _ago(waiting["queued_at"])
    running = db[DELEGATED].find_one({"run_state": "running"})
    if running is None and _seconds(waiting["queued_at"]) > WAITING_SECONDS:
        return _failed(f"{seen}; one waits since {since} and none runs: see that a worker (orchestrator) is up")
    return _ok(f"{seen}; one waits since {since}")


def _seconds(when: datetime) -> float:
    return (datetime.now(UTC) - (when if when.tzinfo else when.replace(tzinfo=UTC))).total_seconds()


def _ago(when: datetime) -> str:
    minutes = _seconds(when) / 60
    if minutes < 120:
        return f"{minutes:.0f} minutes ago"
    return f"{minutes / 60:.0f} hours ago" if minutes < 60 * 48 else f"{minutes / 60 / 24:.0f} days ago"


def _artifacts(secrets: Mapping[str, str]) -> Row:
    from ..artifacts import open_root

    uri = secrets.get("MBARI_ARTIFACTS")
    if not uri:
        return _not_set(
            "MBARI_ARTIFACTS", "training has nowhere to put models; set it to a folder or s3://bucket/prefix"
        )
    root = open_root(uri, secrets)
    if not uri.startswith("s3://") and not Path(uri).expanduser().is_dir():
        # A training would make it: maybe on this machine alone, where a disk of all should have been mounted.
        return _failed(f"there is no folder {uri} on this machine: make or mount it, or correct MBARI_ARTIFACTS")
    try:
        root.check()
    except ReadOnlyError:
        said = f"{uri}: listed and read; writing is not allowed, which does for applying models, not for training"
        return {"state": "read only", "detail": said}
    return _ok(f"{uri}: wrote, listed, read and deleted a probe")


def _credentials(secrets: Mapping[str, str], media: Sequence[str]) -> Row:
    places = ("MBARI_ARTIFACTS", "MBARI_VOCABULARY", "MBARI_TRUSTED_WEIGHTS")
    used = [*(secrets.get(place) or "" for place in places), *media]
    if not any("s3://" in uri for uri in used):
        return {"state": "not set", "detail": "nothing here is on S3"}
    from .. import s3

    source = s3.source(secrets)
    if source.expires is None:
        return _ok(source.said)
    left = -_seconds(source.expires)
    until = f"{source.expires:%Y-%m-%d %H:%M} UTC"
    if left <= 0:
        return _failed(f"{source.said}; they expired {until}: set new AWS secrets")
    return _ok(f"{source.said}; they expire {until}, in {left / 3600:.1f} hours")


def _media(secrets: Mapping[str, str], media: Sequence[str]) -> Row:
    if not media:
        return {"state": "not set", "detail": "open a dataset, and some of its images are read as a run reads them"}
    from ..media import Media, decode

    reader, problems = Media(secrets, cache_bytes=0), []
    for uri in media:
        try:
            decode(reader.read(uri))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        said = f"{len(problems)} of {len(media)} images of this dataset cannot be read here: {problems[0]}"
        if any("/s3:/" in uri for uri in media):
            return _failed(
                f"{said} Open-source FiftyOne took addresses for paths when these samples were made: set "
                "them anew with dataset.set_values('filepath', ...), which leaves s3:// as it is."
            )
        return _failed(f"{said} Give this machine the folder or the access, or the samples the right path.")
    return _ok(f"{len(media)} images of this dataset read, such as {media[0]}")


def _label_store(secrets: Mapping[str, str]) -> Row:
    uri = secrets.get("MBARI_LABEL_STORE")
    if not uri:
        return _not_set("MBARI_LABEL_STORE", "corrections stay in FiftyOne")
    from ..sync.stores import open_store

    store = open_store(uri, secrets.get("MBARI_LABEL_STORE_TOKEN"))
    try:
        return _ok(store.check())
    finally:
        store.close()


def _vocabulary(secrets: Mapping[str, str]) -> Row:
    uri = secrets.get("MBARI_VOCABULARY")
    if not uri:
        return _not_set("MBARI_VOCABULARY", "the label field's own classes are the vocabulary")
    from .. import vocabulary

    return _ok(f"{uri}: {len(vocabulary.load(uri, secrets)):,} names")


def _trusted(secrets: Mapping[str, str]) -> Row:
    from ..classifier.bases import trusted_prefixes

    prefixes = secrets.get("MBARI_TRUSTED_WEIGHTS")
    if not prefixes:
        return _not_set("MBARI_TRUSTED_WEIGHTS", "weights may be loaded from any file or s3:// URI (never with code)")
    for prefix in trusted_prefixes(secrets):
        if not prefix.startswith(("s3://", "hf://")) and not Path(prefix).expanduser().is_absolute():
            return _failed(
                f"'{prefix}' in MBARI_TRUSTED_WEIGHTS is neither s3://bucket/folder, hf://owner nor a full path, and "
                "so trusts nothing: correct it"
            )
    return _ok(prefixes)


def _hub() -> Row:
    away = [f"{hub} ({what})" for hub, what in HUBS.items() if _reach(hub, 443, "")["state"] == "failed"]
    if away:
        said = f"{' and '.join(away)} cannot be reached: give such weights as files or s3:// URIs"
        return {"state": "not reached", "detail": said}
    return _ok(f"{' and '.join(HUBS)} answer")


def _webhook(secrets: Mapping[str, str]) -> Row:
    uri = secrets.get("MBARI_WEBHOOK_URL")
    if not uri:
        return _not_set("MBARI_WEBHOOK_URL", "no events are posted")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # such as a port that is no number
        host = None
    if not host or parts.scheme not in ("http", "https"):
        return _failed("MBARI_WEBHOOK_URL is not an http(s) URL: set it to the address that the webhook was given")
    # The path of a webhook is its password: only the host is shown, and nothing is posted.
    return _reach(host, port, f"{parts.scheme}://{host} answers")


def _price(secrets: Mapping[str, str]) -> Row:
    from ..run_list import price_per_hour

    price = price_per_hour(secrets.get("MBARI_PRICE_PER_HOUR"))
    if price is None:
        return _not_set("MBARI_PRICE_PER_HOUR", "no costs are shown")
    return _ok(f"{price:.2f} per hour of a worker")


def _reach(host: str, port: int, detail: str) -> Row:
    try:
        with socket.create_connection((host, port), timeout=REACH_SECONDS):
            return _ok(detail)
    except OSError as error:
        return _failed(f"{host}:{port} cannot be reached ({error.strerror or 'no answer'}): check address and network")
