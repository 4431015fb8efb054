"""The report of one evaluation, by the flow or by the command."""

from collections.abc import Sequence
from shlex import join

from flows.networks import open_network
from flows.report_content import report_of
from flows.report_networks import of_evaluation
from pipeline.degrade import STANDARD, Protocol
from pipeline.report import Report
from pipeline.scores import Comparison, EvaluationResult


def evaluation_report(
    network: str,
    scored: Sequence[Comparison | EvaluationResult],
    dataset: Sequence[str],
    qf: Sequence[int],
    degradation: Protocol = STANDARD,
) -> Report:
    """Return the report of what `flows.scoring.score_beside_jpeg` found on each set."""
    opened = open_network(network)
    words = ["qfactory", "evaluate", network, "--dataset", *dataset, "--qf", *map(str, qf)]
    words += [] if degradation == STANDARD else ["--degradation", degradation]
    comparisons = [one for one in scored if isinstance(one, Comparison)]
    networks = [of_evaluation(network, opened, comparisons)] if comparisons else []
    return report_of(
        f"Evaluation of {opened.label}",
        join(words),
        networks,
        jpeg=[one for one in scored if isinstance(one, EvaluationResult)],
    )
