"""The report of an evaluation; how networks were made, as the registry or a file tells it."""

import json
from collections.abc import Mapping, Sequence
from shlex import join

from flows.planning.named_networks import OpenNetwork
from flows.reporting.report_inputs import report_of
from flows.settings import settings
from models import ARCHITECTURES
from pipeline.evaluation.scores import Comparison, EvaluationResult
from pipeline.images.degrade import STANDARD, Protocol
from pipeline.networks.weights import Origin
from pipeline.reports.analyses import ScoredNetwork
from pipeline.reports.report_data import Curve, Report, ReportedNetwork, cost_of, finite_curve
from storage.files import StoreError
from storage.patches.versions import open_store
from storage.tracking.recorded_runs import RecordedRuns, TrackingError

TAGS = {
    "recipe": "recipe",
    "qfs": "trained for QF",
    "steps": "steps",
    "seconds": "training time, s",
    "dataset": "dataset",
    "dataset_fingerprint": "dataset fingerprint",
    "store_version": "store version",
    "recipe_fingerprint": "recipe fingerprint",
    "code_fingerprint": "code fingerprint",
    "git_commit": "commit",
    "weights": "weights",
}
"""Tags of registered versions, and what a report calls them."""


def evaluation_report(
    network: str,
    opened: OpenNetwork,
    scored: Sequence[Comparison | EvaluationResult],
    dataset: Sequence[str],
    qf: Sequence[int],
    degradation: Protocol = STANDARD,
) -> Report:
    """Return the report of what `score_beside_jpeg` found on each set."""
    words = ["qfactory", "evaluate", network, "--dataset", *dataset, "--qf", *map(str, qf)]
    words += [] if degradation == STANDARD else ["--degradation", degradation]
    words += [] if opened.precision == "float32" else ["--precision", opened.precision]
    comparisons = [one for one in scored if isinstance(one, Comparison)]
    networks = [of_evaluation(network, opened, comparisons)] if comparisons else []
    return report_of(
        f"Evaluation of {opened.label}",
        join(words),
        networks,
        jpeg=[one for one in scored if isinstance(one, EvaluationResult)],
    )


def of_evaluation(network: str, opened: OpenNetwork, scores: Sequence[Comparison]) -> ScoredNetwork:
    """Return a network that a user named; `opened` is not JPEG itself."""
    restorer, made_by, run = opened.restorer, opened.made_by, None
    assert restorer is not None
    assert made_by is not None
    if isinstance(made_by, Origin):
        made, options = _made_of_weights(made_by, network), made_by.options
    else:
        made, run = {"model": made_by.uri, **made_of(made_by.tags)}, made_by.run_id
        options = json.loads(made_by.tags.get("recipe_settings", "{}")).get("options", {})
    loss, held_out = recorded_curves(run) if run is not None else ((), ())
    architecture = opened.architecture or "unknown"
    reported = ReportedNetwork(
        name=opened.label,
        architecture=opened.architecture,
        cost=cost_of(architecture, options) if architecture in ARCHITECTURES else None,
        made=made,
        training_run=run,
        loss=loss,
        validation_psnr=held_out,
        scores=tuple(scores),
    )
    return ScoredNetwork(reported=reported, restorer=restorer, qfs=opened.qfs)


def recorded_curves(run_id: str) -> tuple[Curve, Curve]:
    """Return training loss and held-out PSNR that MLflow holds of a training; empty without it."""
    runs = RecordedRuns(settings().mlflow_uri)
    try:
        loss, held_out = (runs.curve(run_id, name) for name in ("loss", "validation_psnr"))
    except TrackingError:
        return (), ()
    return finite_curve(loss), finite_curve(held_out)


def made_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return how a network was made, in words, by the tags of its registered version.

    What the store version tells of its patches is added while that version can be read.
    """
    told = {title: tags[tag] for tag, title in TAGS.items() if tags.get(tag)}
    return told | _made_of_store(tags.get("store_version", ""))


def _made_of_store(name: str) -> dict[str, str]:
    """Return what a store version, `<URI>@<number>`, is made of; nothing if it is not there."""
    uri, _, number = name.rpartition("@")
    try:
        version = open_store(uri, int(number))
    except (ValueError, OSError, StoreError):
        return {}
    return {
        "patches": f"{version.rows:,} of {version.images:,} images",
        "packages of the patches": ", ".join(f"{n} {v}" for n, v in version.packages.items()),
    }


def _made_of_weights(origin: Origin, weights: str) -> dict[str, str]:
    return {
        "recipe": origin.recipe,
        "trained for QF": ", ".join(map(str, origin.qfs)),
        "steps": f"{origin.step:,}",
        "recipe fingerprint": origin.fingerprint,
        "weights": weights,
    }
