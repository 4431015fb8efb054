"""The plain page that pictures for people are put on: title, rows, PNG file."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from storage import files

PAPER, INK, FAINT = "#ffffff", "#1a1d21", "#6b7280"
MARGIN = 32
"""Pixels around a page."""
GAP = 24
"""Pixels between what stands side by side or one above the other."""


def page(rows: Sequence[Image.Image], title: str, subtitle: str) -> Image.Image:
    """Put rows below each other under a title and a smaller line, which may be empty."""
    header = 112 if subtitle else 82
    width = max(row.width for row in rows) + 2 * MARGIN
    height = header + sum(row.height + GAP for row in rows) + MARGIN - GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 24), title, INK, font(30))
    draw.text((MARGIN, 66), subtitle, FAINT, font(18))
    top = header
    for row in rows:
        sheet.paste(row, (MARGIN, top))
        top += row.height + GAP
    return sheet


def beside(images: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put images side by side, their upper edges in line, `gap` pixels between them."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, max(image.height for image in images)), PAPER)
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow, `size` in pixels."""
    return ImageFont.load_default(size)


def save(sheet: Image.Image, path: str | Path) -> None:
    """Write a PNG to a path or URI."""
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    files.write_bytes(str(path), content.getvalue())
