"""A picture of what the patches of a store measure: luma, and JPEG's quality against its bits."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.drawing.canvas import page, save
from pipeline.drawing.charts import Chart, Point, line_chart, png_of, scatter_chart


def statistics_picture(
    path: str | Path,
    *,
    title: str,
    subtitle: str,
    luma: Sequence[int],
    quality: Sequence[tuple[int, float, float]],
) -> None:
    """Write a PNG with a luma histogram and, where there are any, quality factors below it.

    Args:
        path: file or URI of the PNG.
        title: one line, such as the store's name.
        subtitle: one line, such as how many patches were measured.
        luma: pixels with luma 0, 1, ... 255, at least one pixel in all.
        quality: (quality factor, bits per pixel, PSNR in dB), one each.
    """
    total = sum(luma)
    shares = [(float(level), 100 * count / total) for level, count in enumerate(luma)]
    charts = [
        line_chart(
            {"originals": shares},
            title="Luma of the originals",
            x_label="luma",
            y_label="share of pixels, %",
        )
    ]
    if quality:
        points = [Point(label=f"QF {qf}", x=bpp, y=psnr, group="JPEG") for qf, bpp, psnr in quality]
        charts.append(
            scatter_chart(
                points,
                title="What JPEG costs and what it loses",
                x_label="bits per pixel",
                y_label="PSNR, dB",
            )
        )
    save(page([_drawn(chart) for chart in charts], title, subtitle), path)


def _drawn(chart: Chart) -> Image.Image:
    with Image.open(io.BytesIO(png_of(chart))) as image:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
