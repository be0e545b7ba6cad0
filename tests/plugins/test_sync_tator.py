"""The loop of labels with a Tator server as the database of record, through FiftyOne's executor and worker."""

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from tests.shared.sync.stores.tators import Troubled, element, uri
from tests.worker import delegate, error, result

NAMES = ["Calanus", "Metridia", "Pseudo-nitzschia", "cafe\u0301, 'x' 100%\t"]


@pytest.fixture
def tator(monkeypatch, registry):
    """A stand-in server that the secrets name; runs and journal are gone afterwards."""
    with Troubled() as server:
        server.project()
        monkeypatch.setenv("MBARI_LABEL_STORE", uri(server))
        monkeypatch.setenv("MBARI_LABEL_STORE_TOKEN", server.token())
        monkeypatch.delenv("MBARI_VOCABULARY", raising=False)
        yield server
    for name in ("mbari_journal", "mbari_leases"):
        registry._versions.database[name].drop()


@pytest.fixture
def plankton(dataset, tator):
    """Ten samples, which the server knows as Calanus; the last has no label there."""
    dataset.classes["ground_truth"] = NAMES
    dataset.save()
    labels = ["Calanus"] * 9 + [None]
    dataset.add_samples(
        [
            fo.Sample(
                filepath=f"/rois/{dataset.name}-{n}.png",
                ground_truth=fo.Classification(label=label) if label else None,
                elemental_id=element(n).upper() if n == 8 else element(n),  # as some other tool wrote it
            )
            for n, label in enumerate(labels)
        ],
        progress=False,
    )
    tator.put([(element(n), label) for n, label in enumerate(labels)])
    return dataset


def run(name, dataset, **params):
    executed = foo.execute_operator(f"@mbari/sync_back/{name}", {"dataset": dataset, "params": params})
    dataset.reload()
    return executed.result


def sync(dataset):
    done = result(delegate("@mbari/sync_back/sync_back", dataset))
    dataset.reload()
    return {key: done[key] for key in ("updated", "already", "conflict", "missing", "invalid", "failed") if done[key]}


def test_corrections_go_to_tator_and_its_edits_come_back(plankton, tator):
    pulled = run("pull_labels", plankton, apply=True)
    assert (pulled["counts"]["compared"], pulled["counts"]["differ"]) == (10, 0)
    ids = plankton.values("id")
    for name, some in (("Metridia", ids[:4]), (NAMES[-1], [ids[8]]), ("Pseudo-nitzschia", [ids[9]])):
        plankton.select(some).tag_samples(name)
    tator.edit(element(1), "Metridia", mark=True)  # a person agrees
    tator.edit(element(2), "Oithona", mark=True)  # and does not
    seen = run("preview_sync", plankton)["counts"]
    assert {key: seen[key] for key in ("updated", "already", "conflict")} == {"updated": 4, "already": 1, "conflict": 1}
    assert tator.count("PATCH") == 0
    assert sync(plankton) == {"updated": 4, "already": 1, "conflict": 1}
    held = [tator.labels(element(n)) for n in range(10)]
    expected = ["Metridia", "Metridia", "Oithona", "Metridia", *["Calanus"] * 4, NAMES[-1], "Pseudo-nitzschia"]
    assert held == [[label] for label in expected]
    assert plankton.values("ground_truth.label")[3] == "Metridia"
    assert plankton.match_tags("synced").count() == 5
    back = run("pull_labels", plankton)
    assert back["differences"] == [
        {"difference": row["difference"], "in_fiftyone": "Calanus", "in_store": "Oithona", "labels": 1}
        for row in back["differences"]
    ]
    assert len(back["differences"]) == 1


def test_a_sync_is_reverted_and_a_lost_answer_is_no_conflict(plankton, tator):
    run("pull_labels", plankton, apply=True)
    plankton.limit(4).tag_samples("Metridia")
    tator.losing = True
    done = result(delegate("@mbari/sync_back/sync_back", plankton))
    assert (done["updated"], tator.losing) == (4, False)
    assert [tator.times(element(n)) for n in range(5)] == [1, 1, 1, 1, 0]
    tator.edit(element(0), "Oithona")
    plankton.reload()
    reverted = result(delegate("@mbari/sync_back/revert_sync", plankton, run=done["run"]))
    assert [tator.labels(element(n)) for n in range(4)] == [["Oithona"], *[["Calanus"]] * 3]
    assert reverted["counts"] == {"reverted": 3, "left": 1}


def test_the_token_is_in_no_record_of_a_run(plankton, tator, registry):
    plankton.limit(1).tag_samples("Metridia")
    with tator.locked_out():
        ended = delegate("@mbari/sync_back/sync_back", plankton)
    said = error(ended)
    assert "does not accept the token" in said
    records = [str(record) for record in registry._versions.database["mbari_runs"].find()]
    assert records
    assert not [text for text in (*records, said) if tator.token() in text]
