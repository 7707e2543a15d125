"""Decoding image files: kinds, orientations, damage, limits."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from PIL import ImageOps
from skimage import data

from service.errors import EmptyBody, NotAcceptable, ServiceError, TooLarge, UnsupportedType
from service.inference import image
from service.inference.errors import UndecodableImage
from service.pose import orientation as orientation_
from tests import spots

LIMIT = 32_000_000
ASTRONAUT = data.astronaut()
SMALL = cv2.resize(ASTRONAUT, (96, 64), interpolation=cv2.INTER_AREA)
KINDS = ["JPEG", "PNG", "WEBP", *(["AVIF"] if image.supports_avif() else [])]
FILES = {kind: spots.encode(SMALL, kind, orientation=6) for kind in KINDS}
PROGRESSIVE = spots.encode(SMALL, "JPEG", progressive=True)


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_decoded_upright(kind: str, orientation: int) -> None:
    stored = spots.stored_as(SMALL, orientation)

    picture = image.decode(spots.encode(stored, kind, orientation), LIMIT)

    assert picture.exif_orientation == orientation
    assert picture.size == (96, 64)
    assert mean_difference(picture.pixels, SMALL) < 5
    assert picture.pixels.flags.c_contiguous


def test_stored_as_agrees_with_pillow() -> None:
    for orientation in range(1, 9):
        content = spots.encode(spots.stored_as(SMALL, orientation), "PNG", orientation)
        upright = ImageOps.exif_transpose(PillowImage.open(io.BytesIO(content)))
        np.testing.assert_array_equal(np.asarray(upright), SMALL)


def test_big_endian_exif_is_read() -> None:
    tiff = spots.exif(8, ">", "H")
    assert image.decode(FILES["JPEG"], LIMIT).exif_orientation == 6
    assert image.decode(spots.with_exif(spots.encode(SMALL, "JPEG"), tiff), LIMIT).exif_orientation == 8


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", "BHIhi")
def test_an_orientation_is_read_from_every_integer_type(order: str, value: str) -> None:
    for number in range(1, 9):
        tiff = spots.exif(number, order, value)
        assert orientation_.read(tiff) == number
        assert orientation_.read(tiff[:-1]) in {1, number}
        content = spots.with_exif(spots.encode(spots.stored_as(SMALL, number), "JPEG"), tiff)
        assert mean_difference(image.decode(content, LIMIT).pixels, SMALL) < 4
    for number in (0, 9, 100):
        assert orientation_.read(spots.exif(number, order, value)) == 1


def test_the_first_exif_of_a_file_counts() -> None:
    content = spots.encode(SMALL, "JPEG")
    for number in (3, 8):
        content = spots.with_exif(content, spots.exif(number, ">", "H"))
    assert image.decode(content, LIMIT).exif_orientation == 8


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_grey_palette_and_cmyk_become_rgb(mode: str) -> None:
    source = PillowImage.fromarray(ASTRONAUT).convert(mode)
    stream = io.BytesIO()
    source.save(stream, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 95} if mode == "CMYK" else {}))

    picture = image.decode(stream.getvalue(), LIMIT)

    assert picture.pixels.shape == ASTRONAUT.shape
    assert mean_difference(picture.pixels, np.asarray(source.convert("RGB"))) < 3


def test_sixteen_bits_become_eight() -> None:
    for channels in (slice(0, 1), slice(None)):
        wide = SMALL[..., channels].astype(np.uint16) * 257
        content = cv2.imencode(".png", wide[..., ::-1])[1].tobytes()
        expected = np.broadcast_to(SMALL[..., channels], SMALL.shape)
        assert np.abs(image.decode(content, LIMIT).pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_transparency_is_blended_with_white(bits: int) -> None:
    alpha = np.tile(np.linspace(0, 255, SMALL.shape[1]).astype(np.uint8), (SMALL.shape[0], 1))
    bgra = np.dstack([SMALL[..., ::-1], alpha])
    if bits == 16:
        bgra = bgra.astype(np.uint16) * 257
    content = cv2.imencode(".png", bgra)[1].tobytes()
    share = alpha[..., None] / 255

    expected = SMALL * share + 255 * (1 - share)

    assert np.abs(image.decode(content, LIMIT).pixels - expected).max() <= 1.01


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_fully_transparent_pictures_are_white(mode: str, kind: str) -> None:
    clear = PillowImage.fromarray(np.dstack([SMALL, np.zeros(SMALL.shape[:2], np.uint8)]))
    clear = clear.quantize(16) if mode == "PA" else clear.convert(mode)
    stream = io.BytesIO()
    clear.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))

    assert (image.decode(stream.getvalue(), LIMIT).pixels == 255).all()


@pytest.mark.parametrize("kind", [*KINDS, "progressive"])
def test_a_truncated_header_is_refused_at_every_byte(kind: str) -> None:
    whole = PROGRESSIVE if kind == "progressive" else FILES[kind]

    for length in range(min(len(whole), 300)):
        with pytest.raises((UndecodableImage, EmptyBody)):
            image.decode(whole[:length], LIMIT)


@pytest.mark.parametrize("kind", [*KINDS, "progressive"])
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_at_every_byte(kind: str, fraction: float) -> None:
    whole = PROGRESSIVE if kind == "progressive" else FILES[kind]

    with pytest.raises((UndecodableImage, EmptyBody)):
        image.decode(whole[: int(fraction * len(whole))], LIMIT)


@pytest.mark.parametrize("kind", KINDS)
@given(at=st.integers(0, 2**16), value=st.integers(0, 255))
def test_a_damaged_byte_is_refused_or_survived(kind: str, at: int, value: int) -> None:
    content = bytearray(FILES[kind])
    content[at % len(content)] = value
    with suppress(TooLarge, UnsupportedType, UndecodableImage):
        picture = image.decode(bytes(content), 1_000_000)
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.shape[2] == 3


@given(
    content=st.binary(max_size=200),
    magic=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFFxxxxWEBP", b"\0\0\0\x10ftypavif\0\0\0\0", FILES["PNG"][:33]]
    ),
)
def test_random_bytes_are_refused(content: bytes, magic: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        image.decode(magic + content, LIMIT)
    assert caught.value.status in {400, 413, 415, 422}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_data_after_the_image_is_ignored(kind: str) -> None:
    picture = image.decode(FILES[kind] + FILES[kind], LIMIT)
    np.testing.assert_array_equal(picture.pixels, image.decode(FILES[kind], LIMIT).pixels)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    """Each scan is a pass over all pixels, however few bytes it has: a small file could take minutes to decode."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    many = [PROGRESSIVE[:last] + PROGRESSIVE[last:-2] * count + PROGRESSIVE[-2:] for count in (2, 500)]
    assert image.decode(many[0], LIMIT).size == (96, 64)
    with pytest.raises(UndecodableImage, match=r"50\d scans"):
        image.decode(many[1], LIMIT)


