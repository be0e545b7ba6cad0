"""Verifying a version through FiftyOne: what is said where all is well, where something differs, and before."""

import fiftyone.core.odm as odm
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from tests import published
from tests.stored import publish
from tests.worker import form

URI = "@mbari/lineage_card/verify_version"


@pytest.fixture
def folder(registry, tmp_path, monkeypatch):
    """The folder of the artifact root's parent; FiftyOne's own database holds the registry."""
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path


def run(model: str) -> dict:
    return foo.execute_operator(URI, {"params": {"model": model}}).result


def test_a_version_is_reproduced_until_a_byte_of_it_changes(folder, dataset):
    stored = publish(folder, odm.get_db_conn())
    found = run("m@candidate")
    name = stored.record.name
    count = len(found["reproduced"])
    assert found["message"] == f"{name}: reproduced. All {count} checks found what its record says."
    assert (found["verdict"], found["differs"], found["cannot_be_checked"]) == ("reproduced", [], [])
    assert {"what": "file weights.pt"} in found["reproduced"]
    assert [text for text in form(URI, dataset, model="m") if f"{len(stored.record.files)} files are fetched" in text]

    path = stored.folder / "metrics.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    found = run(name)
    assert found["verdict"] == "differs"
    assert [row["what"] for row in found["differs"]] == ["file metrics.json"]
    assert "is damaged" in found["differs"][0]["how"]
    assert [row["what"] for row in found["cannot_be_checked"]] == ["metrics"]
    assert found["message"].startswith(f"{name} is not what its record says: 1 of {count} checks differ (file metrics")
    run_record = odm.get_db_conn()["mbari_runs"].find_one({"operator": URI}, sort=[("started_at", -1)])
    assert run_record["state"] == "completed"
    assert run_record["result"]["differs"] == found["differs"]


def test_an_older_version_is_reproduced_as_far_as_it_goes(folder, registry):
    record = published.version(registry, folder, rows=[published.row("s", "Calanus", "train", "h")])
    found = run(record.name)
    assert found["verdict"] == "cannot be checked"
    assert "reproduced as far as it can be checked" in found["message"]
    why = {row["what"]: row["why"] for row in found["cannot_be_checked"]}
    assert why["text of the card"] == "it was published without card.md."
    assert {"what": "digest of the manifest"} in found["reproduced"]


def test_what_cannot_be_verified_is_refused_plainly(folder, registry, dataset, monkeypatch):
    record = published.version(registry, folder)
    with pytest.raises(ExecutionError, match="has no version"):
        run("m/20200101T000000_000000").get("x")
    with pytest.raises(ExecutionError, match="no alias"):
        run("m@production").get("x")
    (folder / "artifacts").rename(folder / "elsewhere")
    with pytest.raises(ExecutionError, match="is it mounted"):
        run(record.name).get("x")
    monkeypatch.delenv("MBARI_ARTIFACTS")
    with pytest.raises(ExecutionError, match="There is no artifact root"):
        run(record.name).get("x")
    said = form(URI, dataset, model="nothing of this name")
    assert [text for text in said if "There is no model" in text]
    assert [text for text in said if "MBARI_ARTIFACTS is not set" in text]
