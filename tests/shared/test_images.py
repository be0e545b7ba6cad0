"""Every kind of file that may turn up among ROIs: read as a person sees it, or refused with a reason."""

import contextlib
import io
import struct
import threading
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from shared.errors import ImageError
from shared.images import MAX_PIXELS, decode


def roi(height: int = 37, width: int = 53, seed: int = 0) -> np.ndarray:
    """A smooth, coloured picture without any symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 1.5)
    picture[: height // 3, : width // 4] = (250, 20, 90)
    return picture


def save(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *before: tuple[bytes, bytes]) -> bytes:
    """A PNG put together by hand, with further chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


KINDS = {
    "png": lambda: save(roi(), "PNG"),
    "png grey": lambda: save(Image.fromarray(roi()).convert("L"), "PNG"),
    "png palette": lambda: save(Image.fromarray(roi()).convert("P"), "PNG"),
    "png rgba": lambda: save(Image.fromarray(roi()).convert("RGBA"), "PNG"),
    "png grey 16": lambda: save(roi()[..., 0].astype(np.uint16) * 257, "PNG"),
    "png 1 bit": lambda: save(Image.fromarray(roi()).convert("1"), "PNG"),
    "jpeg": lambda: save(roi(), "JPEG"),
    "jpeg grey": lambda: save(Image.fromarray(roi()).convert("L"), "JPEG"),
    "jpeg progressive": lambda: save(roi(), "JPEG", progressive=True),
    "jpeg cmyk": lambda: save(Image.fromarray(roi()).convert("CMYK"), "JPEG"),
    "tiff": lambda: save(roi(), "TIFF"),
    "tiff lzw": lambda: save(roi(), "TIFF", compression="tiff_lzw"),
    "webp": lambda: save(roi(), "WEBP", lossless=True),
    "gif": lambda: save(roi(), "GIF"),
    "bmp": lambda: save(roi(), "BMP"),
    "ppm": lambda: save(roi(), "PPM"),
    "jpeg 2000": lambda: save(roi(), "JPEG2000"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_rgb_bytes(kind):
    rgb = decode(KINDS[kind]())
    assert rgb.shape == (37, 53, 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable


@pytest.mark.parametrize("kind", ["png", "tiff", "tiff lzw", "webp", "bmp", "ppm", "jpeg 2000"])
def test_lossless_kinds_keep_every_pixel_in_rgb_order(kind):
    np.testing.assert_array_equal(decode(KINDS[kind]()), roi())


@pytest.mark.parametrize("kind", ["png", "png grey", "jpeg", "jpeg grey", "jpeg progressive"])
def test_ordinary_images_have_the_pixels_that_opencv_sees(kind, tmp_path):
    file = tmp_path / "roi"
    file.write_bytes(KINDS[kind]())
    np.testing.assert_array_equal(decode(file.read_bytes()), cv2.imread(str(file))[..., ::-1])


def test_real_rois_have_the_pixels_that_opencv_sees(pwssc):
    for file in sorted(pwssc.glob("*/*.png"))[::23]:
        np.testing.assert_array_equal(decode(file.read_bytes()), cv2.imread(str(file))[..., ::-1])


def test_grey_is_the_same_in_all_channels():
    grey = Image.fromarray(roi()).convert("L")
    np.testing.assert_array_equal(decode(save(grey, "PNG")), np.asarray(grey.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "big-endian TIFF"])
def test_16_bit_grey_keeps_its_brightness(kind):
    seen = roi()[..., 0]
    deep = seen.astype(np.uint16) * 257
    if kind == "big-endian TIFF":
        data = b"MM" + struct.pack(">HI", 42, 8) + struct.pack(">H", 8)
        entries = [(256, 53), (257, 37), (258, 16), (259, 1), (262, 1), (273, 8 + 2 + 8 * 12 + 4), (278, 37)]
        entries.append((279, deep.nbytes))
        for tag, value in entries:
            data += struct.pack(">HHI", tag, 3, 1) + struct.pack(">HH", value, 0)
        data += struct.pack(">I", 0) + deep.astype(">u2").tobytes()
    else:
        data = save(deep, kind)
    np.testing.assert_array_equal(decode(data), np.repeat(seen[..., None], 3, axis=2))


def test_16_bit_grey_is_rounded_to_the_nearest():
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = decode(save(deep, "PNG"))
    np.testing.assert_array_equal(rgb[..., 1], np.round(deep / 257).astype(np.uint8))
    assert rgb.max() == 255


def test_16_bit_rgb_keeps_its_brightness():
    deep = roi().astype(">u2") * np.uint16(257)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    np.testing.assert_array_equal(decode(png(53, 37, 16, 2, rows)), roi())


def test_grey_without_an_agreed_white_is_refused():
    assert "without an agreed white" in reason(save(np.ones((4, 5), np.float32), "TIFF"))
    assert "without an agreed white" in reason(save(np.full((4, 5), 70_000, np.int32), "TIFF"))


def test_palette_shows_its_colours():
    palette = Image.fromarray(roi()).quantize(64)
    np.testing.assert_array_equal(decode(save(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_one_bit_is_black_and_white():
    bits = np.eye(9, dtype=bool)
    np.testing.assert_array_equal(decode(save(Image.fromarray(bits), "PNG"))[..., 2], bits * np.uint8(255))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_spans_black_to_white(bits):
    black_then_white = 0xFF >> bits
    assert decode(png(2, 1, bits, 0, bytes([0, black_then_white])))[0, :, 0].tolist() == [0, 255]


def test_cmyk_keeps_its_colours():
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [90, 90, 90]], np.uint8)
    blocks = np.repeat(np.repeat(colours[None], 16, axis=0), 16, axis=1)
    rgb = decode(save(Image.fromarray(blocks).convert("CMYK"), "JPEG", quality=100))
    assert np.abs(rgb.astype(int) - blocks).max() <= 4


def test_transparency_lies_over_black():
    rgba = np.dstack([roi(), np.tile(np.linspace(0, 255, 53).astype(np.uint8), (37, 1))])
    wanted = roi() * (rgba[..., 3:] / 255)
    assert np.abs(decode(save(rgba, "PNG")) - wanted).max() <= 1
    assert decode(save(rgba, "PNG"))[:, 0].max() == 0  # what was hidden stays hidden
    la = Image.fromarray(rgba).convert("LA")
    grey = np.asarray(la)[..., :1] * (np.asarray(la)[..., 1:] / 255)
    assert np.abs(decode(save(la, "PNG")) - grey).max() <= 1


@pytest.mark.parametrize("colour", [0, 2, 3])
def test_one_transparent_colour_is_black(colour):
    """PNG's tRNS: the first pixel is transparent, the second (white) is not."""
    if colour == 0:
        data = png(2, 1, 8, 0, bytes([0, 77, 255]), (b"tRNS", struct.pack(">H", 77)))
    elif colour == 2:
        data = png(2, 1, 8, 2, bytes([0, 77, 78, 79, 255, 255, 255]), (b"tRNS", struct.pack(">HHH", 77, 78, 79)))
    else:
        data = png(2, 1, 8, 3, bytes([0, 0, 1]), (b"PLTE", bytes([77, 78, 79, 255, 255, 255])), (b"tRNS", b"\0"))
    assert decode(data).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "PNG rgba"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(roi()).convert("RGBA" if kind == "PNG rgba" else "RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(image, kind.removesuffix(" rgba"), exif=exif, **options)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    upright = decode(data)
    assert upright.shape == ((53, 37, 3) if orientation >= 5 else (37, 53, 3))
    assert np.abs(upright.astype(int) - np.asarray(turned)).max() <= 1
    if kind != "JPEG" and orientation == 6:
        np.testing.assert_array_equal(upright, np.rot90(roi(), -1))


def test_broken_exif_turns_nothing():
    for kind in ("JPEG", "WEBP"):
        data = save(roi(), kind, exif=b"Exif\0\0II*\0\xff\xff\xff\xff nothing of this is EXIF")
        assert decode(data).shape == (37, 53, 3)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_taken(kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = save(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(decode(data).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_wherever_it_is_cut(kind):
    whole = KINDS[kind]()
    right = decode(whole)
    refused = 0
    for length in range(0, len(whole) - 1, max(1, len(whole) // 97)):
        try:
            rgb = decode(whole[:length])
        except ImageError:
            refused += 1
        else:
            # Some formats end in bytes that hold no pixels.
            assert len(whole) - length < 64
            np.testing.assert_array_equal(rgb, right)
    assert refused >= 90
    assert reason(whole[: len(whole) // 2]) == "The image is truncated or damaged: copy the file again from its source."


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_file_whose_end_was_never_written_is_refused(kind):
    whole = KINDS[kind]()
    assert "truncated" in reason(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))


def test_the_end_mark_of_a_thumbnail_is_not_the_end():
    exif = b"Exif\0\0" + save(roi(16, 16), "JPEG")
    whole = save(roi(), "JPEG", exif=exif)
    assert decode(whole).shape == (37, 53, 3)
    assert "truncated" in reason(whole[:-200])


def test_a_flipped_bit_in_a_png_is_noticed():
    whole = save(roi(), "PNG")
    for at in range(60, len(whole) - 20, len(whole) // 40):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        assert "damaged" in reason(bytes(damaged))


def test_bytes_behind_the_end_do_no_harm():
    for kind in ("png", "jpeg"):
        whole = KINDS[kind]()
        np.testing.assert_array_equal(decode(whole + b"written by a camera"), decode(whole))


@pytest.mark.parametrize(
    "data",
    [
        b"<html>404</html>",
        bytes(500),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"PK\3\4" + bytes(99),
        b"P",
    ],
)
def test_what_is_no_image_is_said_so(data, caplog):
    import ultralytics.models  # noqa: F401  (its own `Image.open` would try to install a package)

    assert "not an image" in reason(data)
    assert not caplog.records


def test_an_empty_file_is_said_so():
    assert reason(b"") == "The file is empty."


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    """Small files that claim, or hold, far more pixels than any ROI has."""
    side = 60_000
    rows = zlib.compress(bytes(1 << 20) * 64)
    claims = {
        "png": png(side, side, 8, 2, rows),
        "png rgba": png(side, side, 8, 6, rows),
        "png 1 bit": png(side, side, 1, 0, rows),
        "gif": save(roi(), "GIF")[:6] + struct.pack("<HH", side, side) + save(roi(), "GIF")[10:],
        "bmp": save(roi(), "BMP")[:18] + struct.pack("<ii", side, side) + save(roi(), "BMP")[26:],
        "ppm": b"P6 60000 60000 255\n" + bytes(999),
    }
    jpeg = save(roi(), "JPEG")
    at = jpeg.index(b"\xff\xc0")
    claims["jpeg"] = jpeg[: at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9 :]
    for kind, data in claims.items():
        assert f"at most {MAX_PIXELS:,} are read" in reason(data), kind


def test_the_limit_is_far_above_the_largest_roi():
    assert MAX_PIXELS > 10 * 2459 * 2276
    large = np.zeros((8192, 8192), np.uint8)
    assert decode(save(large, "PNG", compress_level=1)).shape == (8192, 8192, 3)
    assert "8,193 x 8,192" in reason(png(8193, 8192, 8, 0, b""))


def test_no_pixels_are_refused():
    assert reason(png(0, 5, 8, 2, b"")) == "The image has no pixels."


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff", b"GIF89a"]))
@settings(max_examples=300, deadline=None)
def test_garbage_is_never_anything_but_an_image_error(tail, head):
    with contextlib.suppress(ImageError):
        decode(head + tail)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_an_image_or_an_image_error(data):
    damaged = bytearray(KINDS[data.draw(st.sampled_from(sorted(KINDS)))]())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        rgb = decode(bytes(damaged))
    except ImageError:
        return
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert rgb.dtype == np.uint8


def test_threads_decode_the_same():
    data = [make() for make in KINDS.values()]
    right = [decode(one) for one in data]
    wrong = []

    def work() -> None:
        for _ in range(5):
            wrong.extend(not np.array_equal(decode(one), rgb) for one, rgb in zip(data, right, strict=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 4 * 5 * len(data)
    assert not any(wrong)
