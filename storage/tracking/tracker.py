"""Studies and runs in MLflow, recorded in the background: a lost server stops no training."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType

from storage import files
from storage.files import StoreError
from storage.shown import shown_uri
from storage.tracking.abandoned_runs import end_abandoned_runs
from storage.tracking.journal import Entry, Journal, Unwritten
from storage.tracking.mlflow_client import LazyExperiment, open_client
from storage.tracking.tracked_run import Recorder, TrackedRun, now_ms, opened

_logger = logging.getLogger(__name__)


class Tracker:
    """Records studies in one MLflow server (`http://`) or database (`sqlite:///`).

    Nothing here raises because of the server, and only the start and the end of a run wait for
    it, `patience_s` seconds at most. What is recorded while it is away is written, in order, when
    it is back. What could not be written until the end is in `unrecorded`.
    """

    def __init__(
        self,
        uri: str,
        artifact_root: str | None = None,
        *,
        keep_in: str | None = None,
        patience_s: float = 20.0,
        gather_s: float = 1.0,
    ) -> None:
        """Open the tracker; the server need not be there yet.

        `artifact_root` is the folder or URI that new experiments keep their files under; None
        leaves the choice to the server. `keep_in` is a folder or URI that gets one JSON file with
        everything that could not be recorded, if there is such. `gather_s` is how long records add
        up before a write.
        """
        self.uri = uri
        self.artifact_root = artifact_root
        self.keep_in = keep_in
        self.patience_s = patience_s
        self.client = open_client(uri)
        self.journal = Journal(reachable=self._reachable, gather_s=gather_s)
        self._recorder = Recorder(client=self.client, journal=self.journal, patience_s=patience_s)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def unrecorded(self) -> list[str]:
        """Name what has not been written: what was given up, with its reason, and what waits."""
        return [unwritten.what for unwritten in self.journal.unwritten]

    def close(self) -> list[str]:
        """Write what waits, stop the background thread, and return `unrecorded`."""
        lost = self.journal.close(0.0 if self.journal.failing else self.patience_s)
        if lost:
            told = "; ".join(unwritten.what for unwritten in lost)
            _logger.warning("Not recorded at %s: %s", shown_uri(self.uri), told)
        if lost and self.keep_in is not None:
            _keep(lost, self.keep_in)
        return [unwritten.what for unwritten in lost]

    @contextmanager
    def study(
        self, name: str, *, run_name: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[TrackedRun]:
        """Open an experiment of this name and a parent run in it, for the runs of one study.

        Runs of any experiment that a dead process left RUNNING, here or, minutes later, on another
        machine, end as KILLED.
        """
        experiment = LazyExperiment(self.client, name, self.artifact_root)
        self.journal.add(
            Entry(
                describe=lambda: "end of abandoned runs",
                write=lambda: end_abandoned_runs(self.client),
            )
        )
        try:
            with opened(TrackedRun(self._recorder, experiment, run_name or name, tags=tags)) as run:
                yield run
        finally:
            self.journal.flush(self.patience_s)

    def _reachable(self) -> bool:
        try:
            self.client.search_experiments(max_results=1)
        except Exception:
            return False
        return True


def _keep(lost: Sequence[Unwritten], folder: str) -> None:
    content = json.dumps([asdict(unwritten) for unwritten in lost], indent=1)
    target = files.join(folder, f"unrecorded-{now_ms()}.json")
    try:
        files.write_bytes(target, content.encode())
    except (StoreError, OSError) as error:
        _logger.warning("It could not be kept either: %s", error)
    else:
        _logger.warning("It is kept in %s", target)
