"""JPEG photographs: their bytes to luma, quantisation table and all the rest, and back to a file.

Only luma is restored. Chroma, colour profile, EXIF and the other metadata go from the photograph to
the new file as they are; the EXIF orientation is applied to the pixels and then says "upright".
A JPEG's luma is full-range, 0 to 255 (JFIF), and is given to networks as it is.
"""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile
from PIL.PngImagePlugin import PngInfo

MAX_PIXELS = 80_000_000
MIN_SIDE = 8
"""Networks take at least this many pixels in height and width; smaller luma is padded for them."""
DECODER_ERRORS = (  # what Pillow's readers raise on damaged files
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)
MARKER = 0xFF
END_OF_IMAGE = b"\xff\xd9"
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
HIERARCHICAL = {0xC5, 0xC6, 0xCD, 0xCE}
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


class PhotographRejected(ValueError):  # noqa: N818 - an outcome that is listed, not a failure
    """A file is not a JPEG photograph that can be restored; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A decoded JPEG, as it is stored: not turned upright yet."""

    luma: np.ndarray
    """(H, W) uint8, 0 to 255, as the decoder gives it."""
    chroma: tuple[Image.Image, Image.Image] | None
    """Cb and Cr at luma's size; None for a grey JPEG."""
    table: np.ndarray
    """The file's quantisation table of luma, (8, 8) uint8, rows of rising vertical frequency."""
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    exif: bytes | None = None
    """EXIF that says "upright"."""
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    comment: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    """What was wrong with the file, if something was and it could be decoded all the same."""


