"""The loop of labels with a Tator server as the database of record, through FiftyOne's executor and worker."""

import csv
from contextlib import ExitStack
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from shared.sync.journal import Journal
from tests.shared.sync.stores.tators import Troubled, element, uri
from tests.worker import delegate, error, form, result, schedule, wait, worker

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
    assert [seen[key] for key in ("would_change", "already", "conflict")] == [4, 1, 1]
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


def test_what_takes_a_sync_back_verifies_nothing(plankton, tator, monkeypatch):
    monkeypatch.setenv("MBARI_LABEL_STORE", uri(tator, more="verified=verified&timeout=5"))
    run("pull_labels", plankton, apply=True)
    plankton.limit(1).tag_samples("Metridia")
    done = result(delegate("@mbari/sync_back/sync_back", plankton))
    tator.data.marks(element(0), 31)[-1].attributes["verified"] = False  # a person has doubts
    result(delegate("@mbari/sync_back/revert_sync", plankton, run=done["run"]))
    assert tator.labels(element(0)) == ["Calanus"]
    assert tator.rows(element(0))[-1].attributes["verified"] is False


def test_a_run_is_not_taken_back_in_another_version_of_the_same_name(plankton, tator, monkeypatch):
    tator.put([(element(n), "Metridia") for n in range(10)], version=32)
    monkeypatch.setenv("MBARI_LABEL_STORE", uri(tator, more="name=lab&timeout=2"))
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("Metridia")
    done = result(delegate("@mbari/sync_back/sync_back", plankton))
    second = uri(tator, "version=Second&type=Boxes", more="name=lab&timeout=2")
    monkeypatch.setenv("MBARI_LABEL_STORE", second)
    said = error(delegate("@mbari/sync_back/revert_sync", plankton, run=done["run"]))
    assert "changed no label in lab/Planktivore lab?version=Second" in said
    assert "it wrote to lab/Planktivore lab?version=Baseline" in said
    assert {label for n in range(10) for label in tator.labels(element(n), 32)} == {"Metridia"}


def test_a_form_says_that_the_token_is_missing(plankton, tator, monkeypatch):
    def warned():
        return [text for text in form("@mbari/sync_back/sync_back", plankton) if "MBARI_LABEL_STORE" in text]

    assert warned() == []
    monkeypatch.delenv("MBARI_LABEL_STORE_TOKEN")
    (said,) = warned()
    assert said.startswith("MBARI_LABEL_STORE_TOKEN is not set here")
    with pytest.raises(Exception, match="The token of the label store is missing"):
        run("preview_sync", plankton)


def test_the_token_is_in_no_record_of_a_run(plankton, tator, registry):
    plankton.limit(1).tag_samples("Metridia")
    with tator.locked_out():
        ended = delegate("@mbari/sync_back/sync_back", plankton)
    said = error(ended)
    assert "does not accept the token" in said
    records = [str(record) for record in registry._versions.database["mbari_runs"].find()]
    assert records
    assert not [text for text in (*records, said) if tator.token() in text]


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        (2, "2 of 5 corrections may have been sent, which the next run finds out; 3 were not sent: The user of"),
        (500, "5 of 5 corrections may have been sent, which the next run finds out: The user of"),
    ],
)
def test_a_member_who_is_put_out_in_mid_run_is_told_what_may_have_been_sent_and_why(
    plankton, tator, monkeypatch, chunk, said
):
    monkeypatch.setenv("MBARI_LABEL_STORE", uri(tator, more=f"timeout=2&chunk={chunk}"))
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("Metridia")
    plankton.skip(2).limit(3).tag_samples("Pseudo-nitzschia")
    with ExitStack() as outside:

        def put_out(request, answer):
            if request.method == "PATCH" and answer.status == 200:
                outside.enter_context(tator.right("syncbot", None))
            return answer

        tator.instead = put_out
        told = error(delegate("@mbari/sync_back/sync_back", plankton)).splitlines()[0]
        assert said in told
        assert told.endswith("can give the permission 'Can Edit'.")
        tator.instead = None
    assert sync(plankton) == {"updated": 3}  # and the two that were there are settled
    assert plankton.match_tags("synced").count() == 5


