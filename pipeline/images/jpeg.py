"""Grey JPEG as the evaluation protocol uses it: Pillow's encoder and decoder, default settings."""

import io
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_SIDE = 65_500  # libjpeg's limit


def encode(luma: np.ndarray, qf: int) -> bytes:
    """Return the one-channel JPEG of (H, W) uint8 at quality factor `qf`, 1 to 100.

    Raises ValueError for another quality factor, type, shape, or a side above 65,500 pixels.
    """
    _check_qf(qf)
    if luma.ndim != 2 or luma.dtype != np.uint8 or not luma.size or max(luma.shape) > MAX_SIDE:
        raise ValueError(
            f"luma is {luma.shape} {luma.dtype}: give (H, W) uint8 with sides up to {MAX_SIDE}"
        )
    file = io.BytesIO()
    Image.fromarray(luma).save(file, "JPEG", quality=qf)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Return the pixels of a one-channel JPEG, (H, W) uint8. Raises ValueError for colour."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if image.mode != "L":
            raise ValueError(f"the JPEG's mode is {image.mode}: only grey (L) is decoded here")
        return np.array(image)


def compress(luma: np.ndarray, qf: int) -> tuple[np.ndarray, int]:
    """Return what (H, W) uint8 looks like after JPEG at `qf`, and the bytes that the JPEG takes."""
    data = encode(luma, qf)
    return decode(data), len(data)


def table_of(data: bytes) -> np.ndarray:
    """Return a JPEG file's own luma quantisation table, (8, 8) uint16, rows from the top.

    Whoever wrote it may have used other tables than those of a quality factor. Raises ValueError
    for what is not a JPEG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            table = image.quantization[0]  # type: ignore[attr-defined]  # JpegImageFile has it
    except (UnidentifiedImageError, OSError, KeyError) as error:
        raise ValueError(
            f"its quantisation table cannot be read: not a whole JPEG ({error})"
        ) from error
    return np.array(table, np.uint16).reshape(8, 8)


@cache
def _table(qf: int) -> tuple[int, ...]:
    return tuple(table_of(encode(np.zeros((8, 8), np.uint8), qf)).ravel().tolist())


def quantization_table(qf: int) -> np.ndarray:
    """Return the luma quantisation table at `qf`, (8, 8) uint16 in natural (row by row) order.

    It is read out of a JPEG that the encoder wrote, so it is what was really used.
    """
    return np.array(_table(qf), np.uint16).reshape(8, 8)


def _check_qf(qf: int) -> None:
    if not 1 <= qf <= 100:
        raise ValueError(f"QF {qf}: choose 1 to 100")
