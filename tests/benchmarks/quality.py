"""Quality for the same time: our training against `yolo classify train`, both on the CPU, both from the same images.

For each seed the real images are split 80/20 at random, without regard to class, and both fine-tune the same weights:

- the peer by its own command line, 12 epochs, on the tree of images as it is;
- ours by `data.build` and `train.train` in a process of its own, with as many epochs as the peer's wall time allows,
  chosen from the rate of a short run just before. Only epochs that end within the peer's wall time count.

The figure is the best validation top-1 of each run, the mean over the seeds; `ratio` is their difference.
"""

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
IMAGES = DATA / "pwssc"
WEIGHTS = DATA / "weights" / "leaf36-yolov8n-cls.pt"

PEER_EPOCHS = 12
PROBE_EPOCHS = 3


def run(seeds: int = 3) -> dict[str, Any]:
    """Runs both for each seed; minutes for each."""
    if not (IMAGES.is_dir() and WEIGHTS.is_file()):
        raise SystemExit(f"quality needs the real images and weights in {DATA}")
    runs = [_one(seed) for seed in range(seeds)]
    ours, peer = (statistics.mean(one[side]["top1"] for one in runs) for side in ("ours", "peer"))
    return {
        "name": "quality",
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "ratio": round(ours - peer, 4),
        "unit": "mean validation top-1; ratio is the difference",
        "goal": ">= 0.03",
        "runs": runs,
    }


def _one(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = _split(seed)
        for path, label, split in rows:
            target = folder / "tree" / split / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
        (folder / "rows.json").write_text(json.dumps([(str(path), label, split) for path, label, split in rows]))
        peer = _peer(folder, seed)
        probe = _ours(folder, seed, PROBE_EPOCHS, "probe")
        times = [row["time"] for row in probe["epochs"]]
        # The first epoch is slower than the others; what is left of the wall time is start, framing and packing up.
        rate = (times[-1] - times[0]) / (PROBE_EPOCHS - 1)
        fixed = probe["wall"] - rate * PROBE_EPOCHS
        epochs = max(PEER_EPOCHS, int((0.97 * peer["wall"] - fixed) / rate))
        ours = _ours(folder, seed, epochs, "ours")
    before_training = ours["wall"] - ours["epochs"][-1]["time"]
    in_time = [row for row in ours["epochs"] if before_training + row["time"] <= peer["wall"]]
    ours["top1"] = max(row["top1"] for row in in_time)
    for side in (ours, peer):
        side["load"] = os.getloadavg()[0]
        side["curve"] = [row["top1"] for row in side.pop("epochs")]
    return {"seed": seed, "ours": {**ours, "epochs_in_time": len(in_time)}, "peer": peer}


def _split(seed: int) -> list[tuple[Path, str, str]]:
    """All images in a random order, the first fifth for validation; the one that has two labels only in training."""
    files = sorted(IMAGES.glob("*/*.png"))
    random.Random(seed).shuffle(files)
    held_out = len(files) // 5
    rows = [(path, path.parent.name, "val" if i < held_out else "train") for i, path in enumerate(files)]
    names = [path.name for path, _, _ in rows]
    return [(p, label, "train" if names.count(p.name) > 1 else split) for p, label, split in rows]


def _peer(folder: Path, seed: int) -> dict[str, Any]:
    """Ultralytics' own command line, as anybody would call it."""
    out = folder / "peer"
    command = [str(Path(sys.executable).with_name("yolo")), "classify", "train", f"model={WEIGHTS}"]
    command += [f"data={folder / 'tree'}", f"epochs={PEER_EPOCHS}", "imgsz=224", "batch=32", f"seed={seed}"]
    command += [f"project={out}", "name=run", "device=cpu"]
    wall = _timed(command, folder)
    return _curve(out / "run" / "results.csv") | {"wall": wall}


def _ours(folder: Path, seed: int, epochs: int, name: str) -> dict[str, Any]:
    out = folder / name
    command = [sys.executable, "-m", "tests.benchmarks.quality", "--ours", str(folder), str(out)]
    wall = _timed([*command, "--seed", str(seed), "--epochs", str(epochs)], folder)
    return _curve(out / "results.csv") | {"wall": wall}


def _timed(command: list[str], folder: Path) -> float:
    environment = os.environ | {"YOLO_CONFIG_DIR": str(folder / "settings"), "YOLO_OFFLINE": "true"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{done.stderr[-3000:]}")
    return round(time.perf_counter() - started, 1)


def _curve(path: Path) -> dict[str, Any]:
    with path.open() as file:
        rows = [{k.strip(): v for k, v in row.items()} for row in csv.DictReader(file)]
    epochs = [{"time": float(row["time"]), "top1": float(row["metrics/accuracy_top1"])} for row in rows]
    return {"epochs": epochs, "top1": max(row["top1"] for row in epochs)}


def train_ours(folder: Path, out: Path, seed: int, epochs: int) -> None:
    """What the operator does with the rows, between reading them and publishing."""
    import pyarrow as pa

    from shared.classifier import data, train

    rows = json.loads((folder / "rows.json").read_text())
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("filepath", "label", "split"))}
    table = pa.table({"sample_id": [str(i) for i in range(len(rows))], **columns})
    training_set = data.build(table, out / "data", lambda p: Path(p).read_bytes(), imgsz=224, framing="pad")
    train.train(training_set, WEIGHTS, out, epochs=epochs, patience=0, seed=seed, device="cpu")


def main() -> None:
    """`python -m tests.benchmarks.quality [--seeds 1]`."""
    parser = argparse.ArgumentParser(description="Quality of our training against plain Ultralytics'")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ours", nargs=2, type=Path, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=PEER_EPOCHS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        train_ours(*arguments.ours, arguments.seed, arguments.epochs)
    else:
        print(json.dumps(run(arguments.seeds), indent=2))


if __name__ == "__main__":
    main()
