"""A model version that was published as training does it, but for the training itself."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests import published, rois


class Stored(NamedTuple):
    """A published version, the artifact root it is on, and the folder of its files."""

    record: Any
    root: Any
    folder: Path


def publish(folder: Path, database: Any) -> Stored:
    """Publishes a version of the model `m` below `folder`/artifacts, and registers it; a few seconds.

    Its last layer is fitted to drawn ROIs, of which every seventh has a wrong label; a field `depth` makes slices.
    """
    import pyarrow as pa

    from shared.artifacts import open_root
    from shared.classifier import data, train
    from shared.lineage.registry import new_version
    from shared.runs import Monitor
    from shared.workflows import publishing
    from shared.workflows.training import Options, Surroundings

    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        path = folder / "rois" / f"{number:02}.png"
        rois.draw(path, number % 3, rng)
        label = rois.CLASSES[number % 3 if number % 7 else (number + 1) % 3]
        split = ("train", "val", "test")[number // 3 % 3]
        row = {**published.row(f"{number:024x}", label, split, ""), "filepath": str(path)}
        rows.append({**row, "slice:depth": [None, "0 to 10", "10 to 25"][number % 3 if number % 2 else 1]})
    names = [name for name in rows[0] if name not in ("sha256", "used", "why_left_out")]
    table = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names})

    def read(path: str) -> bytes:
        return Path(path).read_bytes()

    made = data.build(table, folder / "data", read, imgsz=published.IMGSZ, framing="pad")
    weights = published.fitted(folder / "net.pt", table["filepath"].to_pylist(), table["label"].to_pylist())
    trained = train.Trained(weights, folder / "none.csv", {"lr0": 0.1}, 1, False, 1.0, "cpu")
    root, key = open_root(str(folder / "artifacts"), {}), f"versions/m/{new_version()}"
    options = Options("m", base_weights="yolov8n-cls.yaml", imgsz=published.IMGSZ)
    base = publishing.Base(Path("yolov8n-cls.yaml"), None, None)
    where = Surroundings(root, database, read, dataset="d", dataset_id="d" * 24)
    done = publishing.publish(folder / "version", key, made, trained, options, base, where, Monitor(), {})
    return Stored(done.record, root, folder / "artifacts" / key)
