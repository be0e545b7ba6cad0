"""Media through FiftyOne Enterprise's cache: a stand-in with its documented signature, since the SDK is not public."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.errors import ImageError, StorageError
from shared.media import Media


class Enterprise:
    """`fiftyone.media_cache` as Enterprise's SDK has it, with a folder as its cloud."""

    def __init__(self, cloud: Path, cached: Path) -> None:
        self.cloud, self.cached, self.downloads = cloud, cached, 0
        self.error: Exception | None = None

    def get_local_path(self, filepath: str, download: bool = True, skip_failures: bool = True) -> str:
        path = self.cached / filepath.replace("://", "/")
        if not path.exists() and download:
            self.downloads += 1
            try:
                if self.error:
                    raise self.error
                data = (self.cloud / filepath.replace("://", "/")).read_bytes()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            except Exception:
                if not skip_failures:
                    raise
        return str(path)


@pytest.fixture
def enterprise(tmp_path, monkeypatch) -> Enterprise:
    cache = Enterprise(tmp_path / "cloud", tmp_path / "cached")
    monkeypatch.setitem(sys.modules, "fiftyone", SimpleNamespace(media_cache=cache))
    (tmp_path / "cloud/s3/bucket").mkdir(parents=True)
    (tmp_path / "cloud/gs/bucket").mkdir(parents=True)
    (tmp_path / "cloud/s3/bucket/roi.png").write_bytes(b"from S3")
    (tmp_path / "cloud/gs/bucket/roi.png").write_bytes(b"from Google")
    (tmp_path / "cloud/s3/bucket/empty.png").touch()
    return cache


def image_error(uri: str) -> str:
    with pytest.raises(ImageError) as caught:
        Media().read(uri)
    return str(caught.value)


def test_enterprise_reads_every_cloud_through_its_own_cache(enterprise, tmp_path):
    media = Media({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, cache_dir=tmp_path / "ours")
    for _ in range(2):
        assert media.read("s3://bucket/roi.png") == b"from S3"
        assert media.read("gs://bucket/roi.png") == b"from Google"
    assert enterprise.downloads == 2
    assert not (tmp_path / "ours").exists()
    (tmp_path / "local.png").write_bytes(b"local")
    assert media.read(f"{tmp_path}/local.png") == b"local"
    assert enterprise.downloads == 2


def test_enterprise_tells_one_missing_file_from_a_store_that_fails(enterprise):
    assert image_error("s3://bucket/none.png") == "There is no file at s3://bucket/none.png."
    assert image_error("s3://bucket/empty.png") == "The file s3://bucket/empty.png is empty."

    class NotFound(Exception):
        """As google.api_core's: the HTTP status in `code`."""

        code = 404

    class Answered(Exception):
        """As requests' and azure.core's: the answer in `response`."""

        response = SimpleNamespace(status_code=404)

    from botocore.exceptions import ClientError

    missing = ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")
    for error in (NotFound("gone"), Answered("gone"), missing):
        enterprise.error = error
        assert image_error("gs://bucket/roi.png") == "There is no file at gs://bucket/roi.png."
    wrapped = RuntimeError("download failed")
    wrapped.__cause__ = missing
    enterprise.error = wrapped
    assert image_error("gs://bucket/roi.png") == "There is no file at gs://bucket/roi.png."

    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "key AKIA no"}}, "GetObject")
    for error in (denied, ConnectionError("token=hush"), ValueError("no credentials")):
        enterprise.error = error
        with pytest.raises(StorageError, match=r"could not fetch gs://bucket/roi\.png") as caught:
            Media().read("gs://bucket/roi.png")
        assert "AKIA" not in str(caught.value)
        assert "hush" not in str(caught.value)
