"""Faults at random moments, round after round: `python -m tests.cluster.chaos --rounds 20`.

Each round does one piece of work beside many faults, and gives the same command again when it does
not end well: the faults that are left strike it then, and the last time nothing does. Then what
came out must be what comes out undisturbed, and MLflow must know of no run that runs. Rounds are
added to tests/benchmarks/results/faults.json; the exit code is 1 if one of this run lost something.
Needs what `make test-cluster` needs.
"""

import argparse
import json
import logging
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.settings import git_commit
from tests.benchmarks.machine import machine
from tests.cluster import topology
from tests.cluster.faults import FAULTS
from tests.cluster.servers import BIN
from tests.cluster.topology import Command, Topology
from tests.support.store_images import image_folder

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "faults.json"
STORES, CHECKPOINTS = "s3://qf-stores/chaos", "s3://qf-checkpoints/chaos"
WORKS = ("build", "study", "build", "deployed")
MANY = {"build": 12, "study": 5}
"""Faults of a round."""
PAUSE_S = (2.0, 20.0)
"""The least and the most seconds from a command's start, or the end of a fault, to the next."""
FINISHED, KILLED, LOST = "finished", "killed", "lost: "
OUTCOME = f"""
import hashlib, json, mlflow
from safetensors.numpy import load
from storage import files
from storage.patches.versions import open_store

client = mlflow.MlflowClient()
ids = [e.experiment_id for e in client.search_experiments()]
running = client.search_runs(ids, "attributes.status = 'RUNNING'")
stores = {{name: open_store(files.join("{STORES}", name)).content
          for name in files.list_names("{STORES}")}}
doubled = 0
for run in client.search_runs(ids, max_results=5):
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    doubled += len(steps) - len(set(steps))
weights = {{}}
for name in files.list_names("{CHECKPOINTS}"):
    file = files.join("{CHECKPOINTS}", name, "weights.safetensors")
    if files.exists(file):
        for key, tensor in sorted(load(files.read_bytes(file)).items()):
            weights[key] = hashlib.sha256(tensor.tobytes()).hexdigest()
print(json.dumps({{"stores": stores, "weights": weights, "doubled": doubled,
                  "running": len(running)}}))
files.delete("{STORES}")
files.delete("{CHECKPOINTS}")
"""


@dataclass(frozen=True)
class Try:
    """A command that was given once."""

    faults: list[tuple[str, float]]
    """Each with the seconds after the command's start."""
    ended: str
    """FINISHED, KILLED, what it said was the error, or, after LOST, what it did not do."""
    seconds: float


@dataclass(frozen=True)
class Round:
    """What happened in one round."""

    work: str
    commit: str
    tries: list[Try]
    lost: str
    """What is not as it is undisturbed; nothing if all is well."""


class Chaos:
    """Works on a platform, and knows what each work gives undisturbed."""

    def __init__(self, platform: Topology, folder: Path):
        self.platform = platform
        images = f"folder:{image_folder(folder, 480, (240, 320))}"
        self.works = {
            "build": "qfactory patches build --side 48 --stride 16 --store of-chaos "
            f"--dataset {images}",
            "study": "qfactory study --recipes quickres-qf10 --threads 1 --workers 2 --steps 400 "
            "--name chaos",
            "deployed": "prefect deployment run build-patches/default --watch -p side=48 "
            f"-p stride=16 -p store=of-chaos -p dataset={images}",
        }
        self.expected: dict[str, dict] = {}

    def learn(self, work: str) -> None:
        """Do a work undisturbed, and remember what comes out."""
        if work == "deployed":
            self.platform.deploy()
            self.platform.start_worker()
        self._begin(work).end()
        self.expected[work] = self._outcome()

    def round(self, work: str, names: Sequence[str], rng: random.Random) -> Round:
        """Do a work beside faults at random moments, and look at what came out."""
        if work not in self.expected:
            self.learn(work)
        coming, tries, lost = list(names), [], ""
        try:
            while not tries or tries[-1].ended != FINISHED:
                struck = not tries or tries[-1].faults
                assert struck, f"it fails undisturbed: {tries[-1].ended}"
                tries.append(self._try(work, coming, rng))
                assert not tries[-1].ended.startswith(LOST), tries[-1].ended
                self._undisturbed()
            outcome = self._outcome()
            wrong = [name for name in outcome if outcome[name] != self.expected[work][name]]
            lost = ", ".join(f"{name}: {outcome[name]}" for name in wrong)
        except AssertionError as error:
            lost, *_ = str(error).splitlines()
            with suppress(AssertionError):
                self._undisturbed()
                self._outcome()
        return Round(work, git_commit()[:7], tries, lost)

    def _try(self, work: str, coming: list[str], rng: random.Random) -> Try:
        """Give a command; let faults strike it as long as it runs, each taken off `coming`."""
        start, faults = time.monotonic(), []
        command = self._begin(work)
        while coming and command.still_runs(rng.uniform(*PAUSE_S)):
            name = coming.pop()
            faults.append((name, round(time.monotonic() - start, 1)))
            FAULTS[name](self.platform, command, rng)
        was_killed = "command_killed" in [name for name, _ in faults]
        try:
            failed = command.code() != 0
            ended = FINISHED if not failed else KILLED if was_killed else error_of(command)
        except AssertionError as error:
            logging.warning("%s", error)
            ended = LOST + str(error).splitlines()[0]
        return Try(faults, ended, round(time.monotonic() - start, 1))

    def _begin(self, work: str) -> Command:
        program, *rest = self.works[work].split()
        return self.platform.run([str(BIN / program), *rest])

    def _undisturbed(self) -> None:
        self.platform.services.s3_mood.write_text("")
        self.platform.wait_for_nodes(300)

    def _outcome(self) -> dict:
        """Look at what is there, and delete it, so that the next round begins anew."""
        done = self.platform.run([str(BIN / "python"), "-c", OUTCOME]).end()
        return json.loads(next(line for line in done.splitlines() if line.startswith("{")))


