"""How well training uses the machine: share of its peak, and real against synthetic data.

Usage: python -m tests.benchmarks.training STORES RECIPE...
STORES is a folder whose subfolders are patch stores; each recipe takes one that fits it. A step on
batches from the store is timed beside a step on one batch that stays on the device, in turn, and
beside a large matrix product of the same type, the peak that this chip really reaches. It needs
neither Ray, Prefect nor MLflow. Results go to results/training.json.
"""

import json
import logging
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path

import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from models import build_model
from models.complexity import multiply_adds_per_pixel
from pipeline.averaging import WeightAverage
from pipeline.loader import Batch, PatchLoader
from pipeline.recipes import get_recipe
from pipeline.recipes.base import Recipe, Stage
from pipeline.training_job import World
from pipeline.training_start import check_store
from pipeline.training_step import StageStep
from storage.patch_store import StoreVersion, open_store
from storage.schema import StoreError
from tests.benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results" / "training.json"
ROUNDS = 3
SECONDS = 4.0
MAX_STEPS = 200
FORWARD_AND_BACKWARD = 3
"""A training step takes three times the work of the forward pass: once forward, and backward once
for the activations and once for the weights."""
DATASHEET_FLOPS = {"H100": 989e12, "H200": 989e12}
"""Dense bfloat16 of the SXM modules (NVIDIA's data sheets)."""

logger = logging.getLogger(__name__)


def longest_stage(recipe: Recipe) -> tuple[int, Stage]:
    """Return the stage with the most pixels to train on, and its place."""

    def work(found: tuple[int, Stage]) -> int:
        stage = found[1]
        return stage.steps * stage.batch * (stage.side or recipe.patches.side) ** 2

    return max(enumerate(recipe.stages), key=work)


def fitting_store(folder: Path, recipe: Recipe) -> StoreVersion:
    """Return the first store below a folder that a recipe can train on."""
    reasons = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            store = open_store(str(path))
            check_store(recipe, store)
        except StoreError as error:
            reasons.append(str(error))
        else:
            return store
    raise SystemExit("\n".join([f"no store below {folder} fits {recipe.name}", *reasons]))


def steps_per_second(
    take: Callable[[Batch], object], batches: Iterator[Batch], device: torch.device
) -> float:
    """Time steps for SECONDS, at least 2 and at most MAX_STEPS of them."""
    _wait_for(device)
    start, done = time.perf_counter(), 0
    while done < 2 or (done < MAX_STEPS and time.perf_counter() - start < SECONDS):
        take(next(batches))
        done += 1
        if done % 10 == 0:
            _wait_for(device)
    _wait_for(device)
    return done / (time.perf_counter() - start)


def measure(recipe: Recipe, store: StoreVersion, device: torch.device, peak: float) -> dict:
    """Return what training a recipe's longest stage does on this machine."""
    index, stage = longest_stage(recipe)
    torch.manual_seed(0)
    network = build_model(recipe.architecture, recipe.options).to(device)
    work = multiply_adds_per_pixel(network)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        convert_conv2d_weight_memory_format(network, torch.channels_last)
    average = None if recipe.ema_decay is None else WeightAverage(network, recipe.ema_decay)
    steps = StageStep(recipe, stage, World(device=device), network, network.train(), average)
    loader = PatchLoader(
        store,
        recipe.qfs,
        stage.batch,
        seed=(recipe.seed, index),
        side=stage.side,
        pin_memory=device.type == "cuda",
    )
    with closing(loader.batches()) as real:
        first = next(real)
        kept = replace(
            first,
            original=first.original.to(device),
            degraded=first.degraded.to(device),
            tables=first.tables.to(device),
        )

        def take(batch: Batch) -> object:
            return steps.take(0, 1e-6, batch)

        take(kept)  # warm-up: kernels are chosen, buffers allotted
        take(first)
        rounds = [
            (
                steps_per_second(take, repeat(kept), device),
                steps_per_second(take, real, device),
            )
            for _ in range(ROUNDS)
        ]
    synthetic, streamed = (statistics.median(values) for values in zip(*rounds, strict=True))
    side = stage.side or recipe.patches.side
    flops = 2 * work * FORWARD_AND_BACKWARD * side**2 * stage.batch * streamed
    return {
        "stage": stage.name,
        "batch": stage.batch,
        "side": side,
        "samples_per_second": round(streamed * stage.batch, 1),
        "samples_per_second_synthetic": round(synthetic * stage.batch, 1),
        "real_over_synthetic": round(streamed / synthetic, 3),
        "tflops": round(flops / 1e12, 3),
        "share_of_measured_peak": round(flops / peak, 3),
        **_datasheet_share(flops, device),
    }


def measured_peak(device: torch.device) -> float:
    """Return the operations a second of a large square matrix product, the best of ten."""
    cuda = device.type == "cuda"
    side, kind = (8192, torch.bfloat16) if cuda else (2048, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    torch.mm(a, b)
    best = 0.0
    for _ in range(10):
        _wait_for(device)
        start = time.perf_counter()
        torch.mm(a, b)
        _wait_for(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def _datasheet_share(flops: float, device: torch.device) -> dict[str, float]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peaks = [peak for chip, peak in DATASHEET_FLOPS.items() if chip in name]
    return {"share_of_datasheet_peak": round(flops / peaks[0], 3)} if peaks else {}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str]) -> None:
    """Measure and write the result file, one entry a recipe."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, *names = arguments
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = measured_peak(device)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for recipe in map(get_recipe, names):
        found = measure(recipe, fitting_store(Path(folder), recipe), device, peak)
        results[recipe.name] = {
            "command": shlex.join(
                ["python", "-m", "tests.benchmarks.training", "STORES", recipe.name]
            ),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                **machine(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
            "measured_peak_tflops": round(peak / 1e12, 3),
            **found,
        }
        logger.info("%s %s", recipe.name, json.dumps(found))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
