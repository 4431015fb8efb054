"""What people read afterwards: MLflow parameters and files, Prefect tables and assets, pictures."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from flows.planning.evaluated_images import images_of
from flows.reporting.score_tables import label_of, score_rows
from flows.settings import git_commit, settings
from pipeline.drawing import pictures
from pipeline.evaluation import published
from pipeline.evaluation.protocol import jpeg_table
from pipeline.evaluation.scores import Comparison, EvaluationResult, median_image, scores_csv
from pipeline.images import jpeg
from pipeline.images.degrade import before_jpeg
from pipeline.networks.restorer import Restorer
from pipeline.recipes import Recipe
from storage.patches.versions import StoreVersion
from storage.shown import shown_uri
from storage.tracking.tracked_run import TrackedRun

NO_ASSET = re.compile(r"[^\w.~:/@+=,;()*!$-]")
"""What Prefect takes in no asset's key."""


def tell_made(asset: str, of: Sequence[str], **facts: object) -> None:
    """Tell Prefect that this run has made an asset out of others, so that lineage is seen.

    Assets are told by URIs, `dataset://` that of a dataset and `model://` that of a registered
    model; local paths become `file://`. `facts` are what people would ask of the asset.
    """
    sources = [{"prefect.resource.id": _key(one), "prefect.resource.role": "asset"} for one in of]
    emit_event(
        "prefect.asset.materialization.succeeded",
        resource={"prefect.resource.id": _key(asset)},
        related=sources,
        payload=facts,
    )


def _key(asset: str) -> str:
    uri = asset if "://" in asset else Path(asset).absolute().as_uri()
    return NO_ASSET.sub("-", shown_uri(uri))


def log_inputs(run: TrackedRun, recipe: Recipe, version: StoreVersion) -> None:
    """Record in MLflow what a training is made from: recipe, store version, dataset, commit."""
    run.log_params(
        {
            "recipe": recipe.name,
            "recipe_fingerprint": recipe.fingerprint,
            "architecture": recipe.architecture,
            "qfs": " ".join(str(qf) for qf in recipe.qfs),
            "seed": recipe.seed,
            "steps": recipe.steps,
            **{f"option.{name}": value for name, value in recipe.options.items()},
            **{
                f"{stage.name}.{name}": value
                for stage in recipe.stages
                for name, value in asdict(stage).items()
            },
            "store_version": version.name,
            "dataset": version.dataset,
            "dataset_fingerprint": version.dataset_fingerprint,
            "patches": version.rows,
        }
    )
    run.log_tags({"git_commit": git_commit(), "mlflow.source.git.commit": git_commit()})
    run.log_text(json.dumps(asdict(recipe), indent=1), "recipe.json")
    run.log_text(version.spec.to_json(), "patch_spec.json")
    run.log_dataset(version.dataset, fingerprint=version.dataset_fingerprint, source=version.name)


def log_scores(
    run: TrackedRun, recipe: Recipe, scores: Mapping[str, Comparison], restorer: Restorer
) -> Path:
    """Record scores, per-image tables and a before/after picture; return the picture's path.

    The picture shows the image of the first set whose gain at the first quality factor is the
    median.
    """
    folder = settings().reports / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    for comparison in scores.values():
        log_result(run, comparison.restored)
        log_result(run, comparison.jpeg, "jpeg_")
        log_published(run, comparison.restored, recipe.architecture)
    dataset, comparison = next(iter(scores.items()))
    qf = recipe.evaluation_qfs[0]
    picture = folder / f"{label_of(comparison.restored.label)}-qf{qf}.png"
    draw_picture(dataset, comparison, recipe, restorer, picture)
    run.log_file(picture, "pictures")
    return picture


def log_result(run: TrackedRun, result: EvaluationResult, prefix: str = "") -> None:
    """Record the means of an evaluation as metrics, and its table of images as a file."""
    label = label_of(result.label)
    for row in result.rows:
        values = {**row.metrics, "bpp": row.bpp, "seconds_per_mpx": row.seconds_per_mpx}
        metrics = {f"{label}/qf{row.qf}/{prefix}{name}": v for name, v in values.items()}
        run.log_metrics({name: value for name, value in metrics.items() if isfinite(value)})
    run.log_bytes(scores_csv([result]), f"evaluation/{label}-{prefix}images.csv")


def log_published(run: TrackedRun, result: EvaluationResult, architecture: str | None) -> None:
    """Record what papers print of the same network, and how far an evaluation lies from it.

    Metrics are named `<set>/qf<QF>/minus-<published row>/<metric>`: ours less the published value.
    """
    label = label_of(result.label)
    for row in result.rows:
        for beside, difference in published.beside(architecture, row):
            place = f"{label}/qf{row.qf}/minus-{label_of(beside.label)}"
            run.log_metrics({f"{place}/{name}": value for name, value in difference.items()})
    rows = [
        {**row.as_json_row(), "published": published.json_rows(architecture, row)}
        for row in result.rows
    ]
    run.log_text(json.dumps(rows, indent=1), f"evaluation/{label}-published.json")


def draw_picture(
    dataset: str, comparison: Comparison, recipe: Recipe, restorer: Restorer, path: Path
) -> None:
    """Draw JPEG, restored and original of the image whose gain is the set's median."""
    qf = recipe.evaluation_qfs[0]
    name = median_image(comparison.gains_in_psnr(qf))
    ((_, luma),) = images_of(dataset, names=[name])
    pair = before_jpeg(luma, recipe.patches.degradation)
    compressed, _ = jpeg.compress(pair.source, qf)
    pictures.before_after(
        pair.original,
        compressed,
        restorer(compressed, jpeg_table(qf)),
        path,
        title=f"{name}, JPEG quality factor {qf}, restored by {recipe.name}",
    )


def scores_artifact(name: str, comparison: Comparison, architecture: str) -> None:
    """Leave the scores as a Prefect table."""
    create_table_artifact(
        score_rows(name, comparison, architecture),
        key="scores",
        description=f"{name} on {comparison.restored.label}",
    )