def faults_for(work: str, rng: random.Random) -> list[str]:
    """Choose what strikes a work: the worker where it has one, else any of the others."""
    others = sorted({*FAULTS} - {"worker_killed"})
    return ["worker_killed"] if work == "deployed" else rng.choices(others, k=MANY[work])


def error_of(command: Command) -> str:
    """Return the error that a command says it ended with, in one line."""
    _, mark, told = command.told.rpartition("error: ")  # Prefect leaves lines unfinished before
    last = told.strip().splitlines()[-1:]
    if last and last[0].startswith("Flow run finished in state"):  # as `prefect` says it
        return last[0]
    assert mark, f"it ends without a message:\n{told}"
    return " ".join(told.split())


def record(new: Sequence[Round]) -> None:
    """Add rounds to the results, with sums over all that are there."""
    known = json.loads(RESULTS.read_text())["rounds"] if RESULTS.exists() else []
    rounds = [*known, *map(asdict, new)]
    sums = {
        "command": "make chaos",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "rounds that lost something": sum(bool(row["lost"]) for row in rounds),
        "faults": sum(len(one["faults"]) for row in rounds for one in row["tries"]),
        "by kind": {kind: outcomes_of(kind, rounds) for kind in FAULTS},
    }
    listed = ",\n  ".join(json.dumps(row) for row in rounds)
    RESULTS.write_text(f'{json.dumps(sums, indent=1)[:-2]},\n "rounds": [\n  {listed}\n ]\n}}\n')


def outcomes_of(kind: str, rounds: Sequence[dict]) -> dict[str, int]:
    """Count how the commands ended that a fault struck.

    What ended with a message, or was killed, was completed by the same command, in every round that
    lost nothing.
    """
    struck = [
        one["ended"]
        for row in rounds
        for one in row["tries"]
        for name, _ in one["faults"]
        if name == kind
    ]
    ends = Counter(LOST if end.startswith(LOST) else end for end in struck)
    known = {end.removesuffix(": "): ends[end] for end in (FINISHED, KILLED, LOST)}
    messages = len(struck) - sum(known.values())
    return {"faults": len(struck), **known, "ended with a message": messages}


def main() -> int:
    """Do the rounds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=600, help="begin no round after these")
    parser.add_argument("--work", choices=WORKS, help="one alone")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, help="these instead of any")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if reason := topology.why_not():
        sys.exit(f"no platform here: {reason}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the platform ends with it
    rng, end = random.Random(asked.seed), time.monotonic() + 60 * asked.minutes
    folder = Path(tempfile.mkdtemp(prefix="qf-chaos-"))
    done: list[Round] = []
    roots = {"QFACTORY_STORES": STORES, "QFACTORY_CHECKPOINTS": CHECKPOINTS}
    with topology.running(folder, **roots) as platform:
        chaos = Chaos(platform, folder / "images")
        for number in range(asked.rounds):
            if time.monotonic() > end:
                break
            work = asked.work or WORKS[number % len(WORKS)]
            names = asked.faults or faults_for(work, rng)
            done.append(chaos.round(work, names, rng))
            record(done[-1:])
            logging.info("%d %s", number + 1, json.dumps(asdict(done[-1])))
    return int(any(row.lost for row in done))


if __name__ == "__main__":
    sys.exit(main())
