"""Bytes from wherever media are: local files, S3 over real HTTP."""

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared import media as module
from shared import s3 as suite_s3
from shared.errors import ImageError, StorageError
from shared.media import Media, map_threads, read_workers


def image_error(media: Media, uri: str) -> str:
    with pytest.raises(ImageError) as caught:
        media.read(uri)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


# Local files


def test_a_local_file_is_read(tmp_path):
    for name in ("roi.png", "Pseudo-nitzschia é #1.png", "a:b"):
        (tmp_path / name).write_bytes(name.encode())
        assert Media().read(str(tmp_path / name)) == name.encode()


def test_what_cannot_be_read_locally_is_named(tmp_path):
    media = Media()
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert image_error(media, f"{tmp_path}/none.png") == f"There is no file at {tmp_path}/none.png."
    assert image_error(media, f"{tmp_path}/empty.png/x") == f"There is no file at {tmp_path}/empty.png/x."
    assert image_error(media, f"{tmp_path}/empty.png") == f"The file {tmp_path}/empty.png is empty."
    assert image_error(media, str(tmp_path)) == f"{tmp_path} is not a file."
    assert image_error(media, f"{tmp_path}/pipe.png") == f"{tmp_path}/pipe.png is not a file."
    assert "cannot be read" in image_error(media, f"{tmp_path}/loop.png")
    assert "cannot be read" in image_error(media, "/" + "x" * 5000)
    assert "character that no path can have" in image_error(media, "/a\0b")
    image_error(media, "")


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    locked = tmp_path / "locked.png"
    locked.write_bytes(b"x")
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    assert "Not allowed to read" in image_error(Media(), str(locked))


def test_a_file_too_large_for_any_image_is_not_loaded(tmp_path):
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(module.MAX_BYTES + 1)
    assert "536,870,913 bytes; at most 536,870,912 are read" in image_error(Media(), f"{tmp_path}/disk.img")


def test_other_clouds_are_said_not_to_be_supported_here():
    said = image_error(Media(), "gs://bucket/roi.png")
    assert said.startswith("'gs://bucket/roi.png' cannot be read")
    assert "s3://" in said
    assert image_error(Media(), "https://example.org/roi.png")


