"""Many images through decoding, runtime and writer: all arrive once and in order, whatever goes wrong."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import runtimes
from shared.classifier import weights
from shared.classifier.predict import Predictions, predict, softmax
from shared.errors import ImageError, StorageError
from shared.framing import frame
from shared.images import decode
from shared.media import Media
from shared.runs import Monitor

pytestmark = pytest.mark.timeout(120)


class Colours(torch.nn.Module):
    def forward(self, pixels):
        return pixels.mean((2, 3))


@pytest.fixture
def classifier(checkpoint):
    """Cheap, and its logits say which image it saw: the mean of each channel."""
    return replace(weights.load(checkpoint, imgsz=32, framing="pad"), module=Colours(), names=("r", "g", "b"))


@pytest.fixture
def runtime(classifier):
    return runtimes.build(classifier, runtime="torch", precision="full", device="cpu", batch_size=10)


def read(path):
    return Path(path).read_bytes()


def expected(paths, size=32):
    return np.stack([frame(decode(read(p)), size, "pad").mean((0, 1)) / 255 for p in paths])


def run(items, classifier, runtime, **how):
    batches: list[Predictions] = []
    how = {"read": read, "sink": batches.append, **how}
    totals = predict(items, how.pop("read"), classifier, runtime, how.pop("sink"), **how)
    return totals, batches


def named(paths):
    return [(f"id{i}", path) for i, path in enumerate(paths)]


@pytest.mark.parametrize("workers", [1, 4, None])
def test_every_image_arrives_once_in_order(workers, rois, classifier, runtime):
    totals, batches = run(iter(named(rois)), classifier, runtime, workers=workers)
    assert [i for b in batches for i in b.ids] == [f"id{i}" for i in range(len(rois))]
    assert {len(b.ids) for b in batches} == {10}
    np.testing.assert_allclose(np.concatenate([b.logits for b in batches]), expected(rois), atol=1e-4)
    assert (totals.done, totals.unreadable, totals.stopped) == (60, 0, False)
    assert totals.seconds > 0


def test_the_real_thing_end_to_end(rois, checkpoint):
    classifier = weights.load(checkpoint, imgsz=64)
    runtime = runtimes.build(classifier, device="cpu")
    _, batches = run(named(rois), classifier, runtime, read=Media().read)
    images = np.stack([frame(decode(read(p)), 64, "crop") for p in rois])
    np.testing.assert_array_equal(np.concatenate([b.logits for b in batches]), runtime(images))


def test_no_images_are_no_error(classifier, runtime):
    totals, batches = run([], classifier, runtime)
    assert (totals.done, batches) == (0, [])


def test_unreadable_images_are_reported_and_the_rest_goes_on(rois, classifier, runtime, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "truncated.png").write_bytes(read(rois[0])[:200])
    bad = [*map(str, tmp_path.iterdir()), str(tmp_path / "missing.png")]
    # At the start, inside, a whole batch of them, and at the end.
    paths = [bad[0], *rois[:15], bad[1], *rois[15:33], *(bad * 5), *rois[33:], bad[3]]
    totals, batches = run(named(paths), classifier, runtime, read=Media().read)
    good = [f"id{i}" for i, path in enumerate(paths) if path in rois]
    assert [i for b in batches for i in b.ids] == good
    np.testing.assert_allclose(np.concatenate([b.logits for b in batches]), expected(rois), atol=1e-4)
    unreadable = [u for b in batches for u in b.unreadable]
    assert sorted([i for i, _ in unreadable] + good) == sorted(i for i, _ in named(paths))
    assert all(reason.endswith(".") for _, reason in unreadable)
    assert (totals.done, totals.unreadable) == (60, 23)
    assert any(not b.ids and b.logits.shape == (0, 3) for b in batches)


class Stopping(Monitor):
    def __init__(self, after):
        self.after, self.seen = after, []

    def progress(self, done, total, what):
        self.seen.append((done, total, what))

    def stopping(self):
        return len(self.seen) >= self.after


def test_progress_is_told_and_a_stop_ends_at_the_next_batch(rois, classifier, runtime):
    monitor = Stopping(after=2)
    taken = []

    def endless():
        while True:
            for item in named(rois):
                taken.append(item)
                yield item

    totals, batches = run(endless(), classifier, runtime, monitor=monitor, total=1000)
    assert totals.stopped
    assert totals.done == sum(len(b.ids) for b in batches) == 20
    assert monitor.seen == [(10, 1000, "Classifying ROIs"), (20, 1000, "Classifying ROIs")]
    assert len(taken) < 200


class Failure(Exception):
    pass


def failing_after(calls, function=lambda *a: None):
    count = iter(range(1_000_000))

    def fail(*arguments):
        if next(count) >= calls:
            raise Failure("on purpose")
        return function(*arguments)

    return fail


def own_threads():
    return [t for t in threading.enumerate() if t.name.startswith("mbari-")]


@pytest.mark.parametrize("calls", [0, 1, 4])
@pytest.mark.parametrize("stage", ["items", "read", "runtime", "sink"])
def test_an_error_in_any_stage_ends_the_others_and_is_raised(stage, calls, rois, classifier, runtime):
    items, how = named(rois) * 20, {}
    if stage == "items":
        next_item = failing_after(calls * 30, iter(items).__next__)
        items = iter(next_item, None)
    elif stage == "read":
        how["read"] = failing_after(calls * 30, read)
    elif stage == "sink":
        how["sink"] = failing_after(calls)
    else:
        runtime = replace(runtime, first=failing_after(calls, runtime.first))
    with pytest.raises(Failure, match="on purpose"):
        run(items, classifier, runtime, workers=3, **how)
    assert own_threads() == []


def test_a_store_that_fails_as_a_whole_ends_the_run(rois, classifier, runtime):
    def refuse(path):
        raise StorageError("The store refuses.")

    with pytest.raises(StorageError, match="refuses"):
        run(named(rois), classifier, runtime, read=refuse)

    def broken(path):
        raise ImageError("Broken.")

    totals, _ = run(named(rois), classifier, runtime, read=broken)
    assert totals.unreadable == 60


def test_nothing_is_written_after_a_write_failed(rois, classifier, runtime):
    written = []

    def sink(batch):
        written.append(batch.ids[0])
        if len(written) == 2:
            raise Failure

    with pytest.raises(Failure):
        run(named(rois) * 5, classifier, runtime, sink=sink)
    assert written == ["id0", "id10"]


def test_what_was_predicted_before_an_error_is_written(rois, classifier, runtime):
    written = []

    def slow_sink(batch):
        time.sleep(0.05)
        written.extend(batch.ids)

    runtime = replace(runtime, first=failing_after(3, runtime.first))
    with pytest.raises(Failure):
        run(named(rois), classifier, runtime, sink=slow_sink)
    assert written == [f"id{i}" for i in range(30)]


def test_no_stage_runs_away_from_a_slow_writer(rois, classifier, runtime):
    reading = []
    lead = []
    lock = threading.Lock()

    def counted(path):
        with lock:
            reading.append(path)
        return read(path)

    written = 0

    def slow_sink(batch):
        nonlocal written
        time.sleep(0.03)
        written += len(batch.ids)
        lead.append(len(reading) - written)

    run(named(rois) * 10, classifier, runtime, read=counted, sink=slow_sink, workers=4)
    assert written == 600
    # Three batches with the writer, one in the runtime's hands, two and what four threads hold ahead.
    assert max(lead) <= 3 * 10 + 10 + 2 * 10 + 4 * 8 + 10


def test_softmax_is_stable_and_sums_to_one():
    logits = np.array([[1000.0, 1000.0, -1000.0], [0.0, np.log(3), -np.inf]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[0.5, 0.5, 0], [0.25, 0.75, 0]], atol=1e-6)
    assert softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)