def test_where_some_were_sent_the_message_says_why_the_others_were_not(plankton, tator):
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("Metridia")
    plankton.skip(2).limit(1).tag_samples("Pseudo-nitzschia")
    tator.forbid("Pseudo-nitzschia")
    done = result(delegate("@mbari/sync_back/sync_back", plankton))
    assert (done["updated"], done["failed"]) == (2, 1)
    assert "2 updated, 1 failed. 1 of 3 corrections was not sent: " in done["message"]
    assert done["message"].rstrip(".").endswith(done["problems"][0]["reason"].rstrip("."))


OUTCOMES = ("updated", "already", "conflict", "missing", "invalid", "failed")


def test_a_worker_pulls_sends_accounts_for_each_and_takes_it_back(plankton, tator, monkeypatch, tmp_path):
    monkeypatch.setenv("MBARI_LABEL_STORE", uri(tator, more="verified=verified&timeout=5"))
    plankton.persistent = True
    with worker(tmp_path / "log"):
        pulled = result(wait(schedule("@mbari/sync_back/pull_labels", plankton, apply=True)))
        assert (pulled["counts"]["compared"], pulled["counts"]["not_in_the_store"]) == (10, 0)
        plankton.reload()
        ids = plankton.values("id")
        apostrophe = NAMES[-1]
        plankton.select(ids[:5]).tag_samples("Metridia")
        plankton.select(ids[5:7]).tag_samples(apostrophe)
        plankton.select(ids[7]).tag_samples("Calanu")
        applied = run("apply_corrections", plankton)
        assert applied["counts"]["applied"] == 7
        tator.edit(element(1), "Oithona")  # somebody else is quicker
        tator.put([(element(2), "Calanus")], mark=1, deleted=True)
        plankton.select(ids[3]).set_values("elemental_id", ["roi-3"])  # no id of Tator's
        seen = run("preview_sync", plankton)
        assert plankton.load_saved_view("sync: conflicts").values("elemental_id") == [element(1)]
        assert plankton.load_saved_view("sync: not in the store").values("id") == ids[2:4]
        assert not tator.count("PATCH")

        done = result(wait(schedule("@mbari/sync_back/sync_back", plankton)))
        counts = {key: done[key] for key in OUTCOMES}
        assert counts == {"updated": 4, "already": 0, "conflict": 1, "missing": 2, "invalid": 1, "failed": 0}
        assert sum(counts.values()) == done["corrections"] == 8
        assert seen["counts"]["would_change"] == counts["updated"]
        assert all(seen["counts"][key] == counts[key] for key in ("already", "conflict", "missing", "invalid"))
        assert seen["nearly_names"] == done["nearly_names"] == [{"tag": "Calanu", "nearest_names": "Calanus"}]
        sent = {0: "Metridia", 4: "Metridia", 5: apostrophe, 6: apostrophe}
        assert [tator.labels(element(n)) for n in range(8)] == [
            [] if n == 2 else [sent.get(n, "Oithona" if n == 1 else "Calanus")] for n in range(8)
        ]
        verified = [n for n in range(10) if tator.rows(element(n))[-1].attributes.get("verified")]
        assert verified == sorted(sent)
        plankton.reload()
        assert plankton.match_tags("synced").values("elemental_id") == [element(n) for n in sent]
        assert (
            "the store holds 'Oithona', not 'Calanus'"
            in plankton.load_saved_view("sync: conflicts").first()["ground_truth_sync"]
        )

        writes = tator.count("PATCH")
        again = result(delegate("@mbari/sync_back/sync_back", plankton))
        assert {key: again[key] for key in OUTCOMES} == {**counts, "updated": 0}
        assert tator.count("PATCH") == writes

        back = result(wait(schedule("@mbari/sync_back/revert_sync", plankton, run=done["run"])))
    assert back["counts"] == {"reverted": 4, "left": 0}
    assert [tator.labels(element(n)) for n in sent] == [["Calanus"]] * 4
    assert tator.labels(element(1)) == ["Oithona"]
    plankton.reload()
    assert [label for n, label in enumerate(plankton.values("ground_truth.label")) if n in sent] == ["Calanus"] * 4
    assert not plankton.match_tags("synced").match_tags("needs-sync").count()


