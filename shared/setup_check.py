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
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from . import __version__
from .errors import SuiteError

if TYPE_CHECKING:
    from pymongo.database import Database

LIBRARIES = ("fiftyone", "torch", "torchvision", "ultralytics", "timm", "openvino", "transformers", "boto3")
HUB = "huggingface.co"
SCRATCH_BYTES = 1 << 30  # what a training of 60,000 ROIs takes
REACH_SECONDS = 3.0

Row = dict[str, str]


def run(secrets: Mapping[str, str], db: Database) -> list[Row]:
    """Tries each thing; none of them writes anything that stays.

    Args:
        secrets: the suite's secrets that are set
        db: FiftyOne's database

    Returns:
        rows of item, state ("ok", "not set", "not reached", "failed") and detail; no secret is in any of them
    """
    checks: list[tuple[str, Callable[[], Row]]] = [
        ("versions", _versions),
        ("processor", _processor),
        ("GPU", _gpu),
        ("scratch space", _scratch),
        ("database", lambda: _database(db)),
        ("artifact root", lambda: _artifacts(secrets)),
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


def _versions() -> Row:
    found, missing = [f"suite {__version__}", f"Python {platform.python_version()}"], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return _failed(f"{', '.join(found)}; missing: {', '.join(missing)} (install the plugin's requirements.txt)")
    import torch
    import torchvision

    # A torchvision built for another torch imports, and then has no operators.
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return _ok(", ".join(found))


def _processor() -> Row:
    import torch

    bfloat16 = "with" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "without"
    return _ok(f"{os.cpu_count()} cores, {bfloat16} bfloat16")


def _gpu() -> Row:
    import torch

    if not torch.cuda.is_available():
        return _ok("none: everything runs on the processor; long trainings want a GPU worker")
    names = []
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        names.append(f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    torch.zeros(1, device="cuda").add_(1).item()
    return _ok("; ".join(names))


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


def _artifacts(secrets: Mapping[str, str]) -> Row:
    from .artifacts import open_root

    uri = secrets.get("MBARI_ARTIFACTS")
    if not uri:
        return _not_set(
            "MBARI_ARTIFACTS", "training has nowhere to put models; set it to a folder or s3://bucket/prefix"
        )
    open_root(uri, secrets).check()
    return _ok(f"{uri}: written, read and deleted a probe")


def _label_store(secrets: Mapping[str, str]) -> Row:
    uri = secrets.get("MBARI_LABEL_STORE")
    if not uri:
        return _not_set("MBARI_LABEL_STORE", "corrections stay in FiftyOne")
    from .sync.stores import open_store

    store = open_store(uri, secrets.get("MBARI_LABEL_STORE_TOKEN"))
    try:
        return _ok(store.check())
    finally:
        store.close()


def _vocabulary(secrets: Mapping[str, str]) -> Row:
    uri = secrets.get("MBARI_VOCABULARY")
    if not uri:
        return _not_set("MBARI_VOCABULARY", "the label field's own classes are the vocabulary")
    from . import vocabulary

    return _ok(f"{uri}: {len(vocabulary.load(uri, secrets)):,} names")


def _trusted(secrets: Mapping[str, str]) -> Row:
    prefixes = secrets.get("MBARI_TRUSTED_WEIGHTS")
    if not prefixes:
        return _not_set("MBARI_TRUSTED_WEIGHTS", "weights may be loaded from any file or s3:// URI (never with code)")
    return _ok(prefixes)


def _hub() -> Row:
    row = _reach(HUB, 443, f"{HUB} answers")
    if row["state"] == "failed":
        return {"state": "not reached", "detail": f"{HUB} cannot be reached: give base weights as files or s3:// URIs"}
    return row


def _webhook(secrets: Mapping[str, str]) -> Row:
    uri = secrets.get("MBARI_WEBHOOK_URL")
    if not uri:
        return _not_set("MBARI_WEBHOOK_URL", "no events are posted")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return _failed("MBARI_WEBHOOK_URL is not an http(s) URL")
    # The path of a webhook is its password: only the host is shown, and nothing is posted.
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _reach(parts.hostname, port, f"{parts.scheme}://{parts.hostname} answers")


def _price(secrets: Mapping[str, str]) -> Row:
    price = secrets.get("MBARI_PRICE_PER_HOUR")
    if not price:
        return _not_set("MBARI_PRICE_PER_HOUR", "no costs are shown")
    try:
        return _ok(f"{float(price):.2f} per hour of a worker")
    except ValueError:
        return _failed("MBARI_PRICE_PER_HOUR is not a number")


def _reach(host: str, port: int, detail: str) -> Row:
    try:
        with socket.create_connection((host, port), timeout=REACH_SECONDS):
            return _ok(detail)
    except OSError as error:
        return _failed(f"{host}:{port} cannot be reached ({error.strerror or 'no answer'})")
