"""AR-CNN's three easy-hard transfers at equal steps, with and without, as curves on BSDS500 val.

Usage: python -m tests.benchmarks.transfers STEPS SEEDS STORES [JOBS]
       python -m tests.benchmarks.transfers draw

QFACTORY_DATASETS names the folder of BSDS500; STORES is a folder for patch stores and checkpoints,
JOBS how many trainings run beside each other (default: the cores). Every recipe of
`qfactory analyze recipes arcnn-fig6-fast` to `-fig8-fast` is trained once a seed, on the 400 images
of train and test, those that others start from first. Results go to results/transfers.json, and
drawn to transfers.png beside it.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import torch

from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.patches.build_store import build_store
from pipeline.recipes.base import Recipe
from pipeline.recipes.comparisons import get_comparison, on_a_budget
from pipeline.training.job import ALONE, TrainingJob
from pipeline.training.loop import train
from storage.patches.schema import PatchSpec
from tests.benchmarks.machine import machine

FIGURES = {figure: f"arcnn-{figure}-fast" for figure in ("fig6", "fig7", "fig8")}
TRAINED_ON, LOOKS_AT = "bsds500:train+test", "bsds500:val"
RESULTS = Path(__file__).parent / "results" / "transfers.json"

Curve = list[list[float]]
"""Pairs of optimiser steps and PSNR in dB."""

logger = logging.getLogger(__name__)


def compared(steps: int) -> list[Recipe]:
    """Return every recipe of the three figures, those that they start from in front."""
    recipes = [recipe for name in FIGURES.values() for recipe in get_comparison(name).recipes]
    return [
        replace(recipe, validation_share=0.0, validation_set=LOOKS_AT)
        for recipe in on_a_budget(recipes, steps)
    ]


def make_store(stores: Path, spec: PatchSpec, dataset: str, pool: ProcessPoolExecutor) -> Path:
    """Build the store of a dataset's images, unless it is there; return its folder."""
    root = os.environ["QFACTORY_DATASETS"]
    folder = stores / f"{dataset.replace(':', '-')}-{spec.fingerprint[:8]}"
    images = scan_images(list_images(dataset, root=root, purpose="train"))
    build_store(str(folder), spec, images, dataset, parallel=pool.map)
    return folder


def curve(job: TrainingJob) -> Curve:
    """Train and return what the looks at the validation set found."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = train(job, world=replace(ALONE, device=device))
    return [[r.step, round(r.validation_psnr, 4)] for r in result.history if r.validation_psnr]


def curves(steps: int, seeds: int, stores: Path, jobs: int) -> dict[str, list[Curve]]:
    """Train every recipe with every seed and return the curves by recipe."""
    recipes = compared(steps)
    trained: dict[str, list[Curve]] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        folders = {
            spec: make_store(stores, spec, dataset, pool)
            for recipe in recipes
            for spec, dataset in (
                (recipe.patches, TRAINED_ON),
                (recipe.validation_patches, LOOKS_AT),
            )
        }

        def job(recipe: Recipe, seed: int) -> TrainingJob:
            out = stores / "trained" / f"{steps}-steps"
            start = recipe.init_from
            first = start and out / f"{start.recipe}-{seed}" / "weights.safetensors"
            return TrainingJob(
                recipe=replace(recipe, seed=seed),
                store=str(folders[recipe.patches]),
                validation_store=str(folders[recipe.validation_patches]),
                checkpoints=str(out / f"{recipe.name}-{seed}"),
                initial_weights=first and str(first),
                threads=1,
            )

        from_scratch = [recipe for recipe in recipes if recipe.init_from is None]
        for wave in (from_scratch, [recipe for recipe in recipes if recipe.init_from]):
            asked = [job(recipe, seed) for recipe in wave for seed in range(seeds)]
            for one, found in zip(asked, pool.map(curve, asked), strict=True):
                trained.setdefault(one.recipe.name, []).append(found)
                logger.info("%s, seed %d: %s", one.recipe.name, one.recipe.seed, found[-1:])
    return trained


def averaged(found: Iterable[Curve]) -> Curve:
    """Return the mean over the seeds, step by step."""
    return [
        [looks[0][0], round(mean(psnr for _, psnr in looks), 4)]
        for looks in zip(*found, strict=True)
    ]


def steps_to(points: Curve, psnr: float) -> int | None:
    """Return the step of the first look with at least this PSNR; None if there is none."""
    return next((int(step) for step, reached in points if reached >= psnr), None)


def summary(figure: str, trained: dict[str, list[Curve]]) -> dict[str, dict[str, object]]:
    """Return where each recipe of a figure ends, and when it reaches what the first one ends at."""
    names = [recipe.name for recipe in get_comparison(FIGURES[figure]).recipes]
    points = {name: averaged(trained[name]) for name in names}
    base = points[names[0]][-1][1]
    return {
        name: {
            "last_psnr_by_seed": [found[-1][1] for found in trained[name]],
            "last_psnr": points[name][-1][1],
            "steps_to_the_base": steps_to(points[name], base),
            "curve": points[name],
        }
        for name in names
    }


def draw() -> None:
    """Draw the results, a chart a figure above each other."""
    from io import BytesIO  # what draws is not needed where networks are trained

    from PIL import Image

    from pipeline.drawing.charts import line_chart, png_of

    results = json.loads(RESULTS.read_text())
    charts = []
    for figure, rows in results["figures"].items():
        comparison = get_comparison(FIGURES[figure])
        charts.append(
            line_chart(
                {name: row["curve"] for name, row in rows.items()},
                title=f"{comparison.title} ({comparison.source})",
                x_label="optimiser steps",
                y_label=f"PSNR on {LOOKS_AT}, dB, mean of {results['seeds']} seeds",
            )
        )
    pictures = [Image.open(BytesIO(png_of(chart))) for chart in charts]
    sheet = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white"
    )
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    sheet.save(RESULTS.with_suffix(".png"), optimize=True)


def main() -> None:
    """Train and write the result file, or draw it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if sys.argv[1:] == ["draw"]:
        draw()
        return
    steps, seeds, stores = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).absolute()
    jobs = int(sys.argv[4]) if len(sys.argv) > 4 else os.cpu_count() or 1
    started = time.perf_counter()
    trained = curves(steps, seeds, stores, jobs)
    results = {
        "command": f"python -m tests.benchmarks.transfers {steps} {seeds} STORES {jobs}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "steps": steps,
        "seeds": seeds,
        "figures": {figure: summary(figure, trained) for figure in FIGURES},
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
