"""How well training uses the processor: precisions side by side, and real against synthetic data.

Usage: python -m tests.benchmarks.processor [--seconds S] STORES [NETWORK...]
       python -m tests.benchmarks.processor --ray STORES NETWORK
STORES is a folder of patch stores; one that a network's recipe needs is built there when it is
missing, which takes QFACTORY_DATASETS. For every network of ARCHITECTURES (or those named): steps
in float32 as PyTorch lays it out, in float32 with channels last, and in bfloat16 where the device
has it, in turn in one run, all on one batch that stays on the device; then steps on batches from
the store beside them, in the precision that a training would take. Each precision is held against a
large matrix product of the same kind, the peak that this chip really reaches. It needs neither Ray,
Prefect nor MLflow. With --ray the same training is timed under Ray Train and as a plain loop.
Results go to results/processor.json, one entry a processor and network.
"""

import argparse
import json
import logging
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from pathlib import Path

import torch

from models import ARCHITECTURES, build_model
from models.measuring.complexity import multiply_adds_per_pixel
from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.loading.loader import Batch, PatchLoader
from pipeline.networks.devices import (
    Precision,
    bfloat16_units,
    choose_precision,
    lay_out,
    processor_name,
)
from pipeline.patches.build_store import build_store
from pipeline.recipes import RECIPES
from pipeline.recipes.base import Recipe, Stage
from pipeline.training.job import TrainingJob, World
from pipeline.training.loop import train
from pipeline.training.step import StageStep, WeightAverage
from storage.patches.versions import StoreVersion

RESULTS = Path(__file__).parent / "results" / "processor.json"
ROUNDS = 3
MAX_STEPS = 200
STEP_FLOPS = 4e11
"""Larger steps are made of fewer patches, so that even the largest network takes some a second."""
FORWARD_AND_BACKWARD = 3
"""A training step takes three times the work of the forward pass: once forward, and backward once
for the activations and once for the weights."""
DATASHEET_FLOPS = {"H100": 989e12, "H200": 989e12}
"""Dense bfloat16 of the SXM modules (NVIDIA's data sheets)."""

logger = logging.getLogger(__name__)


def recipe_of(network: str) -> Recipe:
    """Return the modern recipe of a network: for QF 10 where there is one."""
    names = (f"{network}-fast-qf10", f"{network}-qf10", f"{network}-blind")
    return next(RECIPES[name] for name in names if name in RECIPES)


def longest_stage(recipe: Recipe) -> tuple[int, Stage]:
    """Return the stage with the most pixels to train on, and its place."""

    def work(found: tuple[int, Stage]) -> int:
        stage = found[1]
        return stage.steps * stage.batch * (stage.side or recipe.patches.side) ** 2

    return max(enumerate(recipe.stages), key=work)


def store_for(recipe: Recipe, stores: Path) -> StoreVersion:
    """Return a store of BSDS500's validation images for a recipe, built unless it is there."""
    spec = recipe.patches
    sources = list_images("bsds500:val", root=os.environ["QFACTORY_DATASETS"], purpose="train")
    folder = str(stores / f"val-{spec.fingerprint[:8]}")
    return build_store(folder, spec, scan_images(sources), "bsds500:val").version


def steps_per_second(
    take: Callable[[Batch], object], batches: Iterator[Batch], device: torch.device, seconds: float
) -> float:
    """Time steps for so many seconds, at least 2 and at most MAX_STEPS of them."""
    _wait_for(device)
    start, done = time.perf_counter(), 0
    while done < 2 or (done < MAX_STEPS and time.perf_counter() - start < seconds):
        take(next(batches))
        done += 1
        if done % 10 == 0:
            _wait_for(device)
    _wait_for(device)
    return done / (time.perf_counter() - start)


def stepper(
    recipe: Recipe, stage: Stage, device: torch.device, precision: Precision, *, channels_last: bool
) -> Callable[[Batch], object]:
    """Return a function that takes one step, with a network, optimiser and average of its own."""
    torch.manual_seed(0)
    network = build_model(recipe.architecture, recipe.options).to(device)
    if channels_last:
        lay_out(network)
    average = None if recipe.ema_decay is None else WeightAverage(network, recipe.ema_decay)
    world = World(device=device)
    steps = StageStep(recipe, stage, world, network, network.train(), average, precision)
    return lambda batch: steps.take(0, 1e-6, batch)


