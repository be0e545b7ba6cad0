"""`write_card` through FiftyOne, on a version that was really trained."""

import base64
import json
from pathlib import Path

import fiftyone.operators as foo
import pytest
from huggingface_hub import ModelCard

from tests import published, versions
from tests.worker import form

WRITE = "@mbari/lineage_card/write_card"


@pytest.fixture
def version(dataset, registry, tmp_path, monkeypatch):
    versions.fill(dataset, tmp_path / "rois")
    record = versions.trained(dataset, tmp_path)
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    return record


def execute(dataset, **params):
    """With a dataset open, or None."""
    opened = {"dataset": dataset} if dataset is not None else {}
    return foo.execute_operator(WRITE, {**opened, "params": params})


def run(dataset, **params):
    return execute(dataset, **params).result


def test_a_note_goes_into_the_card_of_a_trained_version(dataset, registry, version, tmp_path):
    assert f"Nobody has written anything about {version.name} yet." in form(
        WRITE, dataset, model="m", _show_what_was_written_before=True
    )
    run(None, model="m", intended_use="Sorting.", limitations="Not at night.")
    done = run(dataset, model=version.name, notes="Looked at by hand:\n* fine *")
    assert done["version"] == version.name
    assert done["message"].startswith(f"Your note was added. The card of {version.name}, with 2 notes, is at ")
    assert [row["intended_use"] for row in done["notes"]] == ["Sorting.", None]
    card = Path(done["card"]).read_text(encoding="utf-8")
    assert "> Sorting." in card
    assert "> Not at night." in card
    assert "\\* fine \\*" in card

    assert "Notes, oldest first" in form(WRITE, dataset, model=version.name, _show_what_was_written_before=True)

    # What it says is what the records say.
    metrics = json.loads((Path(version.uri) / "metrics.json").read_text())
    said = {r.dataset_split + r.metric_type: r.metric_value for r in ModelCard(card).data.eval_results}
    assert said["testaccuracy"] == round(metrics["test"]["top1"], 4)
    assert said["valf1"] == round(metrics["val"]["macro_f1"], 4)
    assert version.manifest_digest in card
    assert version.files["weights.pt"].sha256 in card
    assert "training began with random weights" in card
    pictures = [line.split("](")[1].rstrip(")") for line in card.splitlines() if line.startswith("![")]
    assert len(pictures) >= 5
    assert all((Path(done["card"]).parent / address).is_file() for address in pictures)

    # The first card, published with the version, has no notes and stays.
    assert "Nothing yet." in (Path(version.uri) / "card.md").read_text(encoding="utf-8")
    again = execute(dataset, model="m@candidate")
    assert again.result["message"].startswith("The card of ")
    assert Path(again.result["card"]).read_text(encoding="utf-8") == card

    # The App hands the person the same file.
    [handed] = [r.params for r in again.executor._requests if r.operator_uri.endswith("browser_download")]
    assert handed["filename"] == f"m-{version.version}.md"
    kind, data = handed["url"].split(";base64,")
    assert kind == "data:text/markdown;charset=utf-8"
    assert base64.b64decode(data).decode() == card


def test_an_unknown_model_is_refused_in_the_form_and_by_the_run(dataset, registry, tmp_path):
    known = published.version(registry, tmp_path, rows=None)
    assert any('There is no model "n"' in text for text in form(WRITE, dataset, model="n"))
    with pytest.raises(Exception, match='There is no model "n"'):
        run(dataset, model="n")
    with pytest.raises(Exception, match=f"it has none yet; its versions: {known.version}"):
        run(dataset, model="m")


def test_a_version_without_a_card_is_refused_in_the_form_and_by_the_run(dataset, registry, tmp_path, monkeypatch):
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    record = published.version(registry, tmp_path, rows=None)
    assert any("published without a card" in text for text in form(WRITE, dataset, model=record.name))
    with pytest.raises(Exception, match="published without a card"):
        run(dataset, model=record.name, notes="a")


def test_without_an_artifact_root_it_says_so(dataset, registry, tmp_path, monkeypatch):
    monkeypatch.delenv("MBARI_ARTIFACTS", raising=False)
    record = published.version(registry, tmp_path, rows=None, more={"card.json": b"{}"})
    assert any("MBARI_ARTIFACTS is not set" in text for text in form(WRITE, dataset))
    with pytest.raises(Exception, match="MBARI_ARTIFACTS"):
        run(dataset, model=record.name)
