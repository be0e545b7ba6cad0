"""Plots: readable, the same bytes for the same input, and tolerant of what training leaves behind."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from shared.classifier.metrics import evaluate
from shared.lineage import plots

HEADER = "epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0,lr/pg1,lr/pg2"
LONG = ["Detonula_Cerataulina_Lauderia", "Pseudo-nitzschia", "fecal_pellet", "größer/als $x_1$", "a name\nof two lines"]


COUNTS = {"Snow": {"train": 700, "val": 150, "test": 148}, "Calanus": {"train": 9, "val": 1, "test": 0}}


def metrics(count: int, n: int = 400, seed: int = 0, slices: dict | None = None) -> dict:
    rng = np.random.RandomState(seed)
    y_true = rng.randint(count, size=n)
    logits = rng.randn(n, count)
    logits[np.arange(n), y_true] += 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return evaluate(y_true, probs, [f"{LONG[i % len(LONG)]}_{i}" for i in range(count)], slices)


def training_csv(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "training.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def epoch(number: int, top1: float = 0.5, loss: str = "1.2") -> str:
    return f"{number},{number * 9.5},{loss},{top1},0.9,1.4,0.001,0.001,0.001"


@pytest.fixture
def full(tmp_path) -> tuple[dict, Path, dict]:
    sites = {"site": ["PWS", "a $very$ long\nname_of " + "x" * 60, "deep", None] * 100}
    return metrics(6, slices=sites), training_csv(tmp_path, *(epoch(i, i / 20) for i in range(1, 13))), COUNTS


def test_all_six_are_real_pictures(tmp_path, full):
    paths = plots.write_plots(tmp_path / "made" / "plots", *full)
    assert {path.stem for path in paths} == {
        "confusion",
        "per_class_f1",
        "reliability",
        "slices",
        "class_mix",
        "training",
    }
    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) > 100
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
        assert path.stat().st_size < 1_000_000


def test_the_same_input_gives_the_same_bytes_in_another_process_and_thread(tmp_path, full):
    given, csv, counts = full
    first = {path.name: path.read_bytes() for path in plots.write_plots(tmp_path / "a", given, csv, counts)}
    for data in first.values():
        assert b"Software" not in data
        assert b"tIME" not in data
    thread = threading.Thread(target=plots.write_plots, args=(tmp_path / "b", given, csv, counts))
    thread.start()
    thread.join()
    (tmp_path / "given.json").write_text(json.dumps([given, counts]))
    code = (
        "import json, pathlib, sys; from shared.lineage.plots import write_plots; here = pathlib.Path(sys.argv[1]);"
        "given, counts = json.loads((here / 'given.json').read_text());"
        "write_plots(here / 'c', given, here / 'training.csv', counts)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    for other in ("b", "c"):
        assert {path.name: path.read_bytes() for path in (tmp_path / other).iterdir()} == first


def test_other_metrics_give_other_pictures(tmp_path):
    few, slices = {"Snow": {"train": 3}}, {"site": ["a", "b"] * 200}
    made = [
        plots.write_plots(tmp_path / str(seed), metrics(6, seed=seed, slices=slices), None, counts)
        for seed, counts in ((0, COUNTS), (1, few))
    ]
    one, two = ({path.name: path.read_bytes() for path in paths} for paths in made)
    assert len(one) == 5
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)


def test_nothing_global_is_touched(tmp_path):
    before = dict(matplotlib.rcParams)
    code = "import shared.lineage.plots, sys; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    given = metrics(2, slices={"site": ["a", "b"] * 200})
    plots.write_plots(tmp_path / "plots", given, training_csv(tmp_path, epoch(1)), COUNTS)
    assert dict(matplotlib.rcParams) == before


def extents(figure: Figure, texts) -> list:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    return [text.get_window_extent(renderer) for text in texts if text.get_text()]


def overlapping(boxes: list) -> int:
    return sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


@pytest.mark.parametrize("count", [1, 2, 12, 40, 150])
def test_names_do_not_overlap_and_are_not_tiny(count):
    given = metrics(count, n=4000)
    figure = plots._confusion(given)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = extents(figure, axis.get_ticklabels())
        assert len(boxes) == count
        assert overlapping(boxes) == 0
        assert min(label.get_fontsize() for label in axis.get_ticklabels()) >= 5
    figure = plots._per_class(given)
    assert overlapping(extents(figure, figure.axes[0].get_yticklabels())) == 0


def test_the_counts_of_40_classes_fit_their_cells():
    given = metrics(40, n=20_000)
    given["confusion"][3][3], given["confusion"][5][6] = 123_456, 54_321
    figure = plots._confusion(given)
    axes = figure.axes[0]
    boxes = extents(figure, axes.texts)
    (left, _), (right, _) = axes.transData.transform([(0, 0), (1, 0)])
    assert len(boxes) == np.count_nonzero(given["confusion"])
    assert max(box.width for box in boxes) < right - left


def test_the_matrix_shows_the_counts_of_classes_that_occur():
    given = metrics(3)
    given["confusion"] = [[5, 0, 2], [0, 0, 0], [1, 0, 7]]
    axes = plots._confusion(given).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Detonula_Cerataulina_Lauderia_0",
        "fecal_pellet_2",
    ]
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {
        (0, 0, "5"),
        (1, 0, "2"),
        (0, 1, "1"),
        (1, 1, "7"),
    }


def test_f1_is_shown_best_on_top_with_counts_and_without_absent_classes():
    given = metrics(3)
    for row, (f1, n) in zip(given["per_class"], [(0.9, 1200), (0.1, 7), (0.0, 0)], strict=True):
        row.update(f1=f1, n=n)
    axes = plots._per_class(given).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Pseudo-nitzschia_1  (7)",
        "Detonula_Cerataulina_Lauderia_0  (1,200)",
    ]
    assert [patch.get_width() for patch in axes.patches] == [0.1, 0.9]
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.90"]


def drawn_intervals(axes) -> list[tuple[float, float, float]]:
    """(place, low, high) of the lines of an error bar."""
    lines = [path.vertices for bars in axes.containers if hasattr(bars, "has_xerr") for path in bars[2][0].get_paths()]
    return [(float(line[0][1]), *line[:, 0].round(9).tolist()) for line in lines]


def test_the_intervals_of_f1_are_those_given():
    given = metrics(3)
    ordered = sorted(given["per_class"], key=lambda row: row["f1"])
    ordered[1]["f1_interval"] = None
    axes = plots._per_class(given).axes[0]
    expected = [(float(i), *(round(end, 9) for end in ordered[i]["f1_interval"])) for i in (0, 2)]
    assert drawn_intervals(axes) == expected
    low, high = given["intervals"]["macro_f1"]
    assert f"({low:.3f} to {high:.3f})" in axes.get_title()


def test_metrics_of_before_there_were_intervals_and_slices_are_drawn(tmp_path):
    given = metrics(3)
    del given["intervals"], given["slices"]
    for row in given["per_class"]:
        del row["f1_interval"], row["recall_interval"]
    axes = plots._per_class(given).axes[0]
    assert drawn_intervals(axes) == []
    assert "intervals" not in axes.get_xlabel()
    assert {path.stem for path in plots.write_plots(tmp_path, given, None, {"a": {"train": 0}})} == {
        "confusion",
        "per_class_f1",
        "reliability",
    }


def test_slices_are_shown_by_field_with_counts_and_intervals():
    columns = {"depth": ["5 to 10"] * 90 + ["10 to 25"] * 210 + [None] * 100, "a site": ["PWS"] * 400}
    given = metrics(4, slices=columns)
    figure = plots._slices(given)
    left, right = figure.axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == ["depth", "5 to 10  (90)", "10 to 25  (210)", "a site", "PWS  (400)"]
    assert [label.get_fontweight() for label in left.get_yticklabels()] == [
        "bold",
        "normal",
        "normal",
        "bold",
        "normal",
    ]
    bottom, top = left.get_ylim()
    assert bottom > top  # the first on top
    for axes, name in ((left, "top1"), (right, "macro_f1")):
        rows = zip((1, 2, 4), given["slices"], strict=True)
        expected = [(float(i), *(round(end, 9) for end in row[f"{name}_interval"])) for i, row in rows]
        assert drawn_intervals(axes) == expected
        assert [text.get_text() for text in axes.texts] == [f"{row[name]:.2f}" for row in given["slices"]]
        assert any(list(line.get_xdata()) == [given[name]] * 2 for line in axes.get_lines())


def test_an_interval_that_does_not_reach_its_value_is_drawn():
    assert plots._spread([0.5, 1.0], [[0.6, 0.7], [0.2, 1 - 1e-12]]).tolist() == [[0, 0.8], [pytest.approx(0.2), 0]]
    assert plots._spread([], []).shape == (2, 0)


@pytest.mark.parametrize("count", [1, 3, 60])
def test_names_titles_and_values_of_slices_do_not_overlap(count):
    rng = np.random.RandomState(0)
    columns = {f"{LONG[0]}_{field}": [f"site {i}" for i in rng.randint(count, size=400)] for field in "ab"}
    figure = plots._slices(metrics(4, slices=columns))
    left, right = figure.axes
    beside = extents(figure, left.texts)
    texts = [*figure.texts, left.title, right.title, *left.get_yticklabels(), *left.texts, *right.texts]
    assert overlapping(extents(figure, texts)) == 0
    assert max(box.x1 for box in beside) < right.get_window_extent().x0


def test_the_class_mix_shows_shares_and_counts_of_each_split():
    counts = {
        "rare": {"train": 10, "val": 0, "test": 10},
        "never": {"train": 0, "val": 2},
        "Snow": {"train": 90, "val": 18, "test": 30},
    }
    axes = plots._class_mix(counts).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["Snow  (90 / 18 / 30)", "rare  (10 / 0 / 10)", "never  (0 / 2 / 0)"]
    dots = {
        line.get_label(): list(zip(line.get_ydata(), line.get_xdata(), strict=True))
        for line in axes.get_lines()
        if line.get_marker() == "o"
    }
    assert dots == {"train (100)": [(0, 90), (1, 10)], "val (20)": [(0, 90), (2, 10)], "test (40)": [(0, 75), (1, 25)]}
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] == 0


def test_rare_classes_need_a_log_scale_and_empty_splits_are_not_named():
    axes = plots._class_mix({"Snow": {"train": 9990, "val": 0}, "rare": {"train": 10, "val": 0}}).axes[0]
    assert axes.get_xscale() == "log"
    assert "log scale" in axes.get_xlabel()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train (10,000)"]


@pytest.mark.parametrize("count", [1, 2, 60])
def test_names_of_the_class_mix_do_not_overlap_the_rest(count):
    counts = {f"{LONG[i % 5]}_{i}": {"train": 10**6 >> i % 20, "val": 1 + i, "test": 7} for i in range(count)}
    figure = plots._class_mix(counts)
    axes = figure.axes[0]
    texts = [axes.title, axes.xaxis.label, *axes.get_yticklabels(), *axes.get_legend().get_texts()]
    boxes = extents(figure, texts)
    assert len(boxes) == count + 5
    assert overlapping(boxes) == 0


def test_the_legend_of_reliability_hides_no_bar():
    figure = plots._reliability(metrics(3))
    axes = figure.axes[0]
    title, *legend = extents(figure, [axes.title, *axes.get_legend().get_texts()])
    assert min(box.y0 for box in legend) >= axes.get_window_extent().y1
    assert max(box.y1 for box in legend) <= title.y0


def test_a_picture_of_very_many_classes_is_made_coarser(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "MOST_PIXELS", 400)
    counts = {f"c{i}": {"train": i + 1} for i in range(100)}
    path = next(path for path in plots.write_plots(tmp_path, metrics(2), None, counts) if path.stem == "class_mix")
    with Image.open(path) as image:
        assert 400 <= image.height < 450


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines", "two lines"),
        ("", "(empty)"),
        ("x" * 34, "x" * 34),
        ("begin" + "x" * 40 + "end_of_it", "begin" + "x" * 11 + "…" + "x" * 7 + "end_of_it"),
    ],
)
def test_names_are_shown_on_one_line(name, shown):
    assert plots._short(name) == shown


@pytest.mark.parametrize("name", ["$", "$\\frac$", "a_b^c", "\\", "日本", "%s {0}"])
def test_any_class_name_can_be_drawn(tmp_path, name):
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning, "Glyph")
        given = evaluate(np.array([0, 1]), probs, [name, "other"], {name: [name, "other"]})
        assert len(plots.write_plots(tmp_path, given, None, {name: {"train": 3}, "other": {"train": 2}})) == 5


def test_without_a_file_or_epochs_there_are_no_curves(tmp_path):
    given = metrics(3)
    for csv in (None, tmp_path / "missing.csv", training_csv(tmp_path), training_csv(tmp_path, header="")):
        assert "training.png" not in {path.name for path in plots.write_plots(tmp_path / "plots", given, csv)}


def curves(csv: Path) -> dict[str, list[float]]:
    figure = plots._training(plots._read_epochs(csv))
    return {line.get_label(): list(line.get_ydata()) for axes in figure.axes for line in axes.get_lines()}


def test_the_curves_are_those_of_the_file(tmp_path):
    drawn = curves(training_csv(tmp_path, epoch(1, 0.25), epoch(2, 0.75), epoch(3, 0.5)))
    assert drawn["top-1"] == [0.25, 0.75, 0.5]
    assert drawn["training"] == [1.2] * 3
    assert drawn["validation"] == [1.4] * 3
    assert drawn["best: 0.750 in epoch 2"] == [0.75]


def test_of_epochs_run_twice_the_last_counts(tmp_path):
    lines = [epoch(1, 0.1), epoch(2, 0.2), epoch(3, 0.3), epoch(2, 0.6), epoch(3, 0.7)]
    assert curves(training_csv(tmp_path, *lines))["top-1"] == [0.1, 0.6, 0.7]


def test_padded_headers_missing_columns_and_no_numbers_are_read_over(tmp_path):
    padded = training_csv(
        tmp_path, " 1, 0.9, 0.4", "2, nan, 0.5", "3, , 0.6", "4", "", header=" epoch, train/loss, metrics/accuracy_top1"
    )
    drawn = curves(padded)
    assert drawn["top-1"][:3] == [0.4, 0.5, 0.6]
    assert np.isnan(drawn["training"][1:]).all()
    assert "validation" not in drawn
    figure = plots._training(plots._read_epochs(training_csv(tmp_path, "1,nan", header="epoch,metrics/accuracy_top1")))
    assert "best" not in str([line.get_label() for line in figure.axes[1].get_lines()])