@pytest.mark.parametrize(("scans", "pixels"), [(20, 96 * 64), (40, 2 * 96 * 64), (41, 2 * 96 * 64)])
def test_the_number_of_scans_times_pixels_is_limited(scans: int, pixels: int) -> None:
    """An image of the largest size may have 20 scans, a smaller one more."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    more = scans - PROGRESSIVE.count(b"\xff\xda")
    content = PROGRESSIVE[:last] + PROGRESSIVE[last:-2] * (1 + more) + PROGRESSIVE[-2:]
    if scans <= 40:
        assert image.decode(content, pixels).size == (96, 64)
    else:
        with pytest.raises(UndecodableImage, match=f"at most 40 scans in a JPEG of 96 x 64 pixels, got {scans}"):
            image.decode(content, pixels)


@pytest.mark.parametrize("marker", [0x00, 0x02, 0xBF])
def test_a_marker_that_decoders_skip_is_refused(marker: int) -> None:
    """libjpeg skips FF 00 between segments, and may read another image in what follows."""
    big = cv2.imencode(".jpg", np.zeros((400, 400, 3), np.uint8))[1].tobytes()[2:]
    small = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()[2:]
    hidden = bytes([0xFF, 0xD8, 0xFF, marker]) + struct.pack(">H", len(big) + 2) + big + small
    with pytest.raises(UndecodableImage, match=f"a marker FF {marker:02X} at byte 2"):
        image.decode(hidden, 1000)


def test_an_image_too_wide_for_jpeg_is_refused() -> None:
    wide = np.zeros((1, 70_000, 3), np.uint8)
    assert image.decode(image.encode(wide, "image/png"), LIMIT).size == (70_000, 1)
    with pytest.raises(NotAcceptable, match="got 70000 x 1"):
        image.encode(wide, "image/jpeg")


def test_too_many_pixels_are_refused_from_the_header() -> None:
    with pytest.raises(TooLarge, match=r"at most 32000000 pixels, got 12000 x 12000 = 144000000") as caught:
        image.decode(spots.png_bomb(), LIMIT)
    assert caught.value.extras == {"width": 12000, "height": 12000, "pixels": 144_000_000, "max_pixels": LIMIT}


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_itself_is_allowed(kind: str) -> None:
    assert image.decode(FILES[kind], 96 * 64).size == (64, 96)
    with pytest.raises(TooLarge):
        image.decode(FILES[kind], 96 * 64 - 1)


@pytest.mark.parametrize(
    ("kind", "name"), [("GIF", "a GIF"), ("PNG", "animated PNG"), ("WEBP", "animated WebP"), ("AVIF", "animated AVIF")]
)
def test_animations_are_refused(kind: str, name: str) -> None:
    frames = [PillowImage.fromarray(SMALL), PillowImage.fromarray(SMALL[::-1])]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedType, match=name):
        image.decode(stream.getvalue(), LIMIT)


def boxed(*brands: bytes) -> bytes:
    """Build the first box of an ISO base media file: its major brand, then its compatible ones."""
    return struct.pack(">I", 12 + 4 * len(brands)) + b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:]) + bytes(99)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xff\x0a" + bytes(9), "JPEG XL"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (cv2.imencode(".jp2", SMALL)[1].tobytes(), "JPEG 2000"), (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
        (boxed(b"heic", b"mif1"), "HEIC"),
        (boxed(b"mif1", b"mif1", b"heic"), "HEIC"), (boxed(b"msf1", b"hevc"), "HEIC"),
        (boxed(b"mif1", b"miaf"), "HEIF"), (boxed(b"isom", b"avc1"), "video"), (boxed(b"qt  "), "video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"), (b"8BPS\0\1", "Photoshop file"),
    ],
)  # fmt: skip
def test_unsupported_kinds_are_named(content: bytes, name: str) -> None:
    with pytest.raises(UnsupportedType, match=f"expected a JPEG, PNG or WebP, got a {name}; convert"):
        image.decode(content, LIMIT)


@pytest.mark.skipif(not image.supports_avif(), reason="OpenCV was built without AVIF")
@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("transparent", [False, True])
def test_avif_of_every_depth_is_decoded(bits: int, transparent: bool) -> None:
    stored = np.dstack([SMALL[..., ::-1], np.full(SMALL.shape[:2], 255, np.uint8)][: 1 + transparent])
    if bits > 8:
        stored = (stored.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    parameters = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    content = cv2.imencode(".avif", stored, parameters)[1].tobytes()
    assert mean_difference(image.decode(content, LIMIT).pixels, SMALL) < 5


@pytest.mark.skipif(not image.supports_avif(), reason="OpenCV was built without AVIF")
def test_an_avif_whose_data_is_larger_than_stated_is_refused() -> None:
    """A decoder would decompress the data before it compared the sizes."""
    content = spots.encode(np.zeros((400, 400, 3), np.uint8), "AVIF")
    size = b"ispe" + struct.pack(">III", 0, 400, 400)
    assert content.count(size) == 1
    with pytest.raises(UndecodableImage, match="images of 160000 pixels in a picture of 20 x 20"):
        image.decode(content.replace(size, b"ispe" + struct.pack(">III", 0, 20, 20)), LIMIT)


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_other_kinds_are_named(kind: str) -> None:
    with pytest.raises(UnsupportedType, match=f"expected a JPEG, PNG or WebP, got a {kind}"):
        image.decode(spots.encode(SMALL, kind), LIMIT)


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
def test_encode_and_decode_round_trip(media_type: str) -> None:
    picture = image.decode(image.encode(ASTRONAUT.copy(), media_type), LIMIT)
    assert mean_difference(picture.pixels, ASTRONAUT) < 3
