"""What a JPEG file holds beside its pixels, as it is right for the upright picture."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from .header import DECODER_ERRORS, one_line

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""
SIDEWAYS = 5
"""From this orientation on, an upright picture has the stored one's height as its width."""
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*))[2-8](?=[\"'\s<])")
PHOTOSHOP = b"Photoshop 3.0\0"
APP13 = b"\xff\xed"
PICTURES = 0xB001
"""MPO's tag of how many pictures a file holds."""
MAX_SEGMENT = 65_533
"""Bytes."""

_warnings = Lock()  # their filters are those of the whole process


@contextmanager
def noting_damage(notes: list[str]) -> Iterator[None]:
    """Turn what Pillow warns of, damaged EXIF, into a note."""
    with _warnings, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    damage = [one_line(w.message) for w in told if w.category is UserWarning]
    note = "its metadata is damaged; what could be read is kept"
    if damage and note not in notes:
        notes.append(note)


def upright_dpi(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """Return the resolution of the upright picture; None where a file cannot hold it."""
    if dpi is None or not all(math.isfinite(value) and 1 <= value < 1 << 16 for value in dpi):
        return None
    return (dpi[1], dpi[0]) if orientation >= SIDEWAYS else dpi


def upright_exif(image: JpegImageFile, notes: list[str]) -> tuple[int, bytes | None]:
    """Return the orientation, and EXIF without it; EXIF that cannot be read is left out.

    Where EXIF has no orientation, XMP may have one.
    """
    raw = image.info.get("exif")
    try:
        exif = image.getexif()
        stated = exif.get(ExifTags.Base.Orientation, 1)
        if stated != 1:
            exif[ExifTags.Base.Orientation] = 1
        kept = None if raw is None else raw if stated == 1 else exif.tobytes()
        orientation = stated if stated in TURNS else 1
    except DECODER_ERRORS as error:
        notes.append(f"its EXIF is damaged and was left out: {one_line(error)}")
        return 1, None
    if kept is not None and len(kept) > MAX_SEGMENT:
        notes.append(f"its EXIF was left out: {len(kept):,} bytes, no JPEG segment holds so many")
        return orientation, None
    return orientation, kept


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """Return XMP that says "upright", if it says anything of it."""
    return None if xmp is None else XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def photoshop_segments(image: JpegImageFile) -> bytes:
    """Return the segments with IPTC as they stand in the file, markers and lengths included."""
    found = [data for name, data in image.applist if name == "APP13" and data[:14] == PHOTOSHOP]
    return b"".join(APP13 + (len(data) + 2).to_bytes(2, "big") + data for data in found)


def other_pictures(image: JpegImageFile) -> int:
    """Return how many pictures an MPO file holds behind the first; 0 for every other file."""
    try:
        told = image._getmp()  # Pillow itself tells MPO files by it
        return max(0, int(told[PICTURES]) - 1) if told else 0
    except DECODER_ERRORS:
        return 0
