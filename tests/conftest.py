"""Fixtures that the whole test suite shares; every test runs against real services of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from scripts.surroundings import own_database

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"

# Before FiftyOne is imported: its own MongoDB in a folder of this process's own, never the user's. Two runs, or two
# processes of one, that share a server would stop it under each other's feet, and empty each other's collections.
OWN = "MBARI_TEST_OWN_DATABASE"
if "FIFTYONE_DATABASE_DIR" not in os.environ or OWN in os.environ:
    os.environ |= {OWN: "1", "FIFTYONE_DATABASE_DIR": str(BUILD / "test" / f"mongo-{os.getpid()}")}
os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
os.environ.setdefault("FIFTYONE_DATABASE_NAME", "mbari-test")
os.environ.setdefault("FIFTYONE_PLUGINS_DIR", str(ROOT / "plugins"))
os.environ.setdefault("FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS", "true")
os.environ.setdefault("YOLO_CONFIG_DIR", str(BUILD / "ultralytics"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Real plankton images and weights that lie beside the checkout on some machines; never required.
DATA = ROOT.parent / "shared" / "data"


def pytest_sessionstart() -> None:
    """Removes the databases that earlier test runs left."""
    import psutil

    for folder in (BUILD / "test").glob("mongo-*"):
        if not psutil.pid_exists(int(folder.name.removeprefix("mongo-"))):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pwssc() -> Path:
    """The folder of real plankton images, one sub-folder a class."""
    folder = DATA / "pwssc"
    if not folder.is_dir():
        pytest.skip("the real plankton images are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def leaf_weights() -> Path:
    """A real YOLOv8n-cls checkpoint of 36 classes."""
    file = DATA / "weights" / "leaf36-yolov8n-cls.pt"
    if not file.is_file():
        pytest.skip("the real weights are not beside this checkout")
    return file


@pytest.fixture
def db() -> Iterator[Any]:
    """A fresh database on FiftyOne's own MongoDB server, dropped afterwards."""
    import fiftyone.core.odm as foo

    own_database()
    database = foo.get_db_conn().client[f"mbari-test-{uuid.uuid4().hex[:12]}"]
    yield database
    database.client.drop_database(database.name)


_S3_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until whoever started it is gone
"""


@contextmanager
def _s3_server() -> Iterator[dict[str, str]]:
    """An S3 server (moto) over HTTP in a process of its own; yields the secrets to reach it."""
    command = [sys.executable, "-c", _S3_SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "test/secret+that/must-never-be-shown",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        server.stdin.close()
        server.wait(20)


def let_others_in(folder: Path) -> None:
    """Makes the private folders of pytest that lead to a test's own passable for every user."""
    for above in takewhile(lambda above: above != Path(tempfile.gettempdir()), folder.parents):
        above.chmod(0o755)


@cache
def _aws_session() -> Any:
    """The only one: each reads the descriptions of the API anew."""
    import boto3

    return boto3.session.Session()


def aws(service: str, secrets: dict[str, str]) -> Any:
    """A plain boto3 client, for tests to look behind the suite's own."""
    return _aws_session().client(
        service,
        aws_access_key_id=secrets["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secrets["AWS_SECRET_ACCESS_KEY"],
        region_name=secrets["AWS_DEFAULT_REGION"],
        endpoint_url=secrets["AWS_ENDPOINT_URL"],
    )


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The secrets of a real S3 server over HTTP that accepts any credentials."""
    with _s3_server() as secrets:
        yield secrets


@pytest.fixture
def bucket(s3: dict[str, str]) -> str:
    """The name of a fresh, empty bucket on the server of `s3`."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    aws("s3", s3).create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def guarded_s3() -> Iterator[dict[str, str]]:
    """The secrets of an S3 server that checks credentials; these may list and read the bucket `guarded`, not write.

    The bucket holds the object `models/a.txt`.
    """
    import json

    import httpx

    with _s3_server() as secrets:
        client, iam = aws("s3", secrets), aws("iam", secrets)
        client.create_bucket(Bucket="guarded")
        client.put_object(Bucket="guarded", Key="models/a.txt", Body=b"readable")
        iam.create_user(UserName="reader")
        statement = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        made = iam.create_access_key(UserName="reader")["AccessKey"]
        # From here on the server checks who asks.
        httpx.post(f"{secrets['AWS_ENDPOINT_URL']}/moto-api/reset-auth", content=b"0").raise_for_status()
        yield secrets | {
            "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        }


@pytest.fixture
def dataset() -> Iterator[Any]:
    """A fresh, empty FiftyOne dataset, deleted afterwards."""
    import fiftyone as fo

    own_database()
    made = fo.Dataset(f"test-{uuid.uuid4().hex[:12]}")
    yield made
    made.delete()


def _registry() -> Iterator[Any]:
    """The registry that FiftyOne's database holds; it, its aliases and the runs are gone afterwards."""
    own_database()
    import fiftyone.core.odm as odm

    from shared.lineage.registry import ALIASES, VERSIONS, Registry
    from shared.runs import COLLECTION

    db = odm.get_db_conn()
    yield Registry(db)
    for name in (VERSIONS, ALIASES, COLLECTION):
        db[name].drop()


registry = pytest.fixture(_registry)
module_registry = pytest.fixture(_registry, scope="module")  # for all tests of a file
