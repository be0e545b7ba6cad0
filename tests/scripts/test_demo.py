"""The demo's own parts: what it draws, what it reads of real folders, what it says of errors."""

import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.worker import delegate, result

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))  # where a script's own folder is when it runs

import demo  # noqa: E402
import demo_images  # noqa: E402
import demo_labels  # noqa: E402
import operate  # noqa: E402


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[demo_images.Roi]]:
    folder = tmp_path_factory.mktemp("drawn")
    return folder, demo_images.generate(folder, 400)


def test_the_same_seed_draws_the_same_bytes(drawn, tmp_path: Path) -> None:
    folder, rois = drawn
    assert demo_images.generate(tmp_path, 400) == rois
    assert all((tmp_path / roi.file).read_bytes() == (folder / roi.file).read_bytes() for roi in rois)
    other = demo_images.generate(tmp_path / "other", 20, seed=7)
    assert [roi.elemental_id for roi in other] != [roi.elemental_id for roi in rois[:20]]


def test_what_is_drawn_is_as_awkward_as_real_data(drawn) -> None:
    _, rois = drawn
    assert len(rois) == len({roi.file for roi in rois}) == 400
    counts = Counter(roi.true_label for roi in rois)
    assert len(counts) == len(demo_images.SHAPES) >= 6
    assert max(counts.values()) > 8 * counts["Tomopteris"] > 0, "one class is rare"
    wrong = [roi for roi in rois if roi.label != roi.true_label]
    assert 0.005 < len(wrong) / len(rois) < 0.08
    known = [roi.elemental_id for roi in rois if roi.elemental_id]
    assert len(known) == len(set(known)) < len(rois)
    assert {roi.season for roi in rois} == {"spring", "summer", "autumn"}
    assert len({roi.capture_day for roi in rois}) > 20
    assert all(roi.capture_day == roi.captured_at[:10] and roi.depth_m > 0 for roi in rois)


def test_the_images_are_small_grainy_dark_and_of_any_shape(drawn) -> None:
    folder, rois = drawn
    images = [cv2.imread(str(folder / roi.file)) for roi in rois]
    sides = np.array([image.shape[:2] for image in images])
    assert sides.min() >= 12
    assert 60 < np.median(sides) < 250
    aspect = sides.max(axis=1) / sides.min(axis=1)
    assert aspect.max() > 4
    assert np.median(aspect) < 2
    corners = np.array([np.median([i[0, 0], i[0, -1], i[-1, 0], i[-1, -1]]) for i in images])
    assert np.median(corners) < 30, "the ground is dark"
    assert np.median([image.max() for image in images]) > 120
    assert np.median([image[:3].std() for image in images]) > 1, "and grainy"


def test_frames_of_one_animal_resemble_each_other_but_differ(drawn) -> None:
    first, second = (demo_images.draw("Calanoida", 12345, frame) for frame in (0, 1))
    assert first.shape != second.shape or not np.array_equal(first, second)
    assert 0.5 < first.size / second.size < 2


def test_real_folders_give_labels_ids_and_the_day_of_capture(tmp_path: Path) -> None:
    for name in ("Snow/SPC-PWSSC-1470000000-000001-2-3-4-5-6.png", "Larvacea/somewhere else.JPG", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Snow" / "notes.txt").touch()
    larva, snow = demo.read_class_folders(tmp_path)
    assert (larva["label"], snow["label"]) == ("Larvacea", "Snow")
    assert snow["captured_at"] == datetime.fromtimestamp(1470000000, UTC)
    assert snow["capture_day"] == "2016-07-31"
    assert "capture_day" not in larva
    assert larva["elemental_id"] != snow["elemental_id"]
    assert demo.read_class_folders(tmp_path)[1] == snow


def test_every_real_image_has_its_day_of_capture(pwssc: Path) -> None:
    rows = demo.read_class_folders(pwssc)
    assert len(rows) == 1144
    assert all("capture_day" in row for row in rows)
    assert 100 < len({row["capture_day"] for row in rows}) <= 195


def test_a_folder_without_classes_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(operate.DemoError, match="there is no folder"):
        demo.read_class_folders(tmp_path / "missing")
    with pytest.raises(operate.DemoError, match="no images in class folders"):
        demo.read_class_folders(tmp_path)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (None, "it failed and left no message"),
        (
            "mbari.InputError: No labels.\n\nThe above\nTraceback (most recent\nmbari.InputError: No labels.",
            "No labels.",
        ),
        ("Traceback (most recent call last):\n  File\nKeyError: 'x'\n", "KeyError: 'x'"),
    ],
)
def test_the_sentence_of_an_error(error: str | None, sentence: str) -> None:
    assert operate.sentence(error) == sentence


# --- labels ---