def measure(recipe: Recipe, store: StoreVersion, device: torch.device, seconds: float) -> dict:
    """Return what training a recipe's longest stage does on this machine."""
    torch.backends.cudnn.benchmark = device.type == "cuda"
    index, stage = longest_stage(recipe)
    side = stage.side or recipe.patches.side
    network = build_model(recipe.architecture, recipe.options)
    flops = 2 * multiply_adds_per_pixel(network) * FORWARD_AND_BACKWARD * side**2
    batch = max(
        1, min(stage.batch, int(STEP_FLOPS / flops)) if device.type == "cpu" else stage.batch
    )
    chosen = choose_precision("auto", device)
    loader = PatchLoader(
        store,
        recipe.qfs,
        batch,
        seed=(recipe.seed, index),
        side=stage.side,
        pin_memory=device.type == "cuda",
        pairs_on_device=device.type == "cuda",
    )
    with closing(loader.batches()) as real:
        first = next(real)
        kept = repeat(
            replace(
                first,
                original=first.original.to(device),
                degraded=first.degraded.to(device),
                tables=first.tables.to(device),
            )
        )
        ways = {
            "float32": stepper(recipe, stage, device, "float32", channels_last=False),
            "float32_channels_last": stepper(recipe, stage, device, "float32", channels_last=True),
        }
        if bfloat16_units(device):
            ways["bfloat16"] = stepper(recipe, stage, device, "bfloat16", channels_last=True)
        taken = ways["bfloat16" if chosen == "bfloat16" else "float32_channels_last"]
        for take in ways.values():
            take(first)  # warm-up: kernels are chosen, buffers allotted
            take(first)
        timed = partial(steps_per_second, device=device, seconds=seconds)
        rounds = [
            {
                **{name: timed(take, kept) for name, take in ways.items()},
                "real": timed(taken, real),
                "synthetic": timed(taken, kept),
            }
            for _ in range(ROUNDS)
        ]
    rate = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return {
        "recipe": recipe.name,
        "stage": stage.name,
        "batch": batch,
        "side": side,
        "mflop_a_pixel": round(flops / side**2 / FORWARD_AND_BACKWARD / 1e6, 3),
        "step_ms": {name: round(1e3 / rate[name], 1) for name in ways},
        "gflops": {name: round(rate[name] * flops * batch / 1e9, 1) for name in ways},
        "share_of_large_product": {
            name: round(rate[name] * flops * batch / large_product(_kind(name), device), 3)
            for name in ways
        },
        "times_float32": {name: round(rate[name] / rate["float32"], 2) for name in ways},
        "samples_per_second": round(rate["real"] * batch, 1),
        "samples_per_second_synthetic": round(rate["synthetic"] * batch, 1),
        "real_over_synthetic": round(rate["real"] / rate["synthetic"], 3),
        **_datasheet_share(rate["real"] * flops * batch, device),
    }


_products: dict[torch.dtype, float] = {}


def large_product(kind: torch.dtype, device: torch.device) -> float:
    """Return the operations a second of a large square matrix product, the best of ten."""
    if kind not in _products:
        side = 8192 if device.type == "cuda" else 2048
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        torch.mm(a, b)
        best = 0.0
        for _ in range(10):
            _wait_for(device)
            start = time.perf_counter()
            torch.mm(a, b)
            _wait_for(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
        _products[kind] = best
    return _products[kind]


def under_ray(recipe: Recipe, store: StoreVersion, steps: int = 400) -> dict:
    """Return a plain training's samples a second beside those of the same one under Ray Train."""
    from pipeline import cluster  # imports Ray, which a GPU machine may lack
    from pipeline.training import ray_train

    rates: dict[str, list[float]] = {"plain": [], "ray": []}
    cluster.connect(None)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for name in rates:
                job = TrainingJob(
                    recipe=recipe.with_steps(steps),
                    store=store.uri,
                    version=store.number,
                    checkpoints=str(Path(folder) / f"{name}-{number}"),
                    threads=os.cpu_count(),
                )
                if name == "plain":
                    result = train(job)
                else:
                    result = ray_train.run_training(
                        job, workers=1, name=f"bench-{number}", storage=folder
                    )
                later = [record.samples_per_s for record in result.history[1:]]
                rates[name].append(statistics.median(later))
    plain, ray = (statistics.median(rates[name]) for name in ("plain", "ray"))
    return {
        "recipe": recipe.name,
        "samples_per_second_plain": round(plain, 1),
        "samples_per_second_under_ray_train": round(ray, 1),
        "ray_over_plain": round(ray / plain, 3),
    }


def _kind(way: str) -> torch.dtype:
    return torch.bfloat16 if way == "bfloat16" else torch.float32


def _datasheet_share(flops: float, device: torch.device) -> dict[str, float]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peaks = [peak for chip, peak in DATASHEET_FLOPS.items() if chip in name]
    return {"share_of_datasheet_peak": round(flops / peaks[0], 3)} if peaks else {}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str]) -> None:
    """Measure, and write an entry of the result file for each network as soon as it is known."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.processor")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("stores")
    parser.add_argument("networks", nargs="*", choices=[*sorted(ARCHITECTURES), []])
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    told = ["--ray"] if given.ray else ["--seconds", f"{given.seconds:g}"]
    told.append("STORES")
    for name in given.networks or sorted(ARCHITECTURES):
        recipe = recipe_of(name)
        store = store_for(recipe, Path(given.stores))
        found = (
            under_ray(recipe, store) if given.ray else measure(recipe, store, device, given.seconds)
        )
        logger.info("%s %s", name, json.dumps(found))
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        entries = results.setdefault(processor_name(device), {})
        entries[f"{name} under Ray Train" if given.ray else name] = {
            "command": shlex.join(["python", "-m", "tests.benchmarks.processor", *told, name]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "large_product_gflops": {
                str(kind).removeprefix("torch."): round(flops / 1e9, 1)
                for kind, flops in _products.items()
            },
            **found,
        }
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
