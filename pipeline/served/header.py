"""The header of a JPEG file: what is special about it, told before anything is decoded."""

import struct
import zlib

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
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
HIERARCHICAL = {0xC5, 0xC6, 0xCD, 0xCE}


class PhotographRejected(ValueError):  # noqa: N818 - an outcome that is listed, not a failure
    """A file is not a JPEG photograph that can be restored; the message is the reason."""


def check_frame(data: bytes, max_pixels: int) -> None:
    """Raise PhotographRejected for a file whose header says that it cannot be restored."""
    if not data:
        raise PhotographRejected("empty: the file has no bytes")
    if data[:3] != b"\xff\xd8\xff":
        raise PhotographRejected("not a JPEG: it does not begin as one")
    marker, bits, height, width = _frame(data)
    if marker in LOSSLESS | HIERARCHICAL:
        kind = "lossless" if marker in LOSSLESS else "hierarchical"
        raise PhotographRejected(f"{kind} JPEG: convert it to baseline or progressive")
    if bits != 8:
        raise PhotographRejected(f"{bits} bits a sample: convert it to 8 bits")
    if width * height > max_pixels:
        raise PhotographRejected(
            f"too large: {width}x{height} is more than {max_pixels:,} pixels; raise the cap to "
            "restore it"
        )


def pixels_of(data: bytes) -> int:
    """Return how many pixels a JPEG's header tells of; 0 where there is no whole one."""
    if data[:3] != b"\xff\xd8\xff":
        return 0
    try:
        _, _, height, width = _frame(data)
    except PhotographRejected:
        return 0
    return height * width


def _frame(data: bytes) -> tuple[int, int, int, int]:
    """Return the frame's marker, which tells the coding, bits a sample, height and width."""
    at = 2
    while at + 9 <= len(data) and data[at] == MARKER:
        kind = data[at + 1]
        if kind in FRAMES:
            return kind, *struct.unpack(">BHH", data[at + 4 : at + 9])
        fill = kind == MARKER
        at += 1 if fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise PhotographRejected("damaged: no whole JPEG header")


def one_line(error: Exception | str) -> str:
    """Return an error's message, or its type's name, as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
