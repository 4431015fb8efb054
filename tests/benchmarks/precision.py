"""What bfloat16 costs and saves the shipped networks: PSNR and seconds on LIVE1, beside float32.

Usage: QFACTORY_DATASETS=FOLDER python -m tests.benchmarks.precision

Each network restores every image at each of its quality factors, in float32 and in bfloat16 right
after. The loss, with the SHA-256 of the file, goes to models/zoo/precision.json, which `restore`
reads; all numbers go to results/precision.json. It takes a processor that computes in bfloat16.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import torch

from flows.settings import settings
from flows.shipped import RECORD, shipped_weights
from pipeline.datasets import list_images
from pipeline.evaluate import load_images
from pipeline.precision import Precision, choose_precision, processor_name
from pipeline.precision_loss import Scores, in_both_precisions, loss_db
from pipeline.tiles import Restorer, network_restorer
from pipeline.weights import load_network
from tests.benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results" / "precision.json"
DATASET = "live1"


def measure(weights: Path, root: str | None) -> Scores:
    """Score shipped weights on LIVE1 at their quality factors, in both precisions, on the CPU."""
    origin, network = load_network(str(weights))
    images = load_images(list_images(DATASET, root=root, purpose="evaluate"))

    def restorer_in(precision: Precision) -> Restorer:
        return network_restorer(network, "cpu", precision=precision)

    return in_both_precisions(restorer_in, images, DATASET, origin.qfs)


def row_of(scores: Scores) -> dict[str, object]:
    """Return the loss at each quality factor, and the seconds a megapixel."""
    pairs = zip(scores["float32"].rows, scores["bfloat16"].rows, strict=True)
    losses = {a.qf: round(a.metrics["psnr"] - b.metrics["psnr"], 5) for a, b in pairs}
    speeds = {p: [row.seconds_per_mpx for row in result.rows] for p, result in scores.items()}
    mean = {precision: round(sum(all_) / len(all_), 3) for precision, all_ in speeds.items()}
    return {"bfloat16_loss_db": losses, "seconds_per_mpx": mean}


def main() -> None:
    """Measure, and write both files."""
    cpu = torch.device("cpu")
    choose_precision("bfloat16", cpu)
    found = {n: measure(w, settings().datasets_root) for n, w in shipped_weights().items()}
    record = {
        name: {"sha256": sha256_of(name), "bfloat16_loss_db": round(loss_db(scores), 5)}
        for name, scores in found.items()
    }
    report = {
        "command": "python -m tests.benchmarks.precision",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "bfloat16": processor_name(cpu)},
        "threads": torch.get_num_threads(),
        "packages": {"torch": torch.__version__},
        "what": f"PSNR that bfloat16 loses on {DATASET} at each quality factor of a network, dB, "
        "and seconds a megapixel, mean over the quality factors",
        "results": {name: row_of(scores) for name, scores in found.items()},
    }
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


def sha256_of(name: str) -> str:
    """Return the SHA-256 of a shipped file as it is now, whatever was recorded."""
    return hashlib.sha256(shipped_weights()[name].read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
