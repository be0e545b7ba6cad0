"""The S3 client and the sentence for everything that can go wrong, against real HTTP servers."""

import io
import json
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from shared import s3 as suite
from shared.errors import AccessError, InputError, StorageError
from tests.expiring import Expiring


def failure(secrets: dict[str, str], bucket: str, work: str = "get_object", **kwargs) -> str:
    """The sentence for what happens when `work` is asked of `bucket`; never with a secret in it."""
    uri = f"s3://{bucket}/{kwargs.get('Key', '')}"
    with pytest.raises(StorageError) as caught, suite.explaining(uri):
        getattr(suite.client(secrets), work)(Bucket=bucket, **kwargs)
    said = str(caught.value)
    assert uri in said
    assert said.endswith(".")
    assert "\n" not in said
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert not secrets.get(name) or secrets[name] not in said
    return said


@pytest.fixture
def no_settings(monkeypatch, tmp_path):
    """A machine on which AWS's tools are not set up."""
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://bucket/a/b c/Pseudo-nitzschia é.pt", ("bucket", "a/b c/Pseudo-nitzschia é.pt")),
        ("s3://bucket/100%25#x?y", ("bucket", "100%25#x?y")),
    ],
)
def test_split_uri(uri, parts):
    assert suite.split_uri(uri) == parts


@pytest.mark.parametrize("uri", ["", "bucket/key", "/local/folder", "gs://bucket/key", "s3://", "s3:///key", "s3:/b/k"])
def test_what_is_no_s3_address_is_named(uri):
    with pytest.raises(InputError, match="is not an S3 address") as caught:
        suite.split_uri(uri)
    assert f"'{uri}'" in str(caught.value)


def test_a_client_writes_and_reads(s3, bucket):
    client = suite.client(s3)
    client.upload_fileobj(io.BytesIO(b"x" * 20_000_000), bucket, "a b/ö.bin")
    assert client.get_object(Bucket=bucket, Key="a b/ö.bin")["Body"].read() == b"x" * 20_000_000


def test_what_the_secrets_leave_out_comes_from_the_environment(s3, bucket, no_settings, monkeypatch):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    client = suite.client({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""})
    assert bucket in [known["Name"] for known in client.list_buckets()["Buckets"]]


def test_keys_and_token_of_two_places_are_never_mixed(s3, no_settings, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another-account")
    credentials = suite.client(s3)._request_signer._credentials
    assert (credentials.access_key, credentials.token) == (s3["AWS_ACCESS_KEY_ID"], None)
    assert suite.client(s3 | {"AWS_SESSION_TOKEN": "ours"})._request_signer._credentials.token == "ours"


def test_half_a_credential_is_named(s3):
    with pytest.raises(StorageError, match="incomplete: AWS_SECRET_ACCESS_KEY is not set"):
        suite.client(s3 | {"AWS_SECRET_ACCESS_KEY": ""})


def test_no_credentials_at_all(s3, bucket, no_settings):
    said = failure({"AWS_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"]}, bucket, Key="a")
    assert said == f"There are no credentials for s3://{bucket}/a: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."


def test_settings_that_cannot_be_used(s3, no_settings, monkeypatch):
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL is not an address"):
        suite.client(s3 | {"AWS_ENDPOINT_URL": "my store"})
    with pytest.raises(StorageError, match="InvalidRegionError"):
        suite.client(s3 | {"AWS_DEFAULT_REGION": "us east/1"})
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="ProfileNotFound"):
        suite.client({})


