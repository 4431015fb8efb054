"""The evaluate command: an answer in seconds, without Prefect and Ray unless it is recorded."""

from collections.abc import Sequence
from functools import partial

from flows.console import notes, print_json, show_table, shown
from flows.parameters import QualityFactors, References
from flows.planning.beside_jpeg import score_beside_jpeg
from flows.planning.evaluated_images import images_of
from flows.planning.named_networks import OpenNetwork, open_network
from flows.reporting.score_tables import SPARE, result_rows
from pipeline.evaluation import published
from pipeline.evaluation.scores import Comparison, EvaluationResult, scores_csv
from pipeline.images.degrade import STANDARD, Protocol
from pipeline.networks.devices import PrecisionChoice
from storage import files

Scored = Comparison | EvaluationResult
NO_REPORT = 1


def evaluate(
    network: str,
    *,
    dataset: References,
    qf: QualityFactors,
    degradation: Protocol = STANDARD,
    precision: PrecisionChoice = "float32",
    json: bool = False,
    csv: str | None = None,
    report: str | None = None,
    record: bool = False,
) -> int:
    """Score JPEG, a registered model or a checkpoint by the papers' protocol.

    Args:
        network: `jpeg`, a shipped network's name, models:/NAME@ALIAS, NAME (its champion), or a
            checkpoint's path or URI
        dataset: sets to score on
        qf: JPEG quality factors of the inputs, 1 to 100
        degradation: `image` compresses the images as they are, `rescaled` makes them smaller first
        precision: what the network computes in; auto is bfloat16 where the processor has it and the
            network is known to lose less than 0.005 dB by it
        json: print one JSON array of rows and nothing else; `published` in a row lists what papers
            print of the same network
        csv: file or URI for every image's values, the means, and below each what papers print
        report: file or URI for an HTML report with charts and pictures, which opens without a
            network; exit code 1 if it cannot be made, after the scores are printed
        record: run the Prefect flow `evaluate` here: MLflow gets the scores and the report, Prefect
            a link, and `qfactory report` finds the run; without --report the page is
            reports/evaluate-NETWORK/report.html in the workspace
    """
    if record:
        # Imported here: Prefect takes seconds that a plain answer does not need.
        from flows.cli.command_runs import run_flow
        from flows.evaluate import evaluate as evaluate_flow

        done = run_flow(evaluate_flow, network, dataset, qf, degradation, report, precision)
        opened, scored, made = done.opened, done.scored, done.report is not None
    else:
        opened = open_network(network, precision)
        scored = [_score(opened, reference, qf, degradation) for reference in dataset]
        made = True
    _answer(network, opened, scored, json=json)
    if report is not None and not record:
        made = _report(network, opened, scored, dataset, qf, degradation, report)
    if csv is not None:
        beside = partial(published.printed_rows, opened.architecture)
        files.write_bytes(csv, scores_csv([one.own for one in scored], beside=beside))
    return 0 if made else NO_REPORT


def _score(opened: OpenNetwork, reference: str, qf: Sequence[int], degradation: Protocol) -> Scored:
    with shown(f"evaluate on {reference}") as update:
        images = images_of(reference, update)
        return score_beside_jpeg(opened, images, reference, qf, degradation)


def _answer(network: str, opened: OpenNetwork, scored: Sequence[Scored], *, json: bool) -> None:
    """Print the means, with what papers print beside them."""
    if json:
        print_json(
            [
                {**row.as_json_row(), "published": published.json_rows(opened.architecture, row)}
                for one in scored
                for row in one.own.rows
            ]
        )
        return
    lines = [
        line
        for one in scored
        for line in result_rows(
            opened.label,
            one.own,
            opened.architecture,
            one.jpeg if isinstance(one, Comparison) else None,
        )
    ]
    title = "JPEG itself" if opened.restorer is None else network
    show_table(lines, title, spare=SPARE)


def _report(
    network: str,
    opened: OpenNetwork,
    scored: Sequence[Scored],
    dataset: Sequence[str],
    qf: Sequence[int],
    degradation: Protocol,
    path: str,
) -> bool:
    """Write the report and tell where it is, or why there is none; tell whether there is one."""
    try:
        # Imported here: the libraries of charts take a second that a plain answer does not need.
        from flows.reporting.evaluation_report import evaluation_report
        from pipeline.reports.html import save_page

        save_page(evaluation_report(network, opened, scored, dataset, qf, degradation), path)
    except Exception as error:
        notes.print(f"WARNING: no report at {path}: {error}", markup=False)
        return False
    notes.print(f"report {path}", markup=False)
    return True
