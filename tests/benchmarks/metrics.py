"""Time the metrics beside scikit-image's on one photograph, one thread, and write the ratios.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.metrics
"""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.images.jpeg import compress
from pipeline.images.luma import rgb_to_luma
from pipeline.images.metrics import METRICS
from tests.benchmarks.machine import processor

RESULTS = Path(__file__).parent / "results" / "metrics.json"
ROUNDS = 15

Metric = Callable[[np.ndarray, np.ndarray], float]


def gaussian_reference(original: np.ndarray, restored: np.ndarray) -> float:
    """Compute scikit-image's SSIM with the parameters of `ssim_gaussian`."""
    similarity = structural_similarity(
        original,
        restored,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    return float(np.asarray(similarity))


def uniform_reference(original: np.ndarray, restored: np.ndarray) -> float:
    """Compute scikit-image's uniform SSIM, 7x7: it knows odd windows only."""
    return float(np.asarray(structural_similarity(original, restored, data_range=255)))


REFERENCES: dict[str, Metric | None] = {
    "psnr": lambda original, restored: peak_signal_noise_ratio(original, restored),
    "ssim": uniform_reference,
    "ssim_gaussian": gaussian_reference,
    "psnr_b": None,
}


def milliseconds_per_mpx(metric: Metric, original: np.ndarray, restored: np.ndarray) -> float:
    """Return the fastest of ROUNDS calls, in milliseconds a million pixels."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        metric(original, restored)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3 / (original.size / 1e6)


def measure() -> dict[str, dict[str, float | None]]:
    """Time every metric and its reference in turn on the same pair."""
    original = rgb_to_luma(data.astronaut())
    restored, _ = compress(original, 10)
    results = {}
    for name, metric in METRICS.items():
        ours = milliseconds_per_mpx(metric.measure, original, restored)
        reference = REFERENCES[name]
        theirs = milliseconds_per_mpx(reference, original, restored) if reference else None
        results[name] = {
            "ms_per_mpx": round(ours, 2),
            "scikit_image_ms_per_mpx": theirs and round(theirs, 2),
            "times_faster": theirs and round(theirs / ours, 1),
        }
    return results


def main() -> None:
    """Measure, and write the results file."""
    report = {
        "command": "OMP_NUM_THREADS=1 python -m tests.benchmarks.metrics",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "packages": {"numpy": np.__version__, "scikit-image": version("scikit-image")},
        "what": f"512x512 photograph, JPEG QF10, one thread, fastest of {ROUNDS} calls",
        "results": measure(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
