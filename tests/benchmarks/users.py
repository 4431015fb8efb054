"""What the four users wait for: the commands of README on the sample photographs, in seconds.

Usage: python -m tests.benchmarks.users [FOLDER]

Runs each command once, as a user would, in a workspace of its own that starts empty (in FOLDER,
else in a temporary folder), checks its exit code and writes the seconds to results/users.json.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.machine import machine
from tests.support.processes import clean_environment

RESULTS = Path(__file__).parent / "results" / "users.json"
BIN = Path(sys.executable).parent
QUICK = ("unet-quick-qf10", "--steps", "200")
CONSUMER = """
import sys, mlflow, numpy
mlflow.set_tracking_uri("sqlite:///workspace/mlflow.db")
model = mlflow.pyfunc.load_model("models:/qfactory-unet-qf10@champion")
assert model.predict(numpy.zeros((1, 1, 40, 48), numpy.float32)).shape == (1, 1, 40, 48)
assert not [name for name in sys.modules if name.split(".")[0] in ("flows", "pipeline", "models")]
"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of a user."""

    user: str
    what: str
    command: Sequence[str]
    interrupt_after_s: float | None = None
    """Ctrl-C that long after it began; its answer is then 130, and the time that of the stop."""


def steps(store: str) -> list[Step]:
    """Return what the users do, in this order; `store` is where the data engineer's goes."""
    build = ("qfactory", "patches", "build", "--store", store)
    study, train = ("qfactory", "study", "--recipes", *QUICK), ("qfactory", "train", *QUICK)
    evaluate = ("qfactory", "evaluate", "unet-small-blind", "--dataset", "sample:test")
    told: dict[str, list[tuple[str, Sequence[str]]]] = {
        "data engineer": [
            ("a store", build),
            ("the same again, unchanged", build),
            ("look into it", ("qfactory", "patches", "inspect", store)),
            ("its files", ("qfactory", "patches", "files", store)),
            ("every byte compared", ("qfactory", "patches", "verify", store)),
        ],
        "researcher": [
            ("is a network sound", ("qfactory", "models", "check", "quickres")),
            ("recipes", ("qfactory", "recipes", "list")),
            ("a study of 200 steps", study),
            ("the same again, all reused", study),
            ("score what ships", (*evaluate, "--qf", "10")),
            ("train --for 15s", (*train[:3], "--steps", "5000", "--for", "15s")),
        ],
        "registry consumer": [
            ("models", ("qfactory", "models", "list")),
            ("load the champion and use it", ("python", "-c", CONSUMER)),
        ],
    }
    found = [Step(user=u, what=w, command=c) for u, all_ in told.items() for w, c in all_]
    stopped = (*train[:3], "--steps", "50000", "--fresh")
    return [
        *found,
        Step(
            user="platform engineer",
            what="Ctrl-C during a training, until the command has ended",
            command=stopped,
            interrupt_after_s=40,
        ),
    ]


def seconds_of(step: Step, folder: Path, environment: Mapping[str, str]) -> float:
    """Run a step and return how long it took; RuntimeError with its last words if it failed."""
    began = time.monotonic()
    with (folder / "log").open("w+b") as log:
        program = [str(BIN / step.command[0]), *step.command[1:]]
        process = subprocess.Popen(program, cwd=folder, env=environment, stdout=log, stderr=log)
        wanted = 0
        if step.interrupt_after_s is not None:
            wanted = 128 + signal.SIGINT
            time.sleep(step.interrupt_after_s)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
        code = process.wait()
        seconds = time.monotonic() - began
        if code != wanted:
            log.seek(0)
            words = log.read().decode(errors="replace")[-1000:]
            raise RuntimeError(f"{' '.join(step.command)}: exit code {code}, not {wanted}\n{words}")
    return seconds


def main(folder: Path) -> None:
    """Run every step and write the file."""
    environment = clean_environment(QFACTORY_WORKSPACE=str(folder / "workspace"))
    results: dict[str, dict[str, float]] = {}
    for step in steps("patches"):
        seconds = round(seconds_of(step, folder, environment), 1)
        results.setdefault(step.user, {})[step.what] = seconds
        sys.stderr.write(f"{step.user:20s} {step.what:55s} {seconds:6.1f} s\n")
    report = {
        "command": "python -m tests.benchmarks.users",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "load": round(os.getloadavg()[0], 1)},
        "packages": {name: version(name) for name in ("ray", "prefect", "mlflow", "torch")},
        "what": "seconds of each command, once, in a new workspace",
        "results": results,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
