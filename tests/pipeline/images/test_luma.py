"""Reading luma: the pinned colour rule, and one real file for every kind of bad input."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.images.luma import ImageRejected, read_luma, rgb_to_luma

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (24, 40, 3), np.uint8)
GREY = RGB[..., 0].copy()


def saved(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png(image: Image.Image | np.ndarray, **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return saved(image, "PNG", **options)


def png_16_bit_rgb() -> bytes:
    """A PNG of 16 bits a sample, which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def oversized_bmp(width: int, height: int) -> bytes:
    """A BMP whose header promises far more pixels than it holds."""
    data = bytearray(saved(Image.fromarray(RGB), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def test_luma_equals_the_float64_formula_for_every_colour():
    green, blue = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    for red in range(256):
        colours = np.stack([np.full_like(green, red), green, blue], axis=-1)
        r, g, b = colours.astype(np.float64).transpose(2, 0, 1)
        expected = np.floor(16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255 + 0.5)
        assert np.array_equal(rgb_to_luma(colours.astype(np.uint8)), expected)


def test_luma_of_known_colours_is_matlabs():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]]], np.uint8)
    assert rgb_to_luma(colours).tolist() == [[16, 235, 81, 145]]


def test_luma_does_not_depend_on_how_the_image_is_cut_into_strips():
    tall = RNG.integers(0, 256, (900, 70, 3), np.uint8)
    assert np.array_equal(rgb_to_luma(tall)[450:], rgb_to_luma(tall[450:]))


def test_luma_refuses_what_is_not_8_bit_rgb():
    with pytest.raises(ValueError, match="give \\(H, W, 3\\) uint8"):
        rgb_to_luma(RGB.astype(np.float32))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_colour_files_go_through_the_luma_rule(file_format, options):
    data = saved(Image.fromarray(RGB), file_format, **options)
    assert np.array_equal(read_luma(data, "colour"), rgb_to_luma(RGB))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_grey_files_are_used_as_they_are(file_format):
    assert np.array_equal(read_luma(saved(Image.fromarray(GREY), file_format), "grey"), GREY)


def test_a_jpeg_gives_what_its_decoder_gives():
    data = saved(Image.fromarray(RGB), "JPEG", quality=90)
    decoded = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(read_luma(data, "photo.jpg"), rgb_to_luma(decoded))


def test_the_first_picture_of_an_mpo_is_the_photograph():
    photo = Image.fromarray(RGB)
    data = saved(photo, "MPO", save_all=True, append_images=[photo.rotate(180)], quality=95)
    alone = saved(photo, "JPEG", quality=95)
    assert np.array_equal(read_luma(data, "phone.jpg"), read_luma(alone, "phone.jpg"))


def test_a_palette_becomes_colour():
    paletted = Image.fromarray(RGB).quantize(32)
    expected = rgb_to_luma(np.asarray(paletted.convert("RGB")))
    assert np.array_equal(read_luma(png(paletted), "palette"), expected)