def test_who_may_only_read_compares_where_nothing_is_labelled_yet(plankton, tator, monkeypatch):
    monkeypatch.setenv("MBARI_LABEL_STORE_TOKEN", tator.token("viewer"))
    for n in range(9):
        tator.edit(element(n), None)
    pulled = run("pull_labels", plankton)
    assert (pulled["counts"]["compared"], pulled["counts"]["differ"]) == (10, 9)
    assert tator.count("PATCH") == 0


def test_localizations_without_an_roi_are_counted_in_one_request(plankton, tator):
    tator.put([(element(n), "Calanus") for n in range(20, 23)])
    tator.put([(element(n), "Calanus") for n in range(20, 30)], version=32)  # another version's
    tator.put([(element(20), "Calanus")], mark=1)  # an edit that keeps the old row
    pulled = run("pull_labels", plankton, apply=True)
    assert pulled["counts"]["only_in_store"] == 3
    assert tator.count("GET", "LocalizationCount") == 1
    assert "3 records of the store have no ROI here" in pulled["message"]


def test_where_old_rows_are_kept_the_journal_has_the_new_ids(plankton, tator, registry, monkeypatch, tmp_path):
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path))
    monkeypatch.setenv("MBARI_LABEL_STORE", uri(tator, more="in_place=0&timeout=2"))
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("Metridia")
    plankton.skip(2).limit(1).tag_samples(NAMES[-1])
    done = result(delegate("@mbari/sync_back/sync_back", plankton))
    assert done["updated"] == 3
    (chunk,) = Journal(registry._versions.database).of_run(done["run"])
    noted = {row.source: outcome.row for row, outcome in zip(chunk.rows, chunk.outcomes, strict=True)}
    marks = {element(n): tator.rows(element(n)) for n in range(3)}
    assert {source: len(rows) for source, rows in marks.items()} == dict.fromkeys(marks, 2)
    assert noted == {source: rows[-1].id for source, rows in marks.items()}
    with Path(run("export_history", plankton, what="sent")["csv"]).open(newline="", encoding="utf-8") as file:
        assert {row["source_id"]: int(row["row"]) for row in csv.DictReader(file)} == noted
    assert [rows[0].attributes["Label"] for rows in marks.values()] == ["Calanus"] * 3
    plankton.reload()
    assert result(delegate("@mbari/sync_back/sync_back", plankton))["corrections"] == 0
    reverted = result(delegate("@mbari/sync_back/revert_sync", plankton, run=done["run"]))
    assert reverted["counts"] == {"reverted": 3, "left": 0}
    assert [tator.labels(source) for source in marks] == [["Calanus"]] * 3


def test_a_media_s_label_goes_the_same_way(dataset, tator, monkeypatch):
    monkeypatch.setenv("MBARI_LABEL_STORE", uri(tator, "media_type=Images&attribute=Label"))
    dataset.classes["ground_truth"] = NAMES
    dataset.save()
    labels = ["Calanus", "Calanus", "Metridia"]
    tator.put_media([(element(n), label) for n, label in enumerate(labels)])
    dataset.add_samples(
        [
            fo.Sample(filepath=f"/frames/{n}.png", ground_truth=fo.Classification(label=label), elemental_id=element(n))
            for n, label in enumerate(labels)
        ],
        progress=False,
    )
    assert run("pull_labels", dataset, apply=True)["counts"]["compared"] == 3
    dataset.limit(1).tag_samples("Metridia")
    dataset.skip(1).limit(1).tag_samples(NAMES[-1])
    preview = run("preview_sync", dataset)["counts"]
    assert (preview["would_change"], preview["invalid"]) == (1, 1)
    assert sync(dataset) == {"updated": 1, "invalid": 1}
    assert [tator.media_labels(element(n)) for n in range(3)] == [["Metridia"], ["Calanus"], ["Metridia"]]
