"""Networks of a report that a user named: how they were made, as registry or file tells it."""

import json
from collections.abc import Mapping, Sequence

from flows.networks import OpenNetwork
from flows.report_content import ScoredNetwork
from flows.settings import settings
from models import ARCHITECTURES
from pipeline.report import Cost, Curve, ReportedNetwork, cost_of, finite_curve
from pipeline.scores import Comparison
from pipeline.training_job import WEIGHTS
from pipeline.weights import load_weights
from storage import files
from storage.model_registry import ModelRegistry
from storage.recorded_runs import RecordedRuns, TrackingError

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


def of_evaluation(network: str, opened: OpenNetwork, scores: Sequence[Comparison]) -> ScoredNetwork:
    """Return a network that a user named; `opened` is not JPEG itself."""
    restorer = opened.restorer
    assert restorer is not None
    if network.startswith("models:/") or not files.exists(network):
        made, options, run = _made_by_registry(network)
    else:
        (made, options), run = _made_by_checkpoint(network), None
    loss, held_out = recorded_curves(run) if run is not None else ((), ())
    reported = ReportedNetwork(
        name=opened.label,
        architecture=opened.architecture,
        cost=_cost_of(opened.architecture, options),
        made=made,
        training_run=run,
        loss=loss,
        validation_psnr=held_out,
        scores=tuple(scores),
    )
    return ScoredNetwork(reported=reported, open=lambda: restorer, qfs=opened.qfs)


def recorded_curves(run_id: str) -> tuple[Curve, Curve]:
    """Return training loss and held-out PSNR that MLflow holds of a training; empty without it."""
    runs = RecordedRuns(settings().mlflow_uri)
    try:
        loss, held_out = (runs.curve(run_id, name) for name in ("loss", "validation_psnr"))
    except TrackingError:
        return (), ()
    return finite_curve(loss), finite_curve(held_out)


def _made_by_registry(network: str) -> tuple[dict[str, str], Mapping[str, object], str | None]:
    found = ModelRegistry(settings().mlflow_uri).resolve(network)
    options = json.loads(found.tags.get("recipe_settings", "{}")).get("options", {})
    told = {title: found.tags[tag] for tag, title in TAGS.items() if tag in found.tags}
    return {"model": found.uri, **told}, options, found.run_id


def _made_by_checkpoint(network: str) -> tuple[dict[str, str], Mapping[str, object]]:
    inside = files.join(network, WEIGHTS)
    weights = inside if files.exists(inside) else network
    origin, _ = load_weights(weights)
    made = {
        "recipe": origin.recipe,
        "trained for QF": ", ".join(map(str, origin.qfs)),
        "steps": f"{origin.step:,}",
        "recipe fingerprint": origin.fingerprint,
        "weights": weights,
    }
    return made, origin.options


def _cost_of(architecture: str | None, options: Mapping[str, object]) -> Cost | None:
    if architecture is None or architecture not in ARCHITECTURES:
        return None
    return cost_of(architecture, options)
