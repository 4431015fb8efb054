"""Decibels in equal time: a network's fast recipe beside its paper's, on two CPU cores.

Usage: python -m tests.benchmarks.recipes MINUTES STORES [NETWORK...]. QFACTORY_DATASETS names the
folder of BSDS500 and Classic5; STORES is a folder where the patch stores are or will be.
The two recipes of a network train at the same time, one thread each, on the same images at QF 10,
and neither starts from another network. Their schedules are shortened to the steps that the time
allows, measured by a short run first. Results go to results/recipes.json.
"""

import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.evaluation.protocol import score
from pipeline.networks.weights import load_network
from pipeline.patches.build_store import build_store
from pipeline.recipes import get_recipe
from tests.benchmarks.machine import processor

PROJECT = Path(__file__).parents[2]
PAIRS = {
    "arcnn": ("arcnn-qf10", "arcnn-fast-qf10"),
    "dcrn": ("dcrn-qf10", "dcrn-fast-qf10"),
}
QF = 10
SETS = ("classic5",)  # five images: a large network takes half a minute for one
TRIAL_STEPS = 20

logger = logging.getLogger(__name__)


def make_store(recipe: str, stores: Path) -> Path:
    """Build the recipe's store of BSDS500's 400 images, unless it is there; return its folder."""
    root = os.environ["QFACTORY_DATASETS"]
    spec = get_recipe(recipe).patches
    folder = stores / f"bsds500-{spec.fingerprint[:8]}"
    sources = list_images("bsds500", root=root, purpose="train")
    build_store(str(folder), spec, scan_images(sources), "bsds500")
    return folder


def start(recipe: str, store: Path, out: Path, *options: str) -> subprocess.Popen:
    """Start a training of one thread."""
    command = [sys.executable, "-m", "pipeline.training", recipe, "--store", str(store)]
    command += ["--out", str(out), "--threads", "1", *options]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True)


def finish(training: subprocess.Popen) -> list[str]:
    """Wait for a training and return its log. Raises RuntimeError if it failed."""
    _, log = training.communicate()
    if training.returncode:
        raise RuntimeError(log)
    return log.splitlines()


def affordable_steps(pair: tuple[str, str], stores: list[Path], minutes: float) -> list[int]:
    """Return how many steps each recipe takes in the time, both running."""
    with tempfile.TemporaryDirectory() as folder:
        trials = [
            start(recipe, store, Path(folder) / recipe, "--steps", str(TRIAL_STEPS))
            for recipe, store in zip(pair, stores, strict=True)
        ]
        logs = [finish(trial) for trial in trials]
    seconds = [float(re.findall(r"([\d.]+) s$", log[-2])[0]) for log in logs]
    return [round(minutes * 60 / each * TRIAL_STEPS) for each in seconds]


def compare(pair: tuple[str, str], stores: Path, minutes: float) -> dict[str, dict]:
    """Train both recipes for the time and return what each reached."""
    folders = [make_store(recipe, stores) for recipe in pair]
    steps = affordable_steps(pair, folders, minutes)
    out = [stores / "trained" / f"{recipe}-{minutes:g}m" for recipe in pair]
    started = time.perf_counter()
    trainings = [
        start(recipe, store, folder, "--steps", str(count))
        for recipe, store, folder, count in zip(pair, folders, out, steps, strict=True)
    ]
    for training in trainings:
        finish(training)
    logger.info("%s: %.0f s", pair, time.perf_counter() - started)
    return {
        recipe: {"steps": count, **reached(folder)}
        for recipe, folder, count in zip(pair, out, steps, strict=True)
    }


def reached(folder: Path) -> dict[str, object]:
    """Score the weights in a folder."""
    _, network = load_network(str(folder / "weights.safetensors"))
    found: dict[str, object] = {}
    for dataset in SETS:
        comparison = score(network, dataset, QF, root=os.environ["QFACTORY_DATASETS"])
        row = comparison.restored.row(QF).metrics
        found[dataset] = {
            **{name: round(value, 4) for name, value in row.items()},
            "psnr_gain_over_jpeg": round(comparison.gain(QF), 3),
        }
    return found


def main() -> None:
    """Measure and write the result file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    minutes, stores = float(sys.argv[1]), Path(sys.argv[2]).absolute()
    networks = sys.argv[3:] or list(PAIRS)
    target = Path(__file__).parent / "results" / "recipes.json"
    results = json.loads(target.read_text()) if target.exists() else {}
    for network in networks:
        results[network] = {
            "command": shlex.join(
                ["python", "-m", "tests.benchmarks.recipes", f"{minutes:g}", "STORES", network]
            ),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cpu": processor(), "cores": os.cpu_count()},
            "minutes": minutes,
            "qf": QF,
            "recipes": compare(PAIRS[network], stores, minutes),
        }
        target.write_text(json.dumps(results, indent=1) + "\n")
        logger.info(json.dumps(results[network], indent=1))


if __name__ == "__main__":
    main()