def test_reading_imports_neither_fiftyone_nor_boto3_for_local_files(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    root = Path(module.__file__).parent.parent
    check = (
        "import sys; sys.path.insert(0, sys.argv[1]); from shared.media import Media; Media().read(sys.argv[2]); "
        "assert not {'fiftyone', 'boto3', 'cv2', 'PIL', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check, str(root), f"{tmp_path}/a"], check=True, timeout=60)


# S3


@pytest.fixture
def requests(monkeypatch) -> list[str]:
    """The keys that were really asked of the S3 server, in order."""
    asked: list[str] = []
    real = suite_s3.client

    def client(secrets):
        made = real(secrets)
        made.meta.events.register("before-send.s3.GetObject", lambda request, **_: asked.append(request.url))
        return made

    monkeypatch.setattr(suite_s3, "client", client)
    return asked


def test_s3_is_read_once_and_then_from_the_disk(s3, bucket, requests, tmp_path):
    suite_s3.client(s3).put_object(Bucket=bucket, Key="a b/é.png", Body=b"pixels")
    uri = f"s3://{bucket}/a b/é.png"
    media = Media(s3, cache_dir=tmp_path)
    assert [media.read(uri) for _ in range(3)] == [b"pixels"] * 3
    assert Media(s3, cache_dir=tmp_path).read(uri) == b"pixels"  # a later run
    assert len(requests) == 1
    uncached = Media(s3, cache_dir=tmp_path, cache_bytes=0)
    assert [uncached.read(uri) for _ in range(2)] == [b"pixels"] * 2
    assert len(requests) == 3


def test_the_cache_does_not_mix_up_stores_or_credentials(s3, guarded_s3, tmp_path):
    """The same address at two servers, and for somebody else at one of them."""
    suite_s3.client(s3).create_bucket(Bucket="guarded")
    suite_s3.client(s3).put_object(Bucket="guarded", Key="models/a.txt", Body=b"of the other store")
    uri = "s3://guarded/models/a.txt"
    assert Media(guarded_s3, cache_dir=tmp_path).read(uri) == b"readable"
    assert Media(s3, cache_dir=tmp_path).read(uri) == b"of the other store"
    nobody = guarded_s3 | {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "nobody's"}
    with pytest.raises(StorageError, match="does not accept the credentials"):
        Media(nobody, cache_dir=tmp_path).read(uri)


def test_one_missing_object_is_that_image_and_a_missing_bucket_is_the_store(s3, bucket, tmp_path):
    media = Media(s3, cache_dir=tmp_path)
    suite_s3.client(s3).put_object(Bucket=bucket, Key="empty.png", Body=b"")
    assert image_error(media, f"s3://{bucket}/none.png") == f"There is no file at s3://{bucket}/none.png."
    assert image_error(media, f"s3://{bucket}/empty.png") == f"The file s3://{bucket}/empty.png is empty."
    assert "no file" in image_error(media, f"s3://{bucket}/")
    assert "not an S3 address" in image_error(media, "s3://")
    with pytest.raises(StorageError, match="There is no bucket 'nowhere-at-all'"):
        media.read("s3://nowhere-at-all/roi.png")


def test_a_store_that_cannot_be_reached_is_said_so(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        secrets = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "sss",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with pytest.raises(StorageError, match="Cannot reach") as caught:
            Media(secrets, cache_dir=tmp_path).read("s3://bucket/roi.png")
    assert "sss" not in str(caught.value)


class RawStore:
    """A store over real HTTP whose answers the test writes itself, byte for byte."""

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self.asked: list[str] = []
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.secrets = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._socket.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                path = connection.recv(65536).split(b" ")[1].decode()
                self.asked.append(path)
                connection.sendall(self._answer(path))

    def __enter__(self) -> "RawStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(20)


def http(status: str, body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize("broken", [2, 99])
def test_a_body_that_breaks_off_is_asked_for_again(broken, tmp_path):
    pixels = b"pixels" * 1000

    def answer(_: str) -> bytes:
        return http("200 OK", pixels[:3000] if len(store.asked) <= broken else pixels, len(pixels))

    with RawStore(answer) as store:
        media = Media(store.secrets, cache_dir=tmp_path)
        if broken == 2:
            assert media.read("s3://bucket/roi.png") == pixels
        else:
            with pytest.raises(StorageError, match=r"s3://bucket/roi\.png"):
                media.read("s3://bucket/roi.png")
            assert list(tmp_path.iterdir()) == []
        assert len(store.asked) == 3


def test_a_refusal_is_the_stores_until_it_has_given_something(tmp_path):
    """S3 says "denied" of missing keys to those who may not list; then one image is not everyone's problem."""
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

    def answer(path: str) -> bytes:
        return http("200 OK", b"pixels") if path.endswith("/roi.png") else http("403 Forbidden", denied)

    with RawStore(answer) as store:
        media = Media(store.secrets, cache_dir=tmp_path)
        with pytest.raises(StorageError, match=r"Not allowed to read s3://bucket/none\.png"):
            media.read("s3://bucket/none.png")
        assert media.read("s3://bucket/roi.png") == b"pixels"
        assert "or it may not be read" in image_error(media, "s3://bucket/none.png")
        with pytest.raises(StorageError, match=r"Not allowed to read s3://other/none\.png"):
            media.read("s3://other/none.png")


def test_an_object_too_large_for_any_image_is_not_loaded(tmp_path):
    with RawStore(lambda _: http("200 OK", b"", module.MAX_BYTES + 1)) as store:
        assert "at most 536,870,912 are read" in image_error(Media(store.secrets, tmp_path), "s3://bucket/film.mp4")


def test_a_full_or_forbidden_cache_folder_does_not_matter(s3, bucket, tmp_path):
    suite_s3.client(s3).put_object(Bucket=bucket, Key="roi.png", Body=b"pixels")
    (tmp_path / "file").touch()
    media = Media(s3, cache_dir=tmp_path / "file" / "cache")
    assert [media.read(f"s3://{bucket}/roi.png") for _ in range(2)] == [b"pixels"] * 2


def test_the_default_cache_is_the_users_own(s3, bucket, requests, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    suite_s3.client(s3).put_object(Bucket=bucket, Key="roi.png", Body=b"pixels")
    uri = f"s3://{bucket}/roi.png"
    assert [Media(s3).read(uri) for _ in range(2)] == [b"pixels"] * 2
    assert len(requests) == 1
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    # Somebody else could put images there: go without.
    folder.chmod(0o777)
    assert Media(s3).read(uri) == b"pixels"
    assert len(requests) == 2
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert Media(s3).read(uri) == b"pixels"
    assert len(requests) == 3


def test_threads_share_one_reader(s3, bucket, tmp_path):
    client = suite_s3.client(s3)
    for number in range(24):
        client.put_object(Bucket=bucket, Key=f"{number}.png", Body=str(number).encode() * 100)
    media = Media(s3, cache_dir=tmp_path)
    numbers = [number for _ in range(4) for number in range(24)]
    read = map_threads(lambda number: media.read(f"s3://{bucket}/{number}.png"), numbers, workers=12, ahead=24)
    assert list(read) == [str(number).encode() * 100 for number in numbers]


# FiftyOne Enterprise (its media cache: tests/shared/enterprise)


def test_open_source_fiftyone_is_not_taken_for_enterprise(s3, bucket, tmp_path):
    import fiftyone  # noqa: F401  (imported, as in every operator)

    suite_s3.client(s3).put_object(Bucket=bucket, Key="roi.png", Body=b"pixels")
    assert Media(s3, cache_dir=tmp_path).read(f"s3://{bucket}/roi.png") == b"pixels"
    assert len(list(tmp_path.iterdir())) == 1


# Threads


def test_map_threads_keeps_the_order():
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number % 5 == 0 else 0)
        return number * 2

    assert list(map_threads(slow_at_first, range(60), workers=4, ahead=8)) == [2 * number for number in range(60)]
    assert list(map_threads(slow_at_first, [], workers=4, ahead=8)) == []
    assert list(map_threads(slow_at_first, range(3), workers=0, ahead=0)) == [0, 2, 4]


def test_map_threads_looks_ahead_no_further_than_told():
    begun = []
    results = map_threads(lambda number: begun.append(number) or number, itertools.count(), workers=2, ahead=6)
    assert begun == []
    for wanted in range(20):
        assert next(results) == wanted
        assert max(begun) < wanted + 6
    results.close()


def test_map_threads_works_at_the_same_time():
    meeting = threading.Barrier(3)
    assert list(map_threads(lambda _: meeting.wait(30), range(3), workers=3, ahead=3)) != []


def test_map_threads_takes_items_in_the_consumers_thread():
    def items() -> Iterator[int]:
        for _ in range(10):
            yield threading.get_ident()

    assert set(map_threads(lambda ident: ident, items(), workers=3, ahead=4)) == {threading.get_ident()}


def test_map_threads_raises_in_the_place_of_the_item_and_ends():
    def fail_at_five(number: int) -> int:
        if number == 5:
            raise ImageError("five")
        return number

    results = map_threads(fail_at_five, itertools.count(), workers=3, ahead=4)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ImageError, match="five"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mbari-media")]
    with pytest.raises(StopIteration):
        next(results)


def test_map_threads_raises_what_its_items_raise():
    def items() -> Iterator[int]:
        yield 1
        raise StorageError("the cursor is gone")

    with pytest.raises(StorageError, match="cursor"):
        list(map_threads(lambda number: number, items(), workers=2, ahead=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mbari-media")]


def test_map_threads_begins_nothing_more_once_the_consumer_stops():
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        return number

    for _ in map_threads(work, itertools.count(), workers=2, ahead=50):
        break
    # The loop's iterator is closed when nobody holds it any more.
    count = len(begun)
    assert count < 60
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mbari-media")]
    time.sleep(0.05)
    assert len(begun) == count


def test_remote_media_get_more_threads():
    assert read_workers("/data/roi.png") == (os.cpu_count() or 1)
    assert read_workers("s3://bucket/roi.png") >= 16
