"""From the bytes of an image file to its luma, with a stated rule for every kind of bad input.

| input | rule |
|---|---|
| formats | JPEG (also MPO), PNG, BMP, TIFF and WebP, told by content, never by the file's name |
| empty, not an image, truncated, damaged | rejected |
| more than `max_pixels`, a side that no JPEG can have | rejected before anything is decoded |
| animated or several pages | rejected; of an MPO the first picture is used, it is the photograph |
| 16-bit, 32-bit or floating-point samples | rejected: scaling to 8 bits is the owner's decision |
| CMYK, Lab and other colour models | rejected: they need a colour profile to become RGB |
| alpha | dropped where every pixel is opaque, otherwise rejected: hidden colours are arbitrary |
| palette | converted to RGB, also when all its colours are grey |
| black and white (1 bit), 2 or 4 bits grey | widened to 0..255 |
| EXIF orientation | applied |
| colour profile, gamma | ignored, as the papers of this field do |
"""

import io

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pipeline.images.jpeg import MAX_SIDE
from pipeline.served.header import DECODER_ERRORS, one_line

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 80_000_000  # below the 89 Mpx from which Pillow warns of a decompression bomb
STRIP_PIXELS = 1 << 15  # so that the temporaries of one strip stay in the cache


class ImageRejected(Exception):  # noqa: N818 - an outcome that is listed, not a failure
    """An image is not usable; the message is the reason, as `kind: detail`."""


def read_luma(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the luma of an image file, (H, W) uint8.

    Grey images are used as they are, colour goes through `rgb_to_luma`. Raises ImageRejected with
    the reason, following the table above; `name` is noted on the exception.
    """
    try:
        return _read(data, max_pixels)
    except ImageRejected as rejected:
        rejected.add_note(f"image {name}")
        raise


def shape_in_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """Return height and width of an image file in pixels, nothing of it decoded.

    They are those of the file, before EXIF turns it. None where `read_luma` would reject what the
    header tells.
    """
    try:
        with _open(data) as image:
            _check_header(image, max_pixels)
            return image.height, image.width
    except ImageRejected:
        return None


def rgb_to_luma(rgb: np.ndarray) -> np.ndarray:
    """Return MATLAB's studio-range luma (16..235) of (H, W, 3) uint8 as (H, W) uint8.

    floor(16 + (65.481 R + 128.553 G + 24.966 B) / 255 + 0.5) in float64, as MATLAB's rgb2ycbcr.
    Raises ValueError for another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"rgb is {rgb.shape} {rgb.dtype}: give (H, W, 3) uint8")
    height, width, _ = rgb.shape
    luma = np.empty((height, width), np.uint8)
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        strip = rgb[top : top + rows]
        total = 65.481 * strip[..., 0]
        total += 128.553 * strip[..., 1]
        total += 24.966 * strip[..., 2]
        total /= 255
        total += 16
        total += 0.5
        luma[top : top + rows] = total  # values are positive: the cast is the floor
    return luma


def _read(data: bytes, max_pixels: int) -> np.ndarray:
    if not data:
        raise ImageRejected("empty: the file has no bytes")
    with _open(data) as image:
        _check_header(image, max_pixels)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except DECODER_ERRORS as error:
            raise ImageRejected(f"damaged or truncated: {one_line(error)}") from error
        return _luma_of(upright)


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageRejected(f"not an image: no whole header of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageRejected("too large: Pillow takes it for a decompression bomb") from error
    except DECODER_ERRORS as error:
        raise ImageRejected(f"damaged or truncated: {one_line(error)}") from error


def _check_header(image: ImageFile.ImageFile, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageRejected(f"too large: {width}x{height} is more than {max_pixels} pixels")
    if max(width, height) > MAX_SIDE:
        raise ImageRejected(f"too large: {width}x{height}, and a JPEG's sides end at {MAX_SIDE}")
    if image.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in image.tile):
        raise ImageRejected(f"more than 8 bits: mode {image.mode}, convert it to 8 bits a sample")
    try:
        frames = getattr(image, "n_frames", 1)
    except DECODER_ERRORS as error:
        raise ImageRejected(f"damaged or truncated: {one_line(error)}") from error
    if frames > 1 and image.format != "MPO":
        raise ImageRejected(f"animated: {frames} frames or pages in one file")


def _luma_of(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        opaque = image.convert("RGBA").getchannel("A").getextrema()[0] == 255
        if not opaque:
            raise ImageRejected("transparent: some pixels are not opaque")
    if image.mode in ("1", "L", "LA"):
        return np.array(image.convert("L") if image.mode == "1" else image.getchannel(0))
    if image.mode in ("P", "PA", "RGB", "RGBA", "RGBX"):
        return rgb_to_luma(np.asarray(image.convert("RGB")))
    raise ImageRejected(f"colour model: {image.mode}, convert it to RGB or grey")
