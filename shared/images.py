"""Decoding: the bytes of any image file become RGB pixels, or one sentence why they cannot.

Ordinary files (8-bit grey or RGB as PNG or JPEG) take the fast way, OpenCV, which lets other
threads run meanwhile; everything else goes to Pillow.
"""

import io
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from .errors import ImageError

# 8,192 x 8,192: twelve times the largest ROI seen so far, and 200 MB as pixels. A few kilobytes of
# PNG can claim billions of pixels; the header is looked at before anything is unpacked.
MAX_PIXELS = 2**26

# Only these: Pillow knows further formats, some of which start other programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")
_NOT_AN_IMAGE = "The file is not an image (PNG, JPEG, TIFF, WebP, GIF, BMP, PPM or JPEG 2000)."
_DAMAGED = "The image is truncated or damaged: copy the file again from its source."


def decode(data: bytes) -> np.ndarray:
    """Decodes one image as a person sees it.

    EXIF rotation is applied; grey, palette and CMYK become RGB; 16 bits are scaled to 8 over the
    full range (65,535 is white); of several frames the first is taken. Transparency is laid over
    black, because that is what ROIs lie on and what framing pads with: dropping it instead would
    show whatever colours were left under transparent pixels. An ordinary image has exactly the
    pixels that `cv2.imread`, and so Ultralytics, sees.

    Args:
        data: the bytes of the file.

    Returns:
        RGB, uint8 (H, W, 3), writable.

    Raises:
        ImageError: if the file is empty, truncated, damaged, no image, or larger than MAX_PIXELS.
    """
    if not data:
        raise ImageError("The file is empty.")
    header = _png_header(data) or _jpeg_header(data)
    if header is None or not header.plain:
        return _decode_with_pillow(data)
    _check_size(header.width, header.height)
    import cv2

    try:
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError(_DAMAGED) from error
    if rgb is None or not header.complete:
        raise ImageError(_DAMAGED)
    return rgb


class _Header(NamedTuple):
    """What the first bytes say; `plain` images are those that OpenCV reads as a person sees them."""

    width: int
    height: int
    plain: bool
    complete: bool = True


def _png_header(data: bytes) -> _Header | None:
    """Reads a PNG's IHDR and looks for transparency; None if it is no PNG."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour = data[24], data[25]
    plain = depth == 8 and colour in (0, 2)  # grey, RGB
    at = 33
    # tRNS (one colour is transparent) and acTL (animation) come before the first IDAT.
    while plain and len(data) >= at + 12 and (kind := data[at + 4 : at + 8]) != b"IDAT":
        plain = kind not in (b"tRNS", b"acTL")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return _Header(width, height, plain)


def _jpeg_header(data: bytes) -> _Header | None:
    """Walks a JPEG's segments up to the pixels; None if it is no JPEG or an unusual one.

    The end marker is looked for behind that point only: an EXIF thumbnail has one of its own.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at, header = 2, None
    while len(data) >= at + 10 and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan
            return header and header._replace(complete=data.find(b"\xff\xd9", at) >= 0)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            header = _Header(width, height, plain=data[at + 4] == 8 and data[at + 9] in (1, 3) and height > 0)
        fill = marker == 0xFF
        at += 1 if fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError("The image has no pixels.")
    if width * height > MAX_PIXELS:
        raise ImageError(f"The image claims {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are read.")


def _decode_with_pillow(data: bytes) -> np.ndarray:
    """Whatever OpenCV would not show right: other modes, transparency, other formats.

    `PIL.Image.open` is avoided: once Ultralytics is imported it is Ultralytics' own, which for every
    file that it cannot identify tries to install a package.
    """
    from PIL import Image, ImageOps

    Image.init()
    opener = next((Image.OPEN[name][0] for name in _FORMATS if _accepts(Image.OPEN[name][1], data)), None)
    if opener is None:
        raise ImageError(_NOT_AN_IMAGE)
    try:
        with opener(io.BytesIO(data), "") as image:
            _check_size(*image.size)
            image.load()
            with suppress(Exception):  # A broken EXIF block turns nothing.
                ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders meet damaged files with almost any exception.
        raise ImageError(_DAMAGED) from error


def _accepts(accept: Any, data: bytes) -> bool:
    """Whether a format of Pillow's takes a file that begins like this (a text says why it would not)."""
    return accept(data[:16]) is True


def _to_rgb(image: Any) -> np.ndarray:
    """A loaded Pillow image of any mode as RGB uint8."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_grey_to_8_bits(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size)
        image.paste(rgba, mask=rgba)
    return np.array(image.convert("RGB"))


def _grey_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scales 16-bit grey (H, W) over its full range; other ranges have no agreed white."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ImageError("The image has 32-bit grey values without an agreed white: save it with 8 or 16 bits.")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
