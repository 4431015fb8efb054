"""The evaluate flow: score JPEG, a registered model or a checkpoint by the papers' protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.parameters import QualityFactors, Reference, References
from flows.planning.beside_jpeg import score_beside_jpeg
from flows.planning.evaluated_images import images_of
from flows.planning.named_networks import OpenNetwork, open_network
from flows.reporting.evaluation_report import evaluation_report
from flows.reporting.pages import link_artifact
from flows.reporting.score_tables import result_rows
from flows.runtime import open_tracker, progress, retried_task, say
from flows.settings import git_commit
from flows.steps import recording
from flows.steps.publishing import default_path, write_report
from pipeline.evaluation.published import JPEG
from pipeline.evaluation.scores import Comparison, EvaluationResult
from pipeline.images.degrade import STANDARD, Protocol
from pipeline.networks.devices import PrecisionChoice


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    opened: OpenNetwork
    scored: Sequence[Comparison | EvaluationResult]
    """One for each set: the network beside JPEG, or JPEG alone."""
    report: str | None
    """Path or URI of the HTML report; None if there is none."""


@flow(name="evaluate", flow_run_name="{network}")
def evaluate(
    network: str = JPEG,
    dataset: References = ["sample"],  # noqa: B006 - pydantic copies it
    qf: QualityFactors = [10, 20, 30, 40],  # noqa: B006
    degradation: Protocol = STANDARD,
    report: str | None = None,
    precision: PrecisionChoice = "float32",
) -> Evaluation:
    """Score JPEG itself, a registered model or a checkpoint, and record it in MLflow.

    Args:
        network: `jpeg`, `models:/NAME@ALIAS`, NAME (its champion), or a checkpoint's path or URI
        dataset: sets to score on
        qf: JPEG quality factors of the inputs, 1 to 100
        degradation: `image` compresses the images as they are, `rescaled` makes them smaller first
        report: file or URI of the HTML report (default: report.html in the workspace's
            reports/evaluate-NETWORK)
        precision: what the network computes in; `auto` as for restore-batch
    """
    opened = opened_network(network, precision)
    tracker = open_tracker()
    with (
        tracker,
        tracker.study("evaluate", run_name=network, tags={"git_commit": git_commit()}) as run,
    ):
        run.log_params(
            {
                "network": network,
                "datasets": " ".join(dataset),
                "qf": qf,
                "degradation": degradation,
                "precision": opened.precision,
            }
        )
        scored = [score(network, opened, reference, qf, degradation) for reference in dataset]
        results = [one.own for one in scored]
        for result in results:
            recording.log_result(run, result)
            recording.log_published(run, result, opened.architecture)
        link_artifact(run)
        written = write_report(
            run,
            report or default_path(f"evaluate {network}"),
            lambda: evaluation_report(network, opened, scored, dataset, qf, degradation),
        )
        if written.note:
            say(f"WARNING: {written.note}")
    rows = [row for result in results for row in result_rows(network, result, opened.architecture)]
    create_table_artifact(
        rows, key="evaluation", description=f"Scores of {network} in {opened.precision}"
    )
    return Evaluation(opened=opened, scored=scored, report=written.path)


@retried_task("open network", run_name="open {network}")
def opened_network(network: str, precision: PrecisionChoice) -> OpenNetwork:
    """Open the named network once, for all sets and the report."""
    return open_network(network, precision)


@retried_task("score", run_name="score {network} on {dataset}")
def score(
    network: str, opened: OpenNetwork, dataset: Reference, qfs: list[int], degradation: Protocol
) -> Comparison | EvaluationResult:
    """Score one network, beside JPEG, on one set at every quality factor; or JPEG alone."""
    with progress(f"evaluate {network} on {dataset}") as update:
        found = score_beside_jpeg(opened, images_of(dataset, update), dataset, qfs, degradation)
    for row in found.own.rows:
        say(f"{row.label} QF{row.qf}: {row.metrics['psnr']:.2f} dB, SSIM {row.metrics['ssim']:.4f}")
    return found
