"""The evaluate command: an answer in seconds, without Prefect and Ray."""

import json as jsonlib
import sys

from flows.console import counted, show_table, shown
from flows.networks import JPEG, open_network
from flows.parameters import QualityFactors, References
from flows.settings import settings
from pipeline import datasets
from pipeline.evaluate import evaluate as evaluate_images
from pipeline.evaluate import load_images
from pipeline.scores import EvaluationResult, write_csv


def evaluate(
    network: str,
    *,
    dataset: References,
    qf: QualityFactors,
    json: bool = False,
    csv: str | None = None,
) -> None:
    """Score JPEG, a registered model or a checkpoint by the papers' protocol.

    Args:
        network: `jpeg`, models:/NAME@ALIAS, NAME (its champion), or a checkpoint's path or URI
        dataset: sets to score on
        qf: JPEG quality factors of the inputs
        json: print one JSON array of rows and nothing else
        csv: file for every image's values and the means
    """
    restorer = open_network(network)
    results: list[EvaluationResult] = []
    for reference in dataset:
        root = settings().datasets_root
        sources = datasets.list_images(reference, root=root, purpose="evaluate")
        with shown(f"evaluate on {reference}") as update:
            images = counted(load_images(sources), len(sources), update)
            results.append(evaluate_images(restorer, images, reference, qf))
    rows = [row for result in results for row in result.as_json_rows()]
    if csv is not None:
        write_csv(results, csv)
    if json:
        jsonlib.dump(rows, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        show_table(rows, "JPEG itself" if network == JPEG else network)
