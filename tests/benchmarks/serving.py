"""Time every way to use a registered model, side by side on one photograph, one thread each.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.serving

It registers the zoo's quickres-qf10. `pyfunc bytes` and `http` take a colour JPEG to a PNG; the
other ways restore its luma alone, so `decode and encode` says what the rest of a photograph takes.
A round times each way once, after another; the server has a process of its own.
"""

import base64
import io
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import torch
from mlflow.pytorch import load_model
from PIL import Image
from skimage import data

from pipeline.networks.export import export_network
from pipeline.networks.weights import load_network
from pipeline.served.photographs import png_of, read_photograph
from storage.registry.model_registry import ModelRegistry
from storage.tracking.tracker import Tracker
from tests.benchmarks.machine import machine
from tests.support.mlflow_servers import new_database, serving
from tests.support.processes import free_port

RESULTS = Path(__file__).parent / "results" / "serving.json"
ZOO = Path(__file__).parents[2] / "models" / "zoo" / "quickres-qf10.safetensors"
NAME = "qfactory-quickres-qf10"
ROUNDS = 7
TOGETHER = 4
"""Images that are given at once, or by two clients in turn, for the throughput."""

Way = Callable[[int], object]
"""Restores that many images."""


def register(folder: Path) -> tuple[str, Path]:
    """Register the zoo's network in a new database; return its URI and the model's folder."""
    export = export_network(load_network(str(ZOO))[1])
    uri = new_database(folder)
    with Tracker(uri, str(folder / "artifacts")) as tracker, tracker.study("study") as study:
        assert study.run_id is not None
        registry = ModelRegistry(uri)
        found = registry.register(
            export.module,
            name=NAME,
            input_example=export.input_example,
            tags=export.facts.tags,
            run_id=study.run_id,
            served=export.served,
        )
    return uri, registry.download(found.uri, folder)


def ways(folder: Path, photograph: bytes, url: str) -> dict[str, Way]:
    """Return every way to restore the photograph, or its luma, a number of times."""
    model = mlflow.pyfunc.load_model(str(folder))
    program = load_model(str(folder))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", options)
    luma = read_photograph(photograph).luma
    images = np.repeat((luma / np.float32(255))[None, None], TOGETHER, 0)

    def in_torch(count: int) -> torch.Tensor:
        with torch.inference_mode():
            return program(torch.from_numpy(images[:count]))

    def in_http(count: int) -> list[bytes]:
        with ThreadPoolExecutor(2) as clients:
            return list(clients.map(lambda _: post(url, photograph), range(count)))

    return {
        "pyfunc bytes": lambda count: model.predict([photograph] * count),
        "http": in_http,
        "pyfunc arrays": lambda count: model.predict(images[:count]),
        "pytorch": in_torch,
        "onnxruntime": lambda count: session.run(None, {"image": images[:count]}),
        "decode and encode": lambda count: [unrestored(photograph) for _ in range(count)],
    }


def unrestored(jpeg: bytes) -> bytes:
    """Return a JPEG as PNG, read and written as a photograph is."""
    photograph = read_photograph(jpeg)
    return png_of(photograph, photograph.luma)


def post(url: str, photograph: bytes) -> bytes:
    """Return the PNG that the server answers."""
    body = json.dumps({"inputs": [base64.b64encode(photograph).decode()]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return base64.b64decode(json.load(answer)["predictions"][0])


def measure(found: Mapping[str, Way]) -> dict[str, dict[str, float]]:
    """Time each way in turn, ROUNDS times: one image, then TOGETHER images."""
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS + 1):  # the first warms up
        for name, way in found.items():
            for count in (1, TOGETHER):
                start = time.perf_counter()
                way(count)
                seconds.setdefault((name, count), []).append(time.perf_counter() - start)
    medians = {key: statistics.median(times[1:]) for key, times in seconds.items()}
    return {
        name: {
            "latency_ms": round(medians[name, 1] * 1e3, 1),
            "images_per_s": round(TOGETHER / medians[name, TOGETHER], 2),
        }
        for name in found
    }


def colour_photograph() -> bytes:
    """Return a 512x512 photograph as a 4:2:0 JPEG of quality factor 10."""
    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, "JPEG", quality=10, subsampling="4:2:0")
    return file.getvalue()


def main() -> None:
    """Measure, and write the results file."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        uri, folder = register(Path(scratch))
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
        environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        log = Path(scratch) / "server.log"
        with serving(f"models:/{NAME}/1", log, free_port(), environment) as url:
            results = measure(ways(folder, colour_photograph(), url))
    report = {
        "command": "OMP_NUM_THREADS=1 python -m tests.benchmarks.serving",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "packages": {name: version(name) for name in ("torch", "mlflow", "onnxruntime", "pillow")},
        "what": f"quickres-qf10, 512x512 colour photograph, one thread, median of {ROUNDS} rounds; "
        f"throughput with {TOGETHER} images at once, http by two clients; pyfunc bytes and http "
        "from JPEG to PNG, pyfunc arrays, pytorch and onnxruntime luma alone",
        "results": results,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
