"""Snapshots: without FiftyOne Enterprise, and with a stand-in for its management SDK."""

from shared.enterprise import snapshots


def test_open_source_fiftyone_says_that_it_has_none():
    assert snapshots.take("rois", "v1", "first") == "this is not FiftyOne Enterprise, which alone has snapshots"


def test_a_snapshot_is_asked_for_by_name_with_its_description(management):
    assert snapshots.take("rois", "v1", "first") is None
    assert management.asked == [("rois", "v1", "first")]


def test_whatever_the_server_answers_fails_nothing(management, caplog):
    management.refuse = RuntimeError("there are 20 snapshots already; " + "x" * 1000)
    said = snapshots.take("rois", "v1", "first")
    assert said.startswith("FiftyOne Enterprise refused it (RuntimeError: there are 20 snapshots already")
    assert len(said) == 500
    assert "No snapshot of rois was taken" in caplog.text


def test_a_management_sdk_without_snapshots_counts_as_none(management, monkeypatch):
    monkeypatch.delattr(type(management), "create_snapshot")
    assert "not FiftyOne Enterprise" in snapshots.take("rois", "v1", "first")