def read_photograph(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Decode a JPEG: grey or colour, any size and chroma subsampling, also MPO's first picture.

    A truncated file is decoded as far as it goes, and `notes` says so. Raises PhotographRejected,
    before anything is decoded, for other formats, CMYK, more than 8 bits a sample, lossless JPEG,
    and more than `max_pixels`; and for a file of which nothing can be decoded.
    """
    _check_frame(data)
    notes: list[str] = []
    image = _open(data)
    if image.width * image.height > max_pixels:
        raise PhotographRejected(
            f"too large: {image.width}x{image.height} is more than {max_pixels:,} pixels; raise "
            "the cap to restore it"
        )
    if image.mode not in ("L", "RGB"):
        raise PhotographRejected(f"colour model: {image.mode}, convert it to RGB or grey")
    try:
        planes = _planes(image)
    except DECODER_ERRORS:
        image = _open(data + END_OF_IMAGE)  # the decoder fills up what is missing
        try:
            planes = _planes(image)
        except DECODER_ERRORS as error:
            raise PhotographRejected(f"damaged: {_one_line(error)}") from error
        notes.append("truncated or damaged: what could not be decoded is blank")
    orientation, exif = _exif(image, notes)
    info = image.info
    return Photograph(
        luma=np.array(planes[0]),
        chroma=(planes[1], planes[2]) if len(planes) == 3 else None,
        table=_table(image),
        orientation=orientation,
        exif=exif,
        icc_profile=info.get("icc_profile"),
        xmp=info.get("xmp"),
        comment=info.get("comment"),
        dpi=info.get("dpi"),
        notes=tuple(notes),
    )


def png_of(photograph: Photograph, luma: np.ndarray) -> bytes:
    """Return a PNG of the photograph with this luma, (H, W) uint8, upright, its metadata kept."""
    texts = PngInfo()
    if photograph.xmp is not None:
        texts.add_itxt("XML:com.adobe.xmp", photograph.xmp.decode("utf-8", "replace"))
    if photograph.comment is not None:
        texts.add_itxt("Comment", photograph.comment.decode("utf-8", "replace"))
    return _encoded(photograph, luma, "PNG", {"pnginfo": texts})


def jpeg_of(photograph: Photograph, luma: np.ndarray, quality: int = 95) -> bytes:
    """Return a JPEG of the photograph with this luma, without chroma subsampling, metadata kept."""
    options: dict[str, object] = {"quality": quality, "subsampling": "4:4:4", "optimize": True}
    options |= {
        name: value
        for name, value in (("xmp", photograph.xmp), ("comment", photograph.comment))
        if value is not None
    }
    return _encoded(photograph, luma, "JPEG", options)


def padded(luma: np.ndarray) -> np.ndarray:
    """Repeat the last row and column until both sides have MIN_SIDE pixels."""
    missing = [max(0, MIN_SIDE - side) for side in luma.shape]
    return np.pad(luma, [(0, rows) for rows in missing], mode="edge") if any(missing) else luma


def _encoded(
    photograph: Photograph, luma: np.ndarray, kind: str, options: dict[str, object]
) -> bytes:
    if luma.shape != photograph.luma.shape or luma.dtype != np.uint8:
        raise ValueError(
            f"luma is {luma.shape} {luma.dtype}, the photograph's {photograph.luma.shape} uint8"
        )
    image = Image.fromarray(luma)
    if photograph.chroma is not None:
        image = Image.merge("YCbCr", (image, *photograph.chroma)).convert("RGB")
    if photograph.orientation in TURNS:
        image = image.transpose(TURNS[photograph.orientation])
    kept = {
        "exif": photograph.exif,
        "icc_profile": photograph.icc_profile,
        "dpi": photograph.dpi,
    }
    file = io.BytesIO()
    given = {name: value for name, value in kept.items() if value is not None}
    image.save(file, kind, **given, **options)
    return file.getvalue()


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=("JPEG", "MPO"))
    except DECODER_ERRORS as error:  # UnidentifiedImageError is an OSError
        raise PhotographRejected(f"damaged: no whole JPEG header ({_one_line(error)})") from error


def _planes(image: ImageFile.ImageFile) -> tuple[Image.Image, ...]:
    """Decode luma, and chroma if there is some, not by way of RGB unless the file holds RGB."""
    if image.mode == "L":
        image.load()
        return (image.copy(),)
    if image.info.get("adobe_transform") == 0:  # stored as RGB: the decoder cannot give YCbCr
        image.load()
        return image.convert("YCbCr").split()
    image.draft("YCbCr", image.size)
    image.load()
    return image.split()


def _table(image: ImageFile.ImageFile) -> np.ndarray:
    tables = image.quantization  # type: ignore[attr-defined]  # JpegImageFile has it
    first = image.layer[0][3] if getattr(image, "layer", None) else min(tables)  # type: ignore[attr-defined]
    values = np.array(tables[first], np.int64).reshape(8, 8)
    return np.clip(values, 1, 255).astype(np.uint8)


def _exif(image: ImageFile.ImageFile, notes: list[str]) -> tuple[int, bytes | None]:
    """Return the orientation, and the EXIF without it; EXIF that cannot be read is dropped."""
    if not image.info.get("exif"):
        return 1, None
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        return orientation if orientation in TURNS else 1, exif.tobytes()
    except DECODER_ERRORS as error:
        notes.append(f"its EXIF is damaged and was left out: {_one_line(error)}")
        return 1, None


def _check_frame(data: bytes) -> None:
    """Look at the frame header: Pillow's own errors do not say what is special about a file."""
    if not data:
        raise PhotographRejected("empty: the file has no bytes")
    if data[:3] != b"\xff\xd8\xff":
        raise PhotographRejected("not a JPEG: it does not begin as one")
    marker, bits = _frame(data)
    if bits != 8:
        raise PhotographRejected(f"{bits} bits a sample: convert it to 8 bits")
    if marker in LOSSLESS | HIERARCHICAL:
        kind = "lossless" if marker in LOSSLESS else "hierarchical"
        raise PhotographRejected(f"{kind} JPEG: convert it to baseline or progressive")


def _frame(data: bytes) -> tuple[int, int]:
    """Return the frame's marker, which tells the coding, and its bits a sample."""
    at = 2
    while at + 4 < len(data) and data[at] == MARKER:
        kind = data[at + 1]
        if kind in FRAMES:
            return kind, data[at + 4]
        fill = kind == MARKER
        at += 1 if fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise PhotographRejected("damaged: no whole JPEG header")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
