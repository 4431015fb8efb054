"""Pictures for people: before and after a network, and sheets of patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.drawing.canvas import FAINT, GAP, INK, MARGIN, PAPER, beside, font, page, save
from pipeline.images.metrics import psnr, ssim

Box = tuple[int, int, int]
"""Top, left and side of a square detail, in pixels of the image."""

GAIN, LOSS = "#15803d", "#b91c1c"
MARKS = ("#f59e0b", "#0ea5e9", "#d946ef", "#84cc16")
"""Colours of the details' frames, in turn."""
PANEL = 432
"""Width of a panel in pixels."""
TALLEST = 648
"""Greatest height of a panel in pixels."""
DETAIL_SIDES = (144, 72, 48, 24, 16, 8)
"""Sides that a detail may have: whole JPEG blocks, and enlarged to PANEL by a whole number."""
DETAILS = 2
"""How many are shown enlarged: those where restoration helps most."""
GROUPS_A_ROW = 3
"""Of a contact sheet: patches that stand beside each other."""
CAPTION = 60
"""Height of the two lines under a panel."""
CELL = 160
"""A patch on a contact sheet is enlarged by a whole number, up to this side in pixels."""


@dataclass(frozen=True)
class Version:
    """One of the pictures that are shown side by side."""

    label: str
    luma: np.ndarray


def before_after(
    original: np.ndarray,
    compressed: np.ndarray,
    restored: np.ndarray,
    path: str | Path,
    *,
    title: str = "Before and after",
    subtitle: str = "",
    network: str = "Restored",
) -> None:
    """Write a PNG that shows JPEG, network and original side by side, whole and enlarged.

    Args:
        original: (H, W) uint8, as are `compressed` and `restored`; sides of at least 8 pixels.
        compressed: what the network was given.
        restored: what it made of it.
        path: file or URI of the PNG.
        title: one line, such as the picture's name.
        subtitle: one line, such as dataset, quality factor and bits per pixel.
        network: name over the restored picture.
    """
    versions = (
        Version("JPEG", compressed),
        Version(network, restored),
        Version("Original", original),
    )
    boxes = choose_details(original, compressed, restored, DETAILS)
    rows = [_whole_row(versions, boxes)]
    rows += [_detail_row(versions, box, MARKS[i % len(MARKS)]) for i, box in enumerate(boxes)]
    save(page(rows, title, subtitle), path)


def contact_sheet(
    patches: Sequence[Mapping[str, np.ndarray]],
    path: str | Path,
    *,
    title: str = "Patches",
    subtitle: str = "",
) -> None:
    """Write a PNG with a group of small pictures for every patch.

    Args:
        patches: for every patch its versions, label to (S, S) uint8, the original first, such as
            `{"original": ..., "qf10": ...}`; all patches have the same labels.
        path: file or URI of the PNG.
        title: one line.
        subtitle: one line, such as how many patches there are in all.

    Raises ValueError when there is no patch.
    """
    if not patches:
        raise ValueError("contact sheet: there is no patch to show, build a store with patches")
    groups = [_patch_group(versions) for versions in patches]
    rows = [
        beside(groups[start : start + GROUPS_A_ROW], gap=2 * MARGIN)
        for start in range(0, len(groups), GROUPS_A_ROW)
    ]
    save(page(rows, title, subtitle), path)


def choose_details(
    original: np.ndarray, compressed: np.ndarray, restored: np.ndarray, count: int
) -> list[Box]:
    """Return up to `count` square details that do not overlap, the largest gain first.

    Gain is the squared error B of the JPEG less that of the restored image, both summed over the
    detail, divided by the square root of B: neither the noisiest texture nor the calmest sky wins.
    A detail's side is the largest of DETAIL_SIDES within a quarter of the image's shorter side.
    """
    side = _detail_side(original.shape)
    before, after = (
        _box_sums(np.square(original.astype(np.float64) - image), side)
        for image in (compressed, restored)
    )
    gains = (before - after) / np.sqrt(before + side * side)
    boxes: list[Box] = []
    while len(boxes) < count and np.isfinite(gains).any():
        top, left = (int(i) for i in np.unravel_index(np.argmax(gains), gains.shape))
        boxes.append((top, left, side))
        gains[max(0, top - side + 1) : top + side, max(0, left - side + 1) : left + side] = -np.inf
    return boxes


