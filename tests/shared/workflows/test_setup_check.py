"""What the set-up check says: it tries each thing itself."""

import contextlib
import importlib.metadata
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.workflows import setup_check
from tests import labels, rois
from tests.shared.sync.stores.tators import PLACE, Troubled, element, uri


def row(item: str, db: Any, secrets: dict[str, str], **installed: Any) -> tuple[str, str]:
    """State and detail of a row; none of them shows a secret."""
    rows = setup_check.run(secrets, db, **installed)
    for name in ("MBARI_LABEL_STORE_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert secrets.get(name, "hunter2") not in json.dumps(rows)
    return next((row["state"], row["detail"]) for row in rows if row["item"] == item)


def look(db: Any, **secrets: str) -> tuple[str, str]:
    """State and detail of the row on the label store."""
    return row("label store", db, secrets)


@pytest.fixture(autouse=True)
def _hub_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model hub is far away, or cannot be reached at all: either takes its time."""
    monkeypatch.setattr(setup_check, "REACH_SECONDS", 0.01)


def test_a_store_is_read_and_its_records_are_counted(db) -> None:
    assert look(db)[0] == "not set"
    uri = labels.store_uri(db.name)
    state, detail = look(db, MBARI_LABEL_STORE=uri)
    assert state == "failed"
    assert "no collection 'rois'" in detail
    db["rois"].insert_many([{"elemental_id": f"e{n}", "label": "Calanus"} for n in range(3)])
    state, detail = look(db, MBARI_LABEL_STORE=uri)
    assert state == "ok"
    assert "about 3 records; of the first 3, 3 have an id and 3 a label; no index on 'elemental_id'" in detail
    state, detail = look(db, MBARI_LABEL_STORE=f"{uri}&id_type=string".replace("id=elemental_id", "id=element"))
    assert state == "failed"
    assert "correct the key `id` of MBARI_LABEL_STORE" in detail


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("tator+https://tator.example/1?version=hunter2", "lacks the key `type`"),
        ("tator+https://ana:hunter2@tator.example/1?version=a&type=b", "names no host, or one that cannot be"),
        ("postgres://ana:hunter2@host/db", "it begins with one of: mongodb://"),
        ("mongodb://ana:hunter2@host/db", "names no collection"),
        (
            "mongodb://ana:hunter2@127.0.0.1:1/db?collection=rois&socketTimeoutMS=500",
            "The label store mongodb://127.0.0.1:1/db.rois gave no answer",
        ),
    ],
)
def test_a_store_that_cannot_be_used_is_said_without_its_password(db, uri: str, says: str) -> None:
    state, detail = look(db, MBARI_LABEL_STORE=uri)
    assert state == "failed"
    assert says in detail


@pytest.fixture
def tator() -> Iterator[Troubled]:
    """A stand-in Tator server with three labels, one of them empty."""
    with Troubled() as server:
        server.project()
        server.put([(element(0), "Calanus"), (element(1), "Metridia"), (element(2), None)])
        yield server


def test_tator_is_shown_with_all_that_its_address_names_and_nothing_is_written(db, tator: Troubled) -> None:
    state, detail = look(db, MBARI_LABEL_STORE=uri(tator), MBARI_LABEL_STORE_TOKEN=tator.token())
    assert state == "ok"
    for said in (
        "project 'Planktivore lab' (7), version 'Baseline' (31), type 'Boxes' (21)",
        "attribute 'Label' of 'Label', 'score', 'cluster', 'verified'",
        "3 localizations; of the first 3, 2 have a label",
        "the token may write (permission 'Can Edit')",
    ):
        assert said in detail
    assert "in_place" not in detail
    chosen = uri(tator, more="timeout=2&in_place=0&verified=verified&chunk=50&pause=0.5")
    _, detail = look(db, MBARI_LABEL_STORE=chosen, MBARI_LABEL_STORE_TOKEN=tator.token())
    assert "; verified='verified', in_place=0, chunk=50, pause=0.5; 3 localizations" in detail
    assert not [asked for asked in tator.requests if not asked.startswith(("GET ", "PUT "))]


@pytest.mark.parametrize(
    ("project", "query", "says"),
    [
        ("Planktivor", PLACE, "has no project 'Planktivor'; there is 'Planktivore lab', did you mean"),
        (
            "7",
            PLACE.replace("Baseline", "Basline"),
            "has no version 'Basline'; there are 'Baseline', 'Second', did you",
        ),
        ("7", PLACE.replace("Boxes", "Dots"), "has no type 'Dots'; there is 'Boxes'"),
        ("7", PLACE.replace("Label", "Lable"), "has no attribute 'Lable' (`attribute`); there are 'Label', 'score'"),
        ("7", f"{PLACE}&verified=Verified", "has no attribute 'Verified' (`verified`); there are 'Label', 'score'"),
        ("7", "media_type=Image", "has no media_type 'Image'; there is 'Images'"),
    ],
)
def test_a_wrong_name_is_said_with_those_there_are(db, tator: Troubled, project: str, query: str, says: str) -> None:
    secrets = {"MBARI_LABEL_STORE": uri(tator, query, project=project), "MBARI_LABEL_STORE_TOKEN": tator.token()}
    state, detail = look(db, **secrets)
    assert state == "failed"
    assert says in detail


@pytest.mark.parametrize("fine_grain", [False, True], ids=["by project", "by row"])
def test_a_token_that_may_only_read_or_is_none_is_found_out_without_a_write(
    db, tator: Troubled, fine_grain: bool
) -> None:
    tator.api.fine_grain = fine_grain
    state, detail = look(db, MBARI_LABEL_STORE=uri(tator), MBARI_LABEL_STORE_TOKEN=tator.token("viewer"))
    assert state == "failed"
    assert "may not write to" in detail
    assert "'Can Edit'" in detail
    state, detail = look(db, MBARI_LABEL_STORE=uri(tator), MBARI_LABEL_STORE_TOKEN="no-such-token")
    assert state == "failed"
    assert "does not accept the token of MBARI_LABEL_STORE_TOKEN" in detail
    assert look(db, MBARI_LABEL_STORE=uri(tator))[1].startswith("The token of the label store is missing")
    assert not [asked for asked in tator.requests if not asked.startswith(("GET ", "PUT "))]


# --- the machine and what is installed ---


def plugin(folder: Path, asks: str = "", name: str = "apply_model", version: str = "1.0.0") -> setup_check.Plugin:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "requirements.txt").write_text(f"# what it needs\n{asks}\n")
    return setup_check.Plugin(f"@mbari/{name}", version, folder / name)


def test_what_is_installed_is_held_against_what_the_plugins_ask_for(db, tmp_path) -> None:
    numpy = importlib.metadata.version("numpy")
    met = plugin(tmp_path, "numpy>=1.0")
    assert row("versions", db, {}, plugins=[met])[0] == "ok"
    wrong = plugin(tmp_path / "b", "numpy>=99\nno-such-package>=1", "sync_back")
    state, detail = row("versions", db, {}, plugins=[met, wrong])
    assert state == "failed"
    assert f"no-such-package>=1 is missing; numpy is {numpy} and should be >=99: renew the image" in detail


def test_two_copies_of_cv2_are_found(db, monkeypatch) -> None:
    both = {"cv2": ["opencv-python-headless", "opencv-python"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: both)
    state, detail = row("versions", db, {})
    assert state == "failed"
    assert detail.startswith("opencv-python and opencv-python-headless bring one and the same cv2")


def test_plugins_of_different_releases_are_named(db, tmp_path) -> None:
    one, same = plugin(tmp_path), plugin(tmp_path, name="sync_back")
    assert row("plugins", db, {}, plugins=[one, same]) == ("ok", "apply_model, sync_back")
    other = plugin(tmp_path, name="sync_back", version="0.9.0")
    state, detail = row("plugins", db, {}, plugins=[one, other])
    assert state == "failed"
    assert "apply_model 1.0.0, sync_back 0.9.0; upload the zips of one release" in detail


def test_a_gpu_that_should_be_there_is_missed(db, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "void")
    assert row("GPU", db, {})[0] == "ok"
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    state, detail = row("GPU", db, {})
    assert state == "failed"
    assert "look at the driver (nvidia-smi)" in detail
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA: change the image" in row("GPU", db, {})[1]


def test_whether_a_worker_has_been_seen(db) -> None:
    runs, now = db[setup_check.DELEGATED], datetime.now(UTC)
    assert row("scheduled runs", db, {}) == ("ok", "no worker has ended a run yet; none is waiting")
    runs.insert_one({"run_state": "completed", "completed_at": now - timedelta(hours=3)})
    assert row("scheduled runs", db, {}) == ("ok", "the last run ended 3 hours ago; none is waiting")
    runs.insert_one({"run_state": "queued", "completed_at": None, "queued_at": now - timedelta(minutes=40)})
    state, detail = row("scheduled runs", db, {})
    assert state == "failed"
    assert "one waits since 40 minutes ago and none runs: see that a worker (orchestrator) is up" in detail
    runs.insert_one({"run_state": "running", "completed_at": None})
    assert row("scheduled runs", db, {})[0] == "ok"


# --- S3, media ---


def test_whose_credentials_are_used_and_until_when(db, s3, bucket, monkeypatch, tmp_path) -> None:
    root = {"MBARI_ARTIFACTS": f"s3://{bucket}/models"}
    assert row("S3 credentials", db, {}) == ("not set", "nothing here is on S3")
    assert row("S3 credentials", db, s3 | root) == ("ok", "from the secrets, without an end")
    session = s3 | root | {"AWS_SESSION_TOKEN": "token/that-is-secret"}
    assert row("S3 credentials", db, session)[1].endswith("temporary (AWS_SESSION_TOKEN), and nothing renews them")
    # As `aws configure export-credentials --format env` gives them.
    monkeypatch.setenv("AWS_SESSION_TOKEN", session["AWS_SESSION_TOKEN"])
    for hours, state, said in ((2, "ok", "UTC, in 2.0 hours"), (-1, "failed", "UTC: set new AWS secrets")):
        monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", (datetime.now(UTC) + timedelta(hours=hours)).isoformat())
        found = row("S3 credentials", db, session)
        assert found[0] == state
        assert found[1].endswith(said)


def test_an_artifact_root_that_lets_itself_be_read_only(db, guarded_s3) -> None:
    state, detail = row("artifact root", db, guarded_s3 | {"MBARI_ARTIFACTS": "s3://guarded/models"})
    assert state == "read only"
    assert "does for applying models, not for training" in detail
    # Where nothing is, nothing shows that it could be read.
    state, detail = row("artifact root", db, guarded_s3 | {"MBARI_ARTIFACTS": "s3://guarded/empty"})
    assert state == "failed"
    assert "Not allowed to write to s3://guarded/empty/" in detail
    nobody = guarded_s3 | {"AWS_SECRET_ACCESS_KEY": "hunter2", "MBARI_ARTIFACTS": "s3://guarded/models"}
    assert row("artifact root", db, nobody)[0] == "failed"


def test_a_folder_that_is_not_there_is_missed_and_not_made(db, tmp_path) -> None:
    there, typo = tmp_path / "artifacts", tmp_path / "artefacts" / "models"
    there.mkdir()
    state, detail = row("artifact root", db, {"MBARI_ARTIFACTS": str(typo)})
    assert state == "failed"
    assert f"there is no folder {typo} on this machine" in detail
    assert row("artifact root", db, {"MBARI_ARTIFACTS": str(there)})[0] == "ok"
    assert list(tmp_path.rglob("*")) == [there]
    assert "give the full path of a folder" in row("artifact root", db, {"MBARI_ARTIFACTS": "models"})[1]


def test_some_media_are_read(db, dataset, tmp_path) -> None:
    assert row("media", db, {})[0] == "not set"
    rois.fill(dataset, tmp_path, {"Calanus": 2})
    there = dataset.values("filepath")
    assert row("media", db, {}, media=there) == ("ok", f"2 images of this dataset read, such as {there[0]}")
    state, detail = row("media", db, {}, media=[*there, str(tmp_path / "gone.png")])
    assert state == "failed"
    assert "1 of 3 images of this dataset cannot be read here: There is no file at" in detail
    fewer = [str(tmp_path / "s3:" / "lab" / "1.png")]  # what FiftyOne makes of an address in fo.Sample
    assert "set them anew with dataset.set_values" in row("media", db, {}, media=fewer)[1]


# --- what is only set ---


@pytest.mark.parametrize(
    ("secret", "value", "says"),
    [
        ("MBARI_WEBHOOK_URL", "http://host:abc/hunter2", "is not an http(s) URL"),
        ("MBARI_WEBHOOK_URL", "hooks.example/hunter2", "is not an http(s) URL"),
        ("MBARI_PRICE_PER_HOUR", "nan", "is no price"),
        ("MBARI_PRICE_PER_HOUR", "-3", "is no price"),
        ("MBARI_TRUSTED_WEIGHTS", "s3://lab/,weights", "'weights' in MBARI_TRUSTED_WEIGHTS is neither s3://"),
    ],
)
def test_a_value_that_cannot_be_used_is_said(db, secret: str, value: str, says: str) -> None:
    item = {"MBARI_WEBHOOK_URL": "webhook", "MBARI_PRICE_PER_HOUR": "price per hour"}.get(secret, "trusted weights")
    state, detail = row(item, db, {secret: value})
    assert state == "failed"
    assert says in detail
    assert "hunter2" not in detail


def test_values_that_can_be_used(db) -> None:
    assert row("price per hour", db, {"MBARI_PRICE_PER_HOUR": "1.2"}) == ("ok", "1.20 per hour of a worker")
    places = "s3://lab/weights/, hf://mbari, /opt/weights"
    assert row("trusted weights", db, {"MBARI_TRUSTED_WEIGHTS": places}) == ("ok", places)


def test_both_hubs_are_tried(db, monkeypatch) -> None:
    asked = []

    def reach(address, timeout):
        asked.append(address)
        if address[0] == "github.com":
            raise OSError("no way")
        return contextlib.nullcontext()

    monkeypatch.setattr(setup_check.socket, "create_connection", reach)
    state, detail = row("model hub", db, {})
    assert state == "not reached"
    assert detail.startswith("github.com (Ultralytics' networks such as yolov8n-cls.pt) cannot be reached")
    assert asked == [("huggingface.co", 443), ("github.com", 443)]