def test_unknown_credentials(guarded_s3):
    said = failure(guarded_s3 | {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWNUNKNOWN00"}, "guarded", Key="models/a.txt")
    assert "does not accept the credentials" in said


def test_a_wrong_secret_key(guarded_s3):
    said = failure(guarded_s3 | {"AWS_SECRET_ACCESS_KEY": "wrong/secret"}, "guarded", Key="models/a.txt")
    assert "does not accept the credentials" in said


def test_reading_is_allowed_but_not_writing(guarded_s3, tmp_path):
    assert suite.client(guarded_s3).get_object(Bucket="guarded", Key="models/a.txt")["Body"].read() == b"readable"
    refused = failure(guarded_s3, "guarded", "put_object", Key="b", Body=b"1")
    assert "Not allowed to write to s3://guarded/b" in refused
    assert "Not allowed to delete in" in failure(guarded_s3, "guarded", "delete_object", Key="models/a.txt")
    (tmp_path / "b").write_bytes(b"1")
    # boto3's transfer wraps the store's answer in an error of its own.
    said = failure(guarded_s3, "guarded", "upload_file", Key="b", Filename=str(tmp_path / "b"))
    assert said == refused


def test_no_such_bucket_and_nothing_there(s3, bucket):
    assert "There is no bucket 'no-such-bucket'" in failure(s3, "no-such-bucket", Key="a")
    for work in ("get_object", "head_object"):
        assert f"There is nothing at s3://{bucket}/a: check the name." in failure(s3, bucket, work, Key="a")
    assert "not a possible S3 address" in failure(s3, "No bucket!", Key="a")


def test_only_an_object_is_missing_not_a_bucket(s3, bucket):
    client = suite.client(s3)
    for work in (client.get_object, client.head_object):
        with pytest.raises(ClientError) as caught:
            work(Bucket=bucket, Key="a")
        assert suite.is_missing(caught.value)
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket="no-such-bucket", Key="a")
    assert not suite.is_missing(caught.value)


def test_nobody_listens(s3):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    said = failure(s3 | {"AWS_ENDPOINT_URL": endpoint}, "models", Key="a")
    assert said.startswith(f"Cannot reach {endpoint} for s3://models/a: check the network")


def test_no_such_host(s3):
    said = failure(s3 | {"AWS_ENDPOINT_URL": "http://user:password@no-such-store.invalid:9000"}, "models", Key="a")
    assert said.startswith("Cannot reach http://no-such-store.invalid:9000 for")
    assert "password" not in said


class Server(threading.Thread):
    """Answers each connection with the same bytes and closes; counts the connections."""

    def __init__(self, answer: bytes):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.answer, self.asked = answer, 0
        self.endpoint = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.asked += 1
                connection.recv(65536)
                connection.sendall(self.answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.join()


def answer(status: int, code: str, message: str = "") -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("status", "code", "part", "times"),
    [
        (503, "SlowDown", "busy or failing", suite.ATTEMPTS),
        (500, "InternalError", "busy or failing", suite.ATTEMPTS),
        (507, "XMinioStorageFull", "no space left", 1),
        (403, "RequestTimeTooSkewed", "refuses this machine's clock", 1),
        (400, "ExpiredToken", "have expired or are not valid (ExpiredToken): set new AWS secrets, then start this", 1),
        (400, "KeyTooLongError", "refused to read s3://models/a: KeyTooLongError Too long.", 1),
    ],
)
def test_what_a_store_may_answer(s3, status, code, part, times):
    with Server(answer(status, code, "Too long.")) as server:
        said = failure(s3 | {"AWS_ENDPOINT_URL": server.endpoint}, "models", Key="a")
    assert part in said
    # What may pass is tried again, a bounded number of times; what cannot is not.
    assert server.asked == times


def test_who_is_refused_is_told_apart_from_what_may_pass(s3, bucket):
    with Expiring(s3) as store:
        store.expire()
        for work, kwargs in (("get_object", {}), ("put_object", {"Body": b"x"}), ("delete_object", {})):
            with pytest.raises(AccessError, match="ExpiredToken"), suite.explaining(f"s3://{bucket}/a"):
                getattr(suite.client(store.secrets), work)(Bucket=bucket, Key="a", **kwargs)
        # The answer to HEAD has no body, and so no reason.
        with pytest.raises(AccessError, match=r"have expired or are not valid \(400\)"), suite.explaining("s3://b/a"):
            suite.client(store.secrets).head_object(Bucket=bucket, Key="a")
    with Server(answer(503, "SlowDown")) as server, pytest.raises(StorageError) as caught, suite.explaining("s3://b/a"):
        suite.client(s3 | {"AWS_ENDPOINT_URL": server.endpoint}).get_object(Bucket="b", Key="a")
    assert not isinstance(caught.value, AccessError)


def test_credentials_that_come_from_a_process_are_renewed_while_a_client_is_in_use(
    s3, bucket, no_settings, monkeypatch, tmp_path
):
    keys, profile = tmp_path / "keys.json", tmp_path / "config"
    profile.write_text(f"[default]\ncredential_process = cat {keys}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))

    def hand_out(key: str) -> None:
        # Soon enough over for botocore to ask again each time.
        until = (datetime.now(UTC) + timedelta(seconds=90)).isoformat()
        said = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": until}
        keys.write_text(json.dumps(said))

    where = {name: s3[name] for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")}
    with Expiring(s3) as store:
        hand_out("ASIAFIRST")
        client = suite.client(where | {"AWS_ENDPOINT_URL": store.secrets["AWS_ENDPOINT_URL"]})
        client.put_object(Bucket=bucket, Key="a", Body=b"1")
        hand_out("ASIASECOND")
        client.get_object(Bucket=bucket, Key="a")
        assert [asked.key for asked in store.requests] == ["ASIAFIRST", "ASIASECOND"]
        keys.unlink()
        said = "gives none: mend the role or the credential_process"
        with pytest.raises(AccessError, match=said), suite.explaining(f"s3://{bucket}/a"):
            client.get_object(Bucket=bucket, Key="a")


def test_a_connection_that_breaks(s3):
    with Server(b"") as server:
        said = failure(s3 | {"AWS_ENDPOINT_URL": server.endpoint}, "models", Key="a")
    assert said.startswith(f"Cannot reach {server.endpoint}")
    assert server.asked == suite.ATTEMPTS


def test_a_store_that_never_answers(s3, monkeypatch):
    monkeypatch.setattr(suite, "READ_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said = failure(s3 | {"AWS_ENDPOINT_URL": endpoint}, "models", Key="a")
    assert said.startswith(f"Cannot reach {endpoint} for s3://models/a")


def test_a_transfer_that_breaks(s3):
    with Server(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this") as server:
        body = suite.client(s3 | {"AWS_ENDPOINT_URL": server.endpoint}).get_object(Bucket="models", Key="a")["Body"]
        with (
            pytest.raises(StorageError, match="Cannot reach the store for s3://models/a"),
            suite.explaining("s3://models/a"),
        ):
            body.read()


def test_a_server_without_tls(s3):
    with Server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        endpoint = server.endpoint.replace("http:", "https:")
        assert "No secure connection to https://127.0.0.1" in failure(
            s3 | {"AWS_ENDPOINT_URL": endpoint}, "models", Key="a"
        )


def test_every_botocore_error_gets_one_sentence():
    kinds, todo = [], [BotoCoreError, boto3.exceptions.Boto3Error]
    while todo:
        kinds.append(kind := todo.pop())
        todo.extend(kind.__subclasses__())
    assert len(kinds) > 50
    for kind in kinds:
        said = str(suite.explain(kind.__new__(kind), "s3://models/a"))
        assert "s3://models/a" in said
        assert said.endswith(".")


def test_other_errors_pass_unchanged():
    with pytest.raises(ZeroDivisionError), suite.explaining("s3://models/a"):
        raise ZeroDivisionError


def test_importing_is_cheap():
    code = "import sys; from shared import s3; assert not {'boto3', 'botocore', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
