"""Any shape becomes a square; `crop` as Ultralytics does it, bit for bit."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision
from ultralytics.data.augment import classify_transforms

from shared.errors import InputError
from shared.framing import FRAMINGS, frame

ALL = (*FRAMINGS, "stretch")


def roi(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 0.8)


def ultralytics(rgb: np.ndarray, size: int) -> np.ndarray:
    """The steps of Ultralytics' own transform before the scaling to floats."""
    image = Image.fromarray(rgb)
    for step in classify_transforms(size).transforms[:2]:
        image = step(image)
    return np.array(image)


def pillow(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("framing", ALL)
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 3000), (3000, 1), (2, 1), (7, 500), (224, 224), (225, 224), (2276, 2459)]
)
def test_any_shape_becomes_a_square(framing, shape):
    for rgb in (roi(*shape), np.full((*shape, 3), 200, np.uint8)):
        square = frame(rgb, 224, framing)
        assert square.shape == (224, 224, 3)
        assert square.dtype == np.uint8
        assert square.flags.c_contiguous
        assert square.flags.writeable
    # Nothing is lost of what was everywhere, however thin.
    assert square.max() == 200


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([32, 64, 224, 255]), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_crop_is_ultralytics_bit_for_bit(height, width, size, seed):
    rgb = roi(height, width, seed)
    np.testing.assert_array_equal(frame(rgb, size, "crop"), ultralytics(rgb, size))


def test_crop_is_ultralytics_bit_for_bit_on_real_rois(pwssc):
    for file in sorted(pwssc.glob("*/*.png"))[::19]:
        rgb = cv2.imread(str(file))[..., ::-1].copy()
        np.testing.assert_array_equal(frame(rgb, 224, "crop"), ultralytics(rgb, 224), err_msg=file.name)


def test_crop_is_what_the_predictor_feeds_its_network(tmp_path):
    from ultralytics import YOLO

    rgb = roi(90, 131)
    model = YOLO("yolov8n-cls.yaml")
    model.predict(rgb[..., ::-1], imgsz=64, device="cpu", verbose=False, save=False, project=str(tmp_path))
    predictor = model.predictor
    fed = predictor.preprocess(predictor.pre_transform([rgb[..., ::-1].copy()]))
    mine = torch.from_numpy(frame(rgb, 64, "crop")).permute(2, 0, 1)[None].float() / 255
    np.testing.assert_array_equal(fed.numpy(), mine.numpy())


def test_a_needle_is_cropped_without_enlarging_all_of_it():
    """More than a thousand times longer than wide: within a grey level or two of the full way."""
    rgb = roi(1400, 1)
    assert np.abs(frame(rgb, 224, "crop").astype(int) - ultralytics(rgb, 224)).max() <= 2
    assert np.abs(frame(rgb.transpose(1, 0, 2).copy(), 224, "crop").astype(int).transpose(1, 0, 2)).sum() > 0
    # 6 gigabytes in full.
    assert frame(roi(8000, 1), 448, "crop").shape == (448, 448, 3)


def test_pad_keeps_everything_in_view_centred_on_black():
    rgb = np.full((50, 200, 3), (10, 20, 250), np.uint8)
    square = frame(rgb, 100, "pad")
    rows = np.flatnonzero(square.any(axis=(1, 2)))
    assert (rows[0], rows[-1]) == (37, 61)  # 25 of 100, in the middle
    assert (square[37:62] == (10, 20, 250)).all()
    np.testing.assert_array_equal(frame(rgb.transpose(1, 0, 2).copy(), 100, "pad"), square.transpose(1, 0, 2))


def test_pad_keeps_the_ends_of_a_filament_that_crop_loses():
    rgb = np.full((60, 876, 3), 40, np.uint8)  # as long as the longest real one: 14.6 to 1
    rgb[:, :20, 0] = rgb[:, -20:, 1] = 255
    padded, cropped = frame(rgb, 224, "pad"), frame(rgb, 224, "crop")
    assert padded[..., 0].max() == padded[..., 1].max() == 255
    assert cropped[..., 0].max() == cropped[..., 1].max() == 40


def test_what_fits_already_is_untouched():
    rgb = roi(96, 96)
    for framing in ALL:
        square = frame(rgb, 96, framing)
        np.testing.assert_array_equal(square, rgb)
        square[:] = 0
        np.testing.assert_array_equal(rgb, roi(96, 96))


def test_pad_of_a_square_is_pillows_bilinear_filter():
    for side in (1, 2, 31, 95, 96, 97, 130, 400, 1500):
        rgb = roi(side, side)
        assert np.abs(frame(rgb, 96, "pad").astype(int) - pillow(rgb, 96, 96)).max() <= 2, side


@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (500, 400), (50, 60), (1, 300)])
def test_stretch_resizes_each_side_on_its_own(shape):
    rgb = roi(*shape)
    square = frame(rgb, 96, "stretch")
    assert np.abs(square.astype(int) - pillow(rgb, 96, 96)).max() <= 2
    # Hugging Face's processors resize with torchvision.
    theirs = torchvision.resize(torch.from_numpy(rgb).permute(2, 0, 1), [96, 96], antialias=True)
    assert np.abs(square.astype(int) - theirs.permute(1, 2, 0).numpy()).max() <= 2


@pytest.mark.parametrize("framing", ALL)
def test_thin_setae_survive_strong_shrinking(framing):
    """A line of 5 pixels in an ROI as large as the largest real one stays one even line."""
    side = 2459
    for slope in (0.07, 0.5, 0.93):
        rgb = np.zeros((side, side, 3), np.uint8)
        middle, reach = side / 2, 1000
        ends = [(round(middle + sign * reach), round(middle + sign * reach * slope)) for sign in (-1, 1)]
        cv2.line(rgb, *ends, (255, 255, 255), 5, cv2.LINE_AA)
        weight = frame(rgb, 224, framing)[..., 1].astype(float).sum(axis=0)
        along = weight[np.flatnonzero(weight)][8:-8]
        assert len(along) > 150
        assert along.min() > 0.95 * along.max()


def test_real_rois_are_padded_as_pillow_would(pwssc):
    for file in sorted(pwssc.glob("*/*.png"))[::41]:
        rgb = cv2.imread(str(file))[..., ::-1].copy()
        height, width = rgb.shape[:2]
        scale = 224 / max(height, width)
        new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (224 - new_height) // 2, (224 - new_width) // 2
        wanted = np.zeros((224, 224, 3), np.uint8)
        wanted[top : top + new_height, left : left + new_width] = pillow(rgb, new_height, new_width)
        assert np.abs(frame(rgb, 224, "pad").astype(int) - wanted).max() <= 2, file.name


def test_a_read_only_image_is_framed():
    rgb = roi(300, 200)
    rgb.flags.writeable = False
    for framing in ALL:
        assert frame(rgb, 64, framing).any()


def test_an_unknown_framing_is_named():
    with pytest.raises(InputError, match="no framing 'letterbox': choose pad or crop"):
        frame(roi(5, 5), 64, "letterbox")
