"""How an image of any shape becomes the square that a network sees.

Three ways, each with its own promise:

- `pad`: the whole image stays in view, centred on black. The default: a centre crop loses most of
  a long filament.
- `crop`: what Ultralytics' classifiers do by themselves, bit for bit.
- `stretch`: height and width are resized each on its own, as many Hugging Face processors do.

Shrinking always averages over every source pixel (a triangle filter as wide as the shrinkage).
Plain interpolation looks at four pixels only, so that thin setae come out dotted or vanish.
"""

import numpy as np

from .errors import InputError

# What a person may choose; `stretch` is only for weights whose own processor does it.
FRAMINGS = ("pad", "crop")

# An enlargement beyond this many pixels (an image more than a thousand times longer than wide) is
# not made in full to keep the middle of it.
_MAX_ENLARGED_PIXELS = 2**26


def frame(rgb: np.ndarray, size: int, framing: str) -> np.ndarray:
    """Makes an image square.

    Args:
        rgb: uint8 (H, W, 3), any height and width from 1 up.
        size: side of the square, in pixels.
        framing: `pad`, `crop` or `stretch`.

    Returns:
        A uint8 array (size, size, 3).

    Raises:
        InputError: if the framing is none of these.
    """
    if framing == "pad":
        return _pad(rgb, size)
    if framing == "crop":
        return _crop(rgb, size)
    if framing == "stretch":
        return _resize(rgb, size, size)
    raise InputError(f"There is no framing '{framing}': choose {' or '.join(FRAMINGS)}.")


def _pad(rgb: np.ndarray, size: int) -> np.ndarray:
    """Resized so that the longer side fits, then centred on black.

    Padding first gives the same picture to a fraction of a pixel, but resizes black as well.
    """
    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    # A side that would vanish keeps one pixel.
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - new_height) // 2, (size - new_width) // 2
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + new_height, left : left + new_width] = _resize(rgb, new_height, new_width)
    return square


def _crop(rgb: np.ndarray, size: int) -> np.ndarray:
    """The shorter side resized to `size` with Pillow's bilinear filter, then the middle.

    Equals torchvision's `Resize(size)` and `CenterCrop(size)` on a Pillow image, which is what
    `ultralytics.data.augment.classify_transforms` does, and with it its predictor, before it
    scales to floats. Truncation and rounding are theirs.
    """
    from PIL import Image

    height, width = rgb.shape[:2]
    if width <= height:
        new_width, new_height = size, int(size * height / width)
    else:
        new_width, new_height = int(size * width / height), size
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    image = Image.fromarray(rgb)
    if new_width * new_height <= _MAX_ENLARGED_PIXELS:
        image = image.resize((new_width, new_height), Image.Resampling.BILINEAR)
        return np.array(image.crop((left, top, left + size, top + size)))
    # The same window, computed alone: a grey level off here and there, but no gigabytes.
    across, down = width / new_width, height / new_height
    window = (left * across, top * down, (left + size) * across, (top + size) * down)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=window))


def _resize(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes with a triangle filter; at most two grey levels from Pillow's, in a third of the time.

    Measured on plankton ROIs, CPU time to 224 pixels: ROIs below 224, OpenCV 35 us, Pillow 233 us;
    224 to 1,000, torch 290 us, Pillow 610 us, OpenCV's area filter 410 us; above, 230, 2,020 and
    1,430 us.
    """
    if rgb.shape[:2] == (height, width):
        return rgb.copy()
    if height >= rgb.shape[0] and width >= rgb.shape[1]:
        import cv2

        # Enlarging needs no averaging: the triangle filter is plain bilinear interpolation.
        return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
    import torch

    # A view of the same memory in the layout (channels last) for which torch has a vectorised filter.
    pixels = torch.from_numpy(rgb if rgb.flags.writeable else rgb.copy()).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
