"""How benchmark results are held to their goals."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import bench


@pytest.mark.parametrize(
    ("goal", "ratio", "ours", "met"),
    [
        (">= 5", 5.0, 1.0, True),
        (">= 5", 4.9, 100.0, False),
        ("<= 0.7", 0.7, 9.0, True),
        ("<= 0.7", 0.71, 0.1, False),
        ("<= 0.5", None, 0.2, True),
        ("<= 0.5", None, 0.6, False),
    ],
)
def test_a_goal_speaks_of_the_ratio_or_where_there_is_none_of_ours(goal, ratio, ours, met) -> None:
    assert bench.met({"goal": goal, "ratio": ratio, "ours": ours}) is met


def test_a_run_writes_its_results_and_tells_whether_they_were_met(tmp_path, monkeypatch, capsys) -> None:
    result = '{"name": "made_up", "ours": 12.0, "peer": 2.0, "ratio": 6.0, "unit": "images/s", "goal": "%s"}'
    (tmp_path / "good.py").write_text(f"def run():\n    return {result % '>= 5'}\n")
    (tmp_path / "bad.py").write_text(f"def run():\n    return [{result % '>= 7'}]\n")
    monkeypatch.setattr(bench, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(bench.surroundings, "prepare", lambda home: None)
    monkeypatch.setattr(bench.surroundings, "own_database", lambda: None)
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", "restored afterwards")
    for name, code, word in (("good", 0, "met"), ("bad", 1, "MISSED"), ("none_such", 2, "")):
        monkeypatch.setattr(sys, "argv", ["bench.py", name])
        assert bench.main() == code
        assert word in capsys.readouterr().out
    written = json.loads((tmp_path / "results" / "made_up.json").read_text())
    assert set(written) == {"name", "ours", "peer", "ratio", "unit", "goal", "machine"}
    assert "cores" in written["machine"]
