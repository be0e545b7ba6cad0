"""The policies in deploy/: each is enough for what it is for, and nothing in it can be left out.

The server enforces actions and resources. Conditions it does not know: they are taken out before it sees a policy,
and held here against what was asked.
"""

import json
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared import vocabulary
from shared.artifacts import fetch_uri, open_root
from shared.errors import AccessError, ImageError, StorageError
from shared.media import Media
from tests.conftest import _s3_server, aws
from tests.expiring import Expiring

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "ARTIFACT-BUCKET": "lab-models",
    "ARTIFACT-PREFIX": "plankton",
    "MEDIA-BUCKET": "lab-images",
    "MEDIA-PREFIX": "rois",
}
ARTIFACTS, MEDIA = "s3://lab-models/plankton", "s3://lab-images/rois"


def policy(name: str) -> dict[str, Any]:
    """A policy of deploy/ with the names of our buckets in it."""
    text = (ROOT / "deploy" / f"policy-{name}.json").read_text()
    for placeholder, value in PLACES.items():
        text = text.replace(placeholder, value)
    return json.loads(text)


def without(said: dict[str, Any], sid: str, action: str) -> dict[str, Any]:
    """A policy, less one action of one statement."""
    statements = []
    for statement in said["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        left = [one for one in actions if (statement["Sid"], one) != (sid, action)]
        if left:
            statements.append(statement | {"Action": left})
    return said | {"Statement": statements}


@pytest.fixture(scope="module")
def as_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, Any]], dict[str, str]]]:
    """Gives the secrets of a user who has just this policy, on a server that checks."""
    with _s3_server() as admin:
        s3, iam = aws("s3", admin), aws("iam", admin)
        for bucket in ("lab-models", "lab-images"):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket="lab-images", Key="rois/1.png", Body=b"an image")
        s3.put_object(Bucket="lab-models", Key="plankton/names.txt", Body=b"Calanus\n")
        s3.put_object(Bucket="lab-models", Key="of-others/secret.txt", Body=b"x")
        folder = tmp_path_factory.mktemp("version")
        (folder / "weights.pt").write_bytes(b"w" * 1000)
        open_root(ARTIFACTS, admin).publish(folder, "versions/m/1")
        iam.create_user(UserName="admin")
        everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}], "Version": "2012-10-17"}
        iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(everything))
        key = iam.create_access_key(UserName="admin")["AccessKey"]
        httpx.post(f"{admin['AWS_ENDPOINT_URL']}/moto-api/reset-auth", content=b"0").raise_for_status()
        admin |= {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        iam, made = aws("iam", admin), []

        def secrets_of(said: dict[str, Any]) -> dict[str, str]:
            name = f"user-{len(made)}"
            made.append(name)
            known = [{k: v for k, v in statement.items() if k != "Condition"} for statement in said["Statement"]]
            iam.create_user(UserName=name)
            document = json.dumps(said | {"Statement": known})
            iam.put_user_policy(UserName=name, PolicyName="least", PolicyDocument=document)
            key = iam.create_access_key(UserName=name)["AccessKey"]
            return admin | {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

        yield secrets_of


def read(secrets: dict[str, str], folder: Path) -> None:
    """What applying a model takes: its files, the vocabulary, weights by URI, images; and what is missing is missed."""
    root = open_root(ARTIFACTS, secrets)
    files = root.published("versions/m/1")
    assert files is not None
    root.fetch("versions/m/1", files, folder / "version")
    fetch_uri(f"{ARTIFACTS}/versions/m/1", folder / "whole", secrets)
    assert root.published("versions/m/none") is None
    assert root.list("versions/none") == []
    assert vocabulary.load(f"{ARTIFACTS}/names.txt", secrets).names == ("Calanus",)
    media = Media(secrets, cache_bytes=0)
    assert media.read(f"{MEDIA}/1.png") == b"an image"
    with pytest.raises(ImageError):
        media.read(f"{MEDIA}/none.png")


def write(secrets: dict[str, str], folder: Path) -> None:
    """What training and publishing take beyond that: probe, checkpoint, a version in parts, notes, names."""
    root = open_root(ARTIFACTS, secrets)
    root.check()
    made, key = folder / "made", f"versions/m/{folder.name}"
    made.mkdir()
    (made / "weights.pt").write_bytes(b"w" * (17 << 20))  # in parts
    (made / "model.json").write_text("{}")
    root.put(f"checkpoints/{folder.name}/last.pt", made / "model.json")
    assert root.publish(made, key) == root.published(key)
    root.delete(f"checkpoints/{folder.name}/last.pt")
    (folder / "names.txt").write_text("Calanus\n")
    root.put(f"{folder.name}.txt", folder / "names.txt")
    vocabulary.add(f"{ARTIFACTS}/{folder.name}.txt", "Oithona", secrets)


def test_training_works_with_its_policy_and_stays_in_its_place(as_user, tmp_path) -> None:
    secrets = as_user(policy("train"))
    with Expiring(secrets) as store:
        read(store.secrets, tmp_path)
        write(store.secrets, tmp_path)
        # The condition allows each listing that was asked for; none was of the whole bucket, or of the images.
        allowed = {
            statement["Resource"].rpartition(":")[2]: statement["Condition"]["StringLike"]["s3:prefix"]
            for statement in policy("train")["Statement"]
            if "Condition" in statement
        }
        listed = [asked for asked in store.requests if "list-type" in asked.query]
        assert len(listed) > 3
        for asked in listed:
            patterns = allowed[asked.path.strip("/").partition("/")[0]]
            assert any(fnmatchcase(asked.query["prefix"][0], pattern) for pattern in patterns), asked
    with pytest.raises(AccessError, match="Not allowed to write to"):
        open_root("s3://lab-images/rois", secrets).check()
    with pytest.raises(AccessError, match="Not allowed to read"):
        fetch_uri("s3://lab-models/of-others/secret.txt", tmp_path, secrets)


def test_applying_works_with_its_policy_and_writes_nothing(as_user, tmp_path) -> None:
    secrets = as_user(policy("apply"))
    read(secrets, tmp_path)
    with pytest.raises(AccessError, match="Not allowed to write to"):
        open_root(ARTIFACTS, secrets).check()


@pytest.mark.parametrize(
    ("sid", "action", "work"),
    [
        ("ListArtifacts", "s3:ListBucket", read),
        ("ReadAndWriteArtifacts", "s3:GetObject", read),
        ("ReadAndWriteArtifacts", "s3:PutObject", write),
        ("ReadAndWriteArtifacts", "s3:DeleteObject", write),
        ("ReadAndWriteArtifacts", "s3:AbortMultipartUpload", write),
        ("ReadMedia", "s3:GetObject", read),
    ],
)
def test_no_action_can_be_left_out(as_user, tmp_path, sid, action, work) -> None:
    less = without(policy("train"), sid, action)
    assert less != policy("train")
    with pytest.raises(StorageError, match="Not allowed to"):
        work(as_user(less), tmp_path)


def test_a_missing_object_is_known_to_be_missing_by_those_who_may_list_its_prefix_only(as_user, tmp_path) -> None:
    # S3 tells them of a missing object what it tells of a forbidden one; the server here does not.
    with Expiring(as_user(policy("train")), hides_missing=True) as store:
        root = open_root(ARTIFACTS, store.secrets)
        assert root.published("versions/m/none") is None
        assert root.get("checkpoints/none/state.json", tmp_path / "state.json") is False
        write(store.secrets, tmp_path)
        assert open_root(ARTIFACTS, store.secrets).published("versions/m/1") is not None


def test_the_policies_name_no_bucket_and_differ_in_writing_only() -> None:
    said = {name: json.loads((ROOT / "deploy" / f"policy-{name}.json").read_text()) for name in ("train", "apply")}
    for one in said.values():
        resources = [statement["Resource"].removeprefix("arn:aws:s3:::") for statement in one["Statement"]]
        assert {part for resource in resources for part in resource.split("/")} <= {*PLACES, "*"}
    changed = [a["Sid"] for a, b in zip(said["train"]["Statement"], said["apply"]["Statement"], strict=True) if a != b]
    assert changed == ["ReadAndWriteArtifacts"]
