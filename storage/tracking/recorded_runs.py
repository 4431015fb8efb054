"""Runs that MLflow holds with a report: which there are, their files, their curves."""

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from storage.shown import shown_uri
from storage.tracking.mlflow_client import open_client

REPORT_TAG = "qfactory.report"
"""Tag of the runs that hold a report; its value is the folder of the report's files."""
LATEST = "latest"
LISTED = 8
PARENT_TAG = "mlflow.parentRunId"


class TrackingError(Exception):
    """The tracking server did not answer, or not with what was asked for."""


class UnknownRunError(ValueError):
    """There is no such run with a report; the message lists those there are."""


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run with a report."""

    run_id: str
    name: str
    experiment_id: str
    experiment: str
    folder: str
    """Of the report, below the run's artifacts."""

    def __str__(self) -> str:
        called = self.name if self.name == self.experiment else f"{self.experiment}: {self.name}"
        return f"{self.run_id} ({called})"


class RecordedRuns:
    """The runs of one MLflow server (`http://`) or database (`sqlite:///`).

    Every method raises TrackingError when the server cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        """Open the server; it is first asked when a method is called."""
        self.uri = uri
        self._client = open_client(uri)

    def with_reports(self) -> list[RecordedRun]:
        """Return the newest runs that hold a report, the newest first."""
        with self._explained("runs not listed"):
            experiments = {e.experiment_id: e.name for e in self._client.search_experiments()}
            found = self._client.search_runs(
                [*experiments],
                f"tags.`{REPORT_TAG}` != ''",
                order_by=["attributes.start_time DESC"],
            )
        return [_recorded(run, experiments[run.info.experiment_id]) for run in found]

    def find(self, run: str) -> RecordedRun:
        """Return the run that a user names.

        `run` is an id, that of a run below one with a report, the name of a study or of a run (the
        newest of that name), or `latest`. Raises UnknownRunError, which lists the recent ones.
        """
        known = self.with_reports()
        for found in known:
            if run in (LATEST, found.run_id, found.name, found.experiment):
                return found
        parent = self._parent_of(run)
        for found in known:
            if found.run_id == parent:
                return found
        recent = "; ".join(str(one) for one in known[:LISTED])
        listed = f"the newest are {recent}" if known else "there is none yet: run `qfactory study`"
        raise UnknownRunError(f"no run {run!r} with a report at {shown_uri(self.uri)}: {listed}")

    def read(self, run: RecordedRun, path: str) -> bytes:
        """Return a file of the run's report."""
        with self._explained(f"{path} of run {run}"), tempfile.TemporaryDirectory() as scratch:
            place = f"{run.folder}/{path}"
            return Path(self._client.download_artifacts(run.run_id, place, scratch)).read_bytes()

    def write(self, run: RecordedRun, files: Mapping[str, bytes]) -> None:
        """Put files into the run's report, in place of those of the same name."""
        with self._explained(f"report of run {run} not recorded"):
            for path, content in files.items():
                place = f"{run.folder}/{path}"
                self._client.log_stream(run.run_id, io.BytesIO(content), place)

    def curve(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) of a metric's history; empty for one that was not recorded."""
        with self._explained(f"{metric} of run {run_id}"):
            history = self._client.get_metric_history(run_id, metric)
        return [(point.step, point.value) for point in history]

    def _parent_of(self, run_id: str) -> str | None:
        try:
            return self._client.get_run(run_id).data.tags.get(PARENT_TAG)
        except MlflowException:
            return None

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (MlflowException, OSError) as error:
            raise self._unreachable(what, error) from error
        except ValueError:
            raise
        except Exception as error:  # the clients of object stores have errors of their own
            raise self._unreachable(what, error) from error

    def _unreachable(self, what: str, error: Exception) -> TrackingError:
        check = f"Check that {self.uri} can be reached, and the store of its files"
        return TrackingError(shown_uri(f"{what}: {error}. {check}"))


def _recorded(run: Run, experiment: str) -> RecordedRun:
    return RecordedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        experiment_id=run.info.experiment_id,
        experiment=experiment,
        folder=run.data.tags[REPORT_TAG],
    )