def _detail_side(shape: tuple[int, ...]) -> int:
    fitting = [side for side in DETAIL_SIDES if side <= min(shape) // 4]
    return fitting[0] if fitting else DETAIL_SIDES[-1]


def _box_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sum (H, W) over every square of `side` pixels: (H - side + 1, W - side + 1)."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]


def _whole_row(versions: Sequence[Version], boxes: Sequence[Box]) -> Image.Image:
    height, width = versions[0].luma.shape
    scale = min(PANEL / width, TALLEST / height)
    panels = []
    for version in versions:
        method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        panel = Image.fromarray(version.luma).resize(size, method).convert("RGB")
        draw = ImageDraw.Draw(panel)
        for i, (top, left, side) in enumerate(boxes):
            corners = [round(edge * scale) for edge in (left, top, left + side, top + side)]
            draw.rectangle(corners, outline=MARKS[i % len(MARKS)], width=3)
        panels.append(panel)
    return _captioned(versions, panels, versions)


def _detail_row(versions: Sequence[Version], box: Box, mark: str) -> Image.Image:
    top, left, side = box
    cuts = [
        Version(v.label, np.ascontiguousarray(v.luma[top : top + side, left : left + side]))
        for v in versions
    ]
    panels = []
    for cut in cuts:
        panel = Image.fromarray(cut.luma).resize((PANEL, PANEL), Image.Resampling.NEAREST)
        panel = panel.convert("RGB")
        ImageDraw.Draw(panel).rectangle((0, 0, PANEL - 1, PANEL - 1), outline=mark, width=5)
        panels.append(panel)
    return _captioned(cuts, panels, versions, enlarged=f"detail, {PANEL // side}x")


def _captioned(
    shown: Sequence[Version],
    panels: Sequence[Image.Image],
    versions: Sequence[Version],
    enlarged: str = "",
) -> Image.Image:
    """Put name, PSNR, SSIM and the gain over the first version under each panel."""
    original = shown[-1].luma
    first = psnr(original, shown[0].luma)
    captioned = []
    for i, (version, panel) in enumerate(zip(shown, panels, strict=True)):
        canvas = Image.new("RGB", (PANEL, panel.height + CAPTION), PAPER)
        canvas.paste(panel)
        draw = ImageDraw.Draw(canvas)
        baseline = panel.height + 10
        draw.text((0, baseline), version.label, INK, font(20))
        captioned.append(canvas)
        if i == len(shown) - 1:
            draw.text((0, baseline + 25), enlarged, FAINT, font(16))
            continue
        value = psnr(original, version.luma)
        score = f"{value:.2f} dB   SSIM {ssim(original, version.luma):.4f}"
        draw.text((0, baseline + 25), score, FAINT, font(16))
        if i > 0:
            gain = value - first
            colour = GAIN if gain >= 0 else LOSS
            draw.text((PANEL, baseline), f"{gain:+.2f} dB", colour, font(20), anchor="ra")
    return beside(captioned, gap=GAP)


def _patch_group(versions: Mapping[str, np.ndarray]) -> Image.Image:
    original = next(iter(versions.values()))
    height, width = (side * max(1, CELL // max(original.shape)) for side in original.shape)
    cells = []
    for label, luma in versions.items():
        cell = Image.new("RGB", (width, height + 28), PAPER)
        cell.paste(Image.fromarray(luma).resize((width, height), Image.Resampling.NEAREST))
        draw = ImageDraw.Draw(cell)
        draw.text((0, height + 5), label, INK, font(14))
        if luma is not original:
            text = f"{psnr(original, luma):.1f} dB"
            draw.text((width, height + 5), text, FAINT, font(14), anchor="ra")
        cells.append(cell)
    return beside(cells, gap=10)
