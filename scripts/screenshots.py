"""Makes the pictures of README and docs/ anew: the App on the demo's dataset, in a browser, used as a person would."""

import os
import signal
import sys
from pathlib import Path

import surroundings

sys.path.insert(0, str(surroundings.ROOT))  # for what drives the browser in the tests

MAP = "embeddings_map"
# The pictures.
LASSO, LINEAGE, FOCUS, LABELS, TRAIN = "embeddings-map", "model-lineage", "focus-list", "labels", "train"
DOUBTED = "Labels that look wrong"  # the item of the focus list that is opened
WIDTH = 1200  # of a picture, in pixels
SHOWN = {"ground_truth", "cluster"}  # what the grid draws on the ROIs


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # however it is ended, the App's server ends with it
    surroundings.prepare()
    surroundings.install_plugins()
    surroundings.own_database()
    os.environ["MBARI_LABEL_STORE"] = surroundings.own_label_store()

    import fiftyone as fo

    name = surroundings.DATASET
    dataset = fo.load_dataset(name) if fo.dataset_exists(name) else None
    views = [] if dataset is None else [view for view in dataset.list_saved_views() if DOUBTED in view]
    if not views or not dataset.has_brain_run(MAP):
        print(f"There is no dataset {name!r} with a map and a focus list yet: run `make demo` first.")
        return 1
    _photograph(dataset, views[0])
    return 0


def _photograph(dataset, doubted: str) -> None:
    """Looks at a sync and a training before they begin; draws a lasso; opens a model version, and the focus list."""
    from tests import browser

    log = surroundings.BUILD / "app" / "screenshots.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    points = len(dataset.load_brain_results(MAP).points)
    with browser.app(dataset.name, log) as url, browser.person(url) as person:
        person.open_app(dataset.count())
        _draw_only(person, dataset, SHOWN)
        person.open_form("Preview a sync")
        person.press("Execute")
        person.see("in conflict")
        person.look(LABELS)
        person.press("Close")
        person.open_form("Train a classifier")
        person.write("Model name", "plankton")
        person.can_press("Schedule")
        person.look(TRAIN)
        person.press("Cancel")
        person.open_panel("Model lineage", "Click a version")
        person.open_row("candidate")
        person.figures(1)
        person.look(LINEAGE)
        person.open_app(dataset.count())
        person.open_workspace("embeddings map")
        person.open_map(MAP, points)
        person.color_by("cluster.label")
        person.lasso(0.07, 0.54, 0.25, 0.7, look=LASSO)
    # In an App of its own: the one above keeps its panels.
    with browser.app(dataset.name, log) as url, browser.person(url) as person:
        person.open_app(dataset.count())
        _draw_only(person, dataset, {"ground_truth"})
        person.show("focus_suggested")
        person.open_saved_view(doubted)
        person.see(f"{dataset.load_saved_view(doubted).count():,} samples")
        person.open_saved_views()
        person.look(FOCUS)
    for name in (LASSO, LINEAGE, FOCUS, LABELS, TRAIN):
        to = surroundings.ROOT / "docs" / f"{name}.png"
        shrink(browser.SCREENSHOTS / to.name, to)
        print(f"{to}: {to.stat().st_size / 1000:.0f} kB")


def _draw_only(person, dataset, fields: set[str]) -> None:
    import fiftyone as fo

    for field in dataset.get_field_schema(embedded_doc_type=fo.Classification):
        if field not in fields:
            person.hide(field)


def shrink(picture: Path, to: Path) -> None:
    """Writes a picture smaller and with fewer colours, as PNG."""
    from PIL import Image

    to.parent.mkdir(exist_ok=True)
    with Image.open(picture) as image:
        height = round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(to, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main())
