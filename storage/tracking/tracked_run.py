"""One run in MLflow, recorded in the background: its methods return at once."""

import hashlib
import io
import json
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from storage.tracking.abandoned_runs import OWNER_TAG, may_be_continued
from storage.tracking.journal import Entry, Journal
from storage.tracking.living_processes import owner
from storage.tracking.mlflow_client import LazyExperiment, last_steps
from storage.tracking.signs_of_life import giving_signs, sign

DIGEST_LENGTH = 36
KEY_TAG = "qfactory.key"
PARENT_TAG = "mlflow.parentRunId"
ERROR_LENGTH = 2000


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """What runs are recorded with."""

    client: MlflowClient
    journal: Journal
    patience_s: float
    """Seconds that the start of a run waits for the server."""


class TrackedRun:
    """One MLflow run, made by `Tracker.study` or `TrackedRun.run`; its methods return at once."""

    def __init__(
        self,
        recorder: Recorder,
        experiment: LazyExperiment,
        name: str,
        *,
        parent: "TrackedRun | None" = None,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> None:
        """Describe the run; `start` records it."""
        self.name = name
        self._recorder = recorder
        self._experiment = experiment
        self._parent = parent
        self._tags = dict(tags or {})
        self._key = hashlib.sha256((key or uuid.uuid4().hex).encode()).hexdigest()
        self._run_id: str | None = None
        self._started_ms = now_ms()
        self._known_steps: dict[str, int] = {}
        self._open_points: list[Metric] | None = None
        self._lock = threading.Lock()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None as long as the server could not be told of it."""
        return self._run_id

    def page_at(self, server: str) -> str | None:
        """Return the address of the run's page on a server; None if the run is not recorded."""
        if self._run_id is None:
            return None
        experiment = self._experiment.identify()
        return f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{self._run_id}"

    @contextmanager
    def run(
        self, name: str, *, tags: Mapping[str, str] | None = None, key: str | None = None
    ) -> Iterator["TrackedRun"]:
        """Open a child run. It ends FINISHED, FAILED on an exception, KILLED when interrupted.

        `key` names the work that the run stands for. A run with the same key in the experiment
        that was cut short is continued in place of a new one; metric values of steps that it
        holds already are not recorded twice.
        """
        child = TrackedRun(self._recorder, self._experiment, name, parent=self, tags=tags, key=key)
        with opened(child):
            yield child

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings. MLflow refuses to change a setting once it is recorded."""
        entities = [Param(name, str(value)) for name, value in params.items()]
        self._write(
            f"parameters {', '.join(params)}",
            lambda run_id: self._recorder.client.log_batch(run_id, params=entities),
            {param.key: param.value for param in entities},
        )

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; a tag that is there is overwritten."""
        entities = [RunTag(name, value) for name, value in tags.items()]
        self._write(
            f"tags {', '.join(tags)}",
            lambda run_id: self._recorder.client.log_batch(run_id, tags=entities),
            dict(tags),
        )

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers of one step; they are gathered and written in batches."""
        if not values:
            return
        now = now_ms()
        new = [Metric(name, float(value), now, step) for name, value in values.items()]
        with self._lock:
            if self._open_points is not None:
                self._open_points.extend(new)
                return
            self._open_points = new
        self._recorder.journal.add(
            Entry(
                describe=lambda: f"run {self.name}: {_summary(new)}",
                write=lambda: self._write_points(new),
                content=lambda: [[p.key, p.value, p.timestamp, p.step] for p in new],
            )
        )

    def log_bytes(self, content: bytes, path: str) -> None:
        """Record a file of this content at `path` below the run's artifacts."""
        self._write(
            f"file {path}",
            lambda run_id: self._recorder.client.log_stream(run_id, io.BytesIO(content), path),
            {"path": path, "base64": b64encode(content).decode()},
        )

    def log_text(self, text: str, path: str) -> None:
        """Record a text file (UTF-8) at `path` below the run's artifacts."""
        self.log_bytes(text.encode(), path)

    def log_file(self, file: Path, folder: str = "") -> None:
        """Record a copy of a local file; it is read now and may be deleted afterwards."""
        self.log_bytes(file.read_bytes(), f"{folder}/{file.name}" if folder else file.name)

    def log_dataset(
        self, name: str, *, fingerprint: str, source: str, context: str = "training"
    ) -> None:
        """Record a dataset as an input of the run.

        MLflow keeps 36 characters of a digest; the tag `fingerprint` of the input has them all.
        """
        dataset = DatasetInput(
            Dataset(name, fingerprint[:DIGEST_LENGTH], "uri", json.dumps({"uri": source})),
            [InputTag("mlflow.data.context", context), InputTag("fingerprint", fingerprint)],
        )
        self._write(
            f"dataset {name}",
            lambda run_id: self._recorder.client.log_inputs(run_id, datasets=[dataset]),
            {"name": name, "fingerprint": fingerprint, "source": source, "context": context},
        )

    def start(self) -> None:
        """Record the run; waits until that has happened or has failed once."""
        self._recorder.journal.add(
            Entry(describe=lambda: f"start of run {self.name}", write=self._create_or_continue)
        )
        self._recorder.journal.flush(self._recorder.patience_s, unless_failing=True)

    def end(self, error: BaseException | None) -> None:
        """Record how the run ended, and why."""
        status, ended_ms = status_after(error), now_ms()
        if error is not None:
            self.log_tags({"error": f"{type(error).__name__}: {error}"[:ERROR_LENGTH]})
        self._write(
            f"end ({status})",
            lambda run_id: self._recorder.client.set_terminated(run_id, status, ended_ms),
            {"status": status, "ended_ms": ended_ms},
        )

    def _write(self, what: str, action: Callable[[str], object], content: object) -> None:
        self._recorder.journal.add(
            Entry(
                describe=lambda: f"run {self.name}: {what}",
                write=lambda: action(self._recorded_id()),
                content=lambda: content,
            )
        )

    def _recorded_id(self) -> str:
        if self._run_id is None:
            raise MlflowException(f"run {self.name} was not recorded")
        return self._run_id

    def _create_or_continue(self) -> None:
        client, experiment = self._recorder.client, self._experiment.identify()
        tags = {**self._tags, KEY_TAG: self._key, OWNER_TAG: owner(), **sign()}
        if self._parent is not None:
            tags[PARENT_TAG] = self._parent._recorded_id()
        found = client.search_runs(
            [experiment], f"tags.`{KEY_TAG}` = '{self._key}' and attributes.status != 'FINISHED'"
        )
        if (run := next(filter(may_be_continued, found), None)) is None:
            run = client.create_run(experiment, self._started_ms, tags, self.name)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
            client.log_batch(run.info.run_id, tags=[RunTag(*tag) for tag in tags.items()])
            self._known_steps = last_steps(client, run)
        self._run_id = run.info.run_id

    def _write_points(self, points: list[Metric]) -> None:
        with self._lock:
            if self._open_points is points:
                self._open_points = None
        new = [p for p in points if p.step > self._known_steps.get(p.key, -1)]
        self._recorder.client.log_batch(self._recorded_id(), metrics=new)


def status_after(error: BaseException | None) -> str:
    """Return MLflow's word for how a run ended that was left with this exception."""
    if error is None:
        return "FINISHED"
    interrupted = isinstance(error, CancelledError) or not isinstance(error, Exception)
    return "KILLED" if interrupted else "FAILED"


@contextmanager
def opened(run: TrackedRun) -> Iterator[TrackedRun]:
    """Start a run, and end it with the block, as `status_after` says of what the block raised."""
    try:
        run.start()
        with giving_signs(run._recorder.client, lambda: run.run_id):
            yield run
    except BaseException as error:
        run.end(error)
        raise
    run.end(None)


def _summary(points: Sequence[Metric]) -> str:
    names = ", ".join(sorted({point.key for point in points}))
    steps = [point.step for point in points]
    return f"{len(points)} metric values ({names}) of steps {min(steps)} to {max(steps)}"


def now_ms() -> int:
    """Return milliseconds since 1970, as MLflow counts time."""
    return round(time.time() * 1000)
