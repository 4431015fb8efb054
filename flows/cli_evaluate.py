"""The evaluate command: an answer in seconds, without Prefect and Ray."""

import json as jsonlib
import sys
from functools import partial
from pathlib import Path

from flows.console import counted, notes, show_table, shown
from flows.networks import open_network
from flows.parameters import QualityFactors, References
from flows.score_tables import result_rows
from flows.scoring import score_beside_jpeg
from flows.settings import settings
from pipeline import datasets, published
from pipeline.degrade import STANDARD, Protocol
from pipeline.evaluate import load_images
from pipeline.scores import Comparison, EvaluationResult, write_csv


def evaluate(
    network: str,
    *,
    dataset: References,
    qf: QualityFactors,
    degradation: Protocol = STANDARD,
    json: bool = False,
    csv: str | None = None,
    report: Path | None = None,
) -> None:
    """Score JPEG, a registered model or a checkpoint by the papers' protocol.

    Args:
        network: `jpeg`, models:/NAME@ALIAS, NAME (its champion), or a checkpoint's path or URI
        dataset: sets to score on
        qf: JPEG quality factors of the inputs
        degradation: `image` compresses the images as they are, `rescaled` makes them smaller first
        json: print one JSON array of rows and nothing else; `published` in a row lists what papers
            print of the same network
        csv: file for every image's values, the means, and below each what papers print
        report: file for an HTML report with charts and pictures, which opens without a network
    """
    opened = open_network(network)
    scored: list[Comparison | EvaluationResult] = []
    for reference in dataset:
        root = settings().datasets_root
        sources = datasets.list_images(reference, root=root, purpose="evaluate")
        with shown(f"evaluate on {reference}") as update:
            images = counted(load_images(sources), len(sources), update)
            scored.append(score_beside_jpeg(opened, images, reference, qf, degradation))
    results = [one.restored if isinstance(one, Comparison) else one for one in scored]
    if report is not None:
        # Imported here: the libraries of charts take a second that a plain answer does not need.
        from flows.report_evaluation import evaluation_report
        from pipeline.report_page import save_page

        save_page(evaluation_report(network, scored, dataset, qf, degradation), report)
        notes.print(f"report {report}", markup=False)
    if csv is not None:
        write_csv(results, csv, beside=partial(published.printed_rows, opened.architecture))
    if json:
        answer = [
            {**row.as_json_row(), "published": published.json_rows(opened.architecture, row)}
            for result in results
            for row in result.rows
        ]
        jsonlib.dump(answer, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        of_jpeg = [one.jpeg if isinstance(one, Comparison) else None for one in scored]
        lines = [
            line
            for result, before in zip(results, of_jpeg, strict=True)
            for line in result_rows(opened.label, result, opened.architecture, before)
        ]
        show_table(lines, "JPEG itself" if opened.restorer is None else network)
