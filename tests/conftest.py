"""Fixtures that the whole test suite shares; every test runs against real services of its own."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"

# Before FiftyOne is imported: its own MongoDB in a folder of this project, never the user's.
os.environ.setdefault("FIFTYONE_DATABASE_DIR", str(BUILD / "test" / "mongo"))
os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
os.environ.setdefault("FIFTYONE_DATABASE_NAME", "mbari-test")
os.environ.setdefault("FIFTYONE_PLUGINS_DIR", str(ROOT / "plugins"))
os.environ.setdefault("FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS", "true")
os.environ.setdefault("YOLO_CONFIG_DIR", str(BUILD / "ultralytics"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Real plankton images and weights that lie beside the checkout on some machines; never required.
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def pwssc() -> Path:
    """The folder of real plankton images, one sub-folder a class."""
    folder = DATA / "pwssc"
    if not folder.is_dir():
        pytest.skip("the real plankton images are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def leaf_weights() -> Path:
    """A real YOLOv8n-cls checkpoint of 36 classes."""
    file = DATA / "weights" / "leaf36-yolov8n-cls.pt"
    if not file.is_file():
        pytest.skip("the real weights are not beside this checkout")
    return file
