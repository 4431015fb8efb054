"""What bfloat16 costs and saves the shipped networks: PSNR and seconds on LIVE1, beside float32.

Usage: QFACTORY_DATASETS=FOLDER python -m tests.benchmarks.precision [--qf QF,QF...] [NAME...]

Each network, or those named, restores every image at those of its quality factors that are in QFS,
or are asked for, in float32 and in bfloat16 right after. The most that it loses at one of those
that `restore` uses it at, up to GOOD_QF, goes to models/zoo/precision.json with the SHA-256 of its
file; all numbers go to results/precision.json, and the loss on the middles of the images alone,
which a test measures again. It takes a processor that computes in bfloat16.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from flows.planning.shipped_networks import RECORD, shipped_weights
from flows.settings import settings
from pipeline.datasets.references import list_images
from pipeline.evaluation.precision_loss import Scores, in_both_precisions, loss_db, middles
from pipeline.evaluation.protocol import load_images
from pipeline.networks.devices import Precision, choose_precision
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import load_network
from pipeline.served.good_jpegs import GOOD_QF
from storage import files
from tests.benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results" / "precision.json"
DATASET = "live1"
QFS = (10, 20, 30, 40, 60, 80, 89)
MIDDLE = 48
"""Side in pixels of an image's middle; all 29 take a second or a few a network."""


@dataclass
class Clock:
    """Seconds that a restorer took, and the pixels that it restored."""

    seconds: float = 0.0
    pixels: int = 0

    def timed(self, restorer: Restorer) -> Restorer:
        def restore(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
            begun = time.perf_counter()
            restored = restorer(luma, table)
            self.seconds += time.perf_counter() - begun
            self.pixels += luma.size
            return restored

        return restore


def measure(
    weights: Path, qfs: Sequence[int] = (), side: int | None = None
) -> tuple[Scores, dict[Precision, Clock]]:
    """Score shipped weights on LIVE1 in both precisions, on the CPU; at QFS if none are given.

    With `side` only the middle of each image, so many pixels high and wide.
    """
    origin, network = load_network(str(weights))
    trained = [qf for qf in QFS if qf in origin.qfs]
    images = load_images(list_images(DATASET, root=settings().datasets_root, purpose="evaluate"))
    images = images if side is None else middles(images, side)
    clocks: dict[Precision, Clock] = {"float32": Clock(), "bfloat16": Clock()}

    def restorer_in(precision: Precision) -> Restorer:
        return clocks[precision].timed(network_restorer(network, "cpu", precision=precision))

    return in_both_precisions(restorer_in, images, qfs or trained), clocks


def middles_loss_db(weights: Path) -> float:
    """Return the most that shipped weights lose on the middles, dB, at their first and last QF.

    Smooth middles lose more than whole images: compare it with itself alone.
    """
    used = [qf for qf in load_network(str(weights))[0].qfs if qf <= GOOD_QF]
    scores, _ = measure(weights, sorted({used[0], used[-1]}), MIDDLE)
    return round(loss_db(scores), 5)


def used_at(scores: Scores) -> Scores:
    """Return the scores at the quality factors of photographs that `restore` does not leave be."""
    return {p: {qf: db for qf, db in by_qf.items() if qf <= GOOD_QF} for p, by_qf in scores.items()}


def row_of(scores: Scores, clocks: Mapping[Precision, Clock]) -> dict[str, object]:
    """Return the loss at each quality factor, and the seconds a megapixel."""
    exact, rounded = scores["float32"], scores["bfloat16"]
    seconds = {p: round(clock.seconds / clock.pixels * 1e6, 3) for p, clock in clocks.items()}
    losses = {qf: round(exact[qf] - rounded[qf], 5) for qf in exact}
    return {"bfloat16_loss_db": losses, "seconds_per_mpx": seconds}


def main(arguments: Sequence[str]) -> None:
    """Measure, and write both files; what they hold of other networks stays."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.precision")
    parser.add_argument("--qf", type=lambda text: [int(qf) for qf in text.split(",")], default=())
    parser.add_argument("names", nargs="*")
    given = parser.parse_args(arguments)
    choose_precision("bfloat16", torch.device("cpu"))
    shipped = shipped_weights()
    found = {name: measure(shipped[name], given.qf) for name in given.names or shipped}
    kept = {name: one for name, one in json.loads(RECORD.read_text()).items() if name in shipped}
    record = kept | {
        name: {
            "sha256": files.sha256_of(str(shipped_weights()[name])),
            "bfloat16_loss_db": round(loss_db(used_at(scores)), 5),
        }
        for name, (scores, _) in found.items()
    }
    before = json.loads(RESULTS.read_text())
    rows = {name: row for name, row in before["results"].items() if name in shipped}
    middles = {name: row for name, row in before["middles"].items() if name in shipped}
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "packages": {"torch": torch.__version__},
    }
    report = {
        "command": "python -m tests.benchmarks.precision",
        "what": f"PSNR that bfloat16 loses on {DATASET} at each quality factor of a network, dB, "
        "and seconds a megapixel over all of them; the most that it loses on their middles, dB",
        "results": rows | {name: measured | row_of(*both) for name, both in found.items()},
        "middles": middles
        | {name: measured | {"bfloat16_loss_db": middles_loss_db(shipped[name])} for name in found},
    }
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