def test_black_and_white_becomes_0_and_255():
    bilevel = Image.fromarray(GREY > 127)
    assert np.array_equal(read_luma(png(bilevel), "fax"), np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_without_effect_is_dropped(mode):
    source = Image.fromarray(RGB if mode == "RGBA" else GREY)
    expected = rgb_to_luma(RGB) if mode == "RGBA" else GREY
    assert np.array_equal(read_luma(png(source.convert(mode)), "opaque"), expected)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied(file_format, orientation, turn):
    block = np.repeat(np.repeat(RGB[:3, :5], 8, axis=0), 8, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(file_format, {})
    plain = read_luma(saved(Image.fromarray(block), file_format, **options), "plain")
    turned = read_luma(saved(Image.fromarray(block), file_format, exif=exif, **options), "turned")
    assert np.array_equal(turned, np.rot90(plain, turn))


REJECTED = {
    "empty": (b"", "empty"),
    "text": (b"these are not pixels", "not an image"),
    "another format": (saved(Image.fromarray(GREY), "GIF"), "not an image"),
    "half a JPEG": (saved(Image.fromarray(RGB), "JPEG", quality=95)[:1200], "truncated"),
    "half a PNG": (png(RGB)[:1200], "truncated"),
    "half a BMP": (saved(Image.fromarray(RGB), "BMP")[:1200], "truncated"),
    "half a TIFF": (saved(Image.fromarray(RGB), "TIFF")[:1200], "truncated|not an image"),
    "half a WebP": (saved(Image.fromarray(RGB), "WEBP", lossless=True)[:1200], "truncated"),
    "half a header": (png(RGB)[:20], "truncated|no whole header"),
    "a flipped byte": (png(RGB)[:700] + b"\xa5" + png(RGB)[701:], "damaged"),
    "16-bit grey PNG": (png(GREY.astype(np.uint16) * 257), "more than 8 bits"),
    "16-bit colour PNG": (png_16_bit_rgb(), "more than 8 bits"),
    "16-bit TIFF": (saved(Image.fromarray(GREY.astype(np.uint16)), "TIFF"), "more than 8 bits"),
    "float TIFF": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "more than 8 bits"),
    "CMYK JPEG": (saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "colour model: CMYK"),
    "Lab TIFF": (saved(Image.fromarray(np.zeros_like(RGB), "LAB"), "TIFF"), "colour model: LAB"),
    "transparent PNG": (png(np.dstack([RGB, GREY])), "transparent"),
    "transparent palette": (png(Image.fromarray(RGB).quantize(8), transparency=0), "transparent"),
    "transparent grey": (png(GREY, transparency=int(GREY[0, 0])), "transparent"),
    "animated PNG": (
        png(RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)]),
        "animated: 2",
    ),
    "animated WebP": (
        saved(
            Image.fromarray(RGB), "WEBP", save_all=True, append_images=[Image.new("L", (40, 24))]
        ),
        "animated: 2",
    ),
    "TIFF of two pages": (
        saved(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
        "animated: 2",
    ),
    "a bomb": (oversized_bmp(30_000, 30_000), "too large"),
    "a bomb just above the cap": (oversized_bmp(9_000, 9_000), "too large: 9000x9000"),
    "a compressed bomb": (png(Image.new("1", (20_000, 20_000))), "too large"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REJECTED)
def test_unusable_files_are_rejected_with_the_reason(case):
    data, reason = REJECTED[case]
    with pytest.raises(ImageRejected, match=reason) as rejected:
        read_luma(data, "somewhere/file.png")
    assert rejected.value.__notes__ == ["image somewhere/file.png"]


def test_the_pixel_cap_is_inclusive():
    assert read_luma(png(GREY), "fits", max_pixels=GREY.size).shape == GREY.shape
    with pytest.raises(ImageRejected, match="40x24 is more than 959 pixels"):
        read_luma(png(GREY), "does not", max_pixels=GREY.size - 1)


def test_every_truncation_of_a_photograph_is_noticed():
    data = saved(Image.fromarray(RGB), "JPEG", quality=90)
    for length in range(len(data) - 2):
        with pytest.raises(ImageRejected):
            read_luma(data[:length], "cut.jpg")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_random_damage_gives_an_image_or_a_reason_never_another_error(file_format):
    good = saved(Image.fromarray(RGB), file_format)
    rng = np.random.default_rng((1, len(good)))
    for _ in range(400):
        damaged = bytearray(good)
        for position in rng.integers(0, min(len(good), 300), rng.integers(1, 6)):
            damaged[position] = rng.integers(0, 256)
        with contextlib.suppress(ImageRejected):
            assert read_luma(bytes(damaged), "damaged").dtype == np.uint8


def test_a_side_that_no_jpeg_can_have_is_rejected():
    long = saved(Image.fromarray(np.zeros((8, 65_501), np.uint8)), "PNG")
    with pytest.raises(ImageRejected, match="too large: 65501x8"):
        read_luma(long, "long")
