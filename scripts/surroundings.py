"""Where demo, App and benchmarks keep their things: all under `build/`, unless the environment says otherwise.

Call `prepare()` before FiftyOne or Ultralytics is imported: both read their settings then.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("MBARI_BUILD") or ROOT / "build")
DEMO = BUILD / "demo"
DATASET = "mbari-demo"
# The demo's database of record: a database beside FiftyOne's own, on the same server.
LABELS, ROIS = "mbari-demo-labels", "rois"
# `fiftyone delegated launch`, without relying on a script that knows the path of its interpreter.
FIFTYONE = "from fiftyone.core.cli import main; main()"


class NoDatabaseError(SystemExit):
    """FiftyOne's MongoDB cannot be used: whatever script runs ends with this one sentence."""


def prepare(home: Path = DEMO) -> None:
    """Points FiftyOne, Ultralytics and matplotlib at folders of this project; what is set already stays.

    Args:
        home: folder of the database, the unpacked plugins and the artifact root
    """
    # Left by a FiftyOne that started this process: the port of its MongoDB, not of ours.
    os.environ.pop("FIFTYONE_PRIVATE_DATABASE_PORT", None)
    for name, value in _settings(home).items():
        os.environ.setdefault(name, value)
    for folder in ("mongo", "plugins", "artifacts"):
        (home / folder).mkdir(parents=True, exist_ok=True)


def _settings(home: Path) -> dict[str, str]:
    own = BUILD / "fiftyone"
    settings = {
        "FIFTYONE_PLUGINS_DIR": str(home / "plugins"),
        "FIFTYONE_DEFAULT_DATASET_DIR": str(own / "datasets"),
        "FIFTYONE_DATASET_ZOO_DIR": str(own / "dataset-zoo"),
        "FIFTYONE_MODEL_ZOO_DIR": str(own / "model-zoo"),
        "FIFTYONE_DO_NOT_TRACK": "true",
        # The open-source App offers "Schedule" only with this.
        "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true",
        "MBARI_ARTIFACTS": str(home / "artifacts"),
        "YOLO_CONFIG_DIR": str(BUILD / "ultralytics"),
        "MPLCONFIGDIR": str(BUILD / "matplotlib"),
    }
    if "FIFTYONE_DATABASE_URI" not in os.environ:
        settings |= {
            # A database of the user's own configuration file must not be touched either.
            "FIFTYONE_CONFIG_PATH": str(own / "config.json"),
            "FIFTYONE_APP_CONFIG_PATH": str(own / "app_config.json"),
            "FIFTYONE_DATABASE_DIR": str(home / "mongo"),
            # Else FiftyOne announces at every start that the wheel's MongoDB is the oldest that it supports.
            "FIFTYONE_DATABASE_VALIDATION": "false",
        }
    return settings


def own_database() -> None:
    """Starts FiftyOne's own MongoDB in `FIFTYONE_DATABASE_DIR` and connects to it, unless a URI is set.

    By itself FiftyOne joins whatever MongoDB another FiftyOne of the same user has running, in whichever folder: it
    looks for a process by the name of the service alone. So the name says the folder here. Processes that this one
    starts find the port in their environment.

    Raises:
        NoDatabaseError: when MongoDB does not start within FiftyOne's minute
    """
    if os.environ.get("FIFTYONE_DATABASE_URI"):
        return
    import fiftyone.core.odm as odm
    from fiftyone.core.service import DatabaseService, ServiceListenTimeout

    folder = Path(os.environ["FIFTYONE_DATABASE_DIR"]).resolve()
    DatabaseService.service_name = f"db-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    try:
        odm.get_db_conn()
    except ServiceListenTimeout as error:
        log = folder / "log" / "mongo.log"
        raise NoDatabaseError(
            f"MongoDB did not start in {folder}, or another one uses that folder; see {log}"
        ) from error


def own_label_store() -> str:
    """The URI of the demo's label store, as the secret MBARI_LABEL_STORE has it; to be called after `own_database`."""
    # Its server has a name, since the embedded one has another port each time.
    keys = [f"collection={ROIS}", f"name={DATASET}", "modified=modified", "modified_by=modified_by", "history=history"]
    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    if uri:
        server, options = _server(uri)
    else:
        import fiftyone.core.odm as odm

        host, port = odm.get_db_conn().client.address
        server, options = f"mongodb://{host}:{port}", []
    return f"{server}/{LABELS}?{'&'.join([*options, *keys])}"


def _server(uri: str) -> tuple[str, list[str]]:
    """A MongoDB URI without its database, and the options with which the same user is let into any other."""
    scheme, _, rest = (uri if "://" in uri else f"mongodb://{uri}").partition("://")
    place, _, query = rest.partition("?")
    authority, _, database = place.partition("/")
    options = [option for option in re.split("[&;]", query) if option]
    given = dict(option.lower().partition("=")[::2] for option in options)
    # Unless it is said apart, the database in a URI is also the one that knows the user.
    if "@" in authority and "authsource" not in given and given.get("authmechanism", "scram").startswith("scram"):
        options.append(f"authSource={database or 'admin'}")
    return f"{scheme}://{authority}", options


def install_plugins() -> None:
    """Builds the zips and unpacks them where FiftyOne looks for plugins, if that folder is the demo's own."""
    import shutil

    from build_zips import build, unpack

    plugins = Path(os.environ["FIFTYONE_PLUGINS_DIR"])
    zips = build(ROOT / "dist")
    if plugins != DEMO / "plugins":
        return
    for archive in zips:
        # A running App, worker or prompt reads these files: those that are the same stay.
        digest, stamp = hashlib.sha256(archive.read_bytes()).hexdigest(), plugins / f".{archive.stem}"
        if stamp.is_file() and stamp.read_text() == digest:
            continue
        shutil.rmtree(plugins / archive.stem, ignore_errors=True)
        unpack(archive, plugins)
        stamp.write_text(digest)


@contextmanager
def delegated_worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """FiftyOne's own delegated worker, a process of its own, outside the checkout; ends with the block."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", FIFTYONE, "delegated", "launch"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as output:
        worker = subprocess.Popen(command, cwd=log.parent, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield worker
        finally:
            worker.terminate()
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