def test_a_dozen_real_labels_are_made_wrong_on_purpose() -> None:
    rows = [{"label": name} for name in ("Snow", "Larvacea", "Nauplius") for _ in range(20)]
    assert demo_labels.mislabel(rows) == 12
    wrong = [row for row in rows if row["label"] != row["true_label"]]
    assert len(wrong) == 12
    assert [row["true_label"] for row in rows] == ["Snow"] * 20 + ["Larvacea"] * 20 + ["Nauplius"] * 20
    again = [{"label": row["true_label"]} for row in rows]
    demo_labels.mislabel(again)
    assert again == rows
    assert demo_labels.mislabel([{"label": "Snow"}] * 3) == 0, "there is nothing else to call it"


@pytest.fixture
def theirs(db, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A label store that is set already, with one of the demo's own ids in it: a real one, for all the demo knows."""
    place = demo.surroundings.own_label_store().replace("mbari-demo-labels", db.name)
    monkeypatch.setenv("MBARI_LABEL_STORE", place)
    monkeypatch.setenv("MBARI_LABEL_STORE_TOKEN", "hunter2")
    monkeypatch.setenv("MBARI_VOCABULARY", "/nowhere/names.txt")
    return db[demo.surroundings.ROIS]


def test_wrong_labels_are_corrected_and_land_in_the_demo_s_own_store(
    drawn, theirs, registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, rois = drawn
    rows = [dict(vars(roi), filepath=str(folder / roi.file), elemental_id=roi.elemental_id or None) for roi in rois]
    for row in rows:
        del row["file"]
    theirs.insert_many([{"elemental_id": row["elemental_id"], "label": row["label"]} for row in rows])
    before = list(theirs.find().sort("_id"))
    monkeypatch.setattr(demo.surroundings, "LABELS", f"{theirs.database.name}-demo")

    demo.use_own_labels()
    said = capsys.readouterr().out
    assert "leaves MBARI_LABEL_STORE, MBARI_LABEL_STORE_TOKEN, MBARI_VOCABULARY alone" in said
    assert "hunter2" not in said
    dataset = demo.build_dataset(rows)

    def scheduled(operator: str, params: dict[str, Any]) -> dict[str, Any]:
        done = result(delegate(f"@mbari/{operator}", dataset, **params))
        dataset.reload()
        return dict(done)

    try:
        assert demo_labels.fill(dataset) == len([row for row in rows if row["elemental_id"]])
        pulled = scheduled("sync_back/pull_labels", {"apply": True})
        labels: dict[str, Any] = demo_labels.correct(dataset, operate.at_once)
        unseen = demo_labels.wrong_in(dataset)  # a third of them, which is for the review
        demo_labels.correct_labels(dataset, unseen, operate.at_once)
        applied = operate.at_once(dataset, "sync_back/apply_corrections", {})["counts"]
        labels |= {"found": len(unseen)} | demo_labels.send(dataset, operate.at_once, scheduled)
        wrong = [row for row in rows if row["label"] != row["true_label"]]
        known = [row for row in wrong if row["elemental_id"]]
        assert dataset.values("ground_truth.label") == [row["true_label"] for row in rows]
        assert pulled["counts"]["compared"] == labels["compared"]["records"]
        assert (labels["applied"], applied["applied"]) == (len(wrong) - len(unseen), len(unseen))
        assert len(dataset.exists("elemental_id").match_tags(["needs-sync", "synced"])) == len(known)
        assert labels["wrong"] == len(wrong)
        assert labels["tagged"] >= labels["chosen"] >= len(unseen) >= labels["tagged"] - 1
        sync, preview = labels["sync"], labels["preview"]
        assert (sync["corrections"], sync["updated"], sync["conflict"]) == (len(known), len(known) - 1, 1)
        assert sync["updated"] == preview["would_change"]
        assert {name: preview[name] for name in preview if name in sync} == {
            name: sync[name] for name in ("already", "conflict", "missing", "invalid", "corrections")
        }
        (left,) = labels["compared"]["differ"]
        assert left["elemental_id"] == labels["edited_outside"]
        held = {record["elemental_id"]: record for record in demo_labels.store().find()}
        assert held[left["elemental_id"]]["modified_by"] == demo_labels.OUTSIDER
        for row in known:
            if row["elemental_id"] != left["elemental_id"]:
                assert held[row["elemental_id"]]["label"] == row["true_label"]
                assert [entry["to"] for entry in held[row["elemental_id"]]["history"]] == [row["true_label"]]
        table = demo_labels.summary(labels)
        assert f"agree on {len(held) - 1} of {len(held)}" in table
        figures = [int(line.split()[-1]) for line in table.split("\n\n")[1].splitlines()[1:]]
        assert sum(figures[:-1]) == figures[-1] == len(wrong)
        assert list(theirs.find().sort("_id")) == before
    finally:
        demo_labels.store().database.client.drop_database(demo_labels.store().database.name)
        dataset.delete()
        for name in ("mbari_journal", "mbari_leases"):
            registry._versions.database[name].drop()
