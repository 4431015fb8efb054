"""What people read afterwards: MLflow parameters and files, Prefect tables, pictures, cards."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from prefect.artifacts import create_link_artifact, create_table_artifact

from flows.settings import git_commit, settings
from pipeline import datasets, jpeg, pictures
from pipeline.evaluate import load_images
from pipeline.recipes import Recipe
from pipeline.scores import Comparison, EvaluationResult
from pipeline.tiles import Restorer
from storage.patch_store import StoreVersion
from storage.tracking import TrackedRun

Row = dict[str, str | float]

MLFLOW_PAGE = "http://127.0.0.1:5000"


def mlflow_command() -> str:
    """Return the command that opens MLflow's pages."""
    if settings().tracking_uri:
        return f"open {settings().mlflow_uri}"
    return f"{_tool('mlflow')} ui --backend-store-uri {settings().mlflow_uri}"


def prefect_command() -> str:
    """Return the command that opens Prefect's pages."""
    if settings().prefect_api_url:
        return f"open {settings().prefect_api_url}".removesuffix("/api")
    return f"PREFECT_HOME={settings().root / 'prefect'} {_tool('prefect')} server start"


def log_version(run: TrackedRun, version: StoreVersion) -> None:
    """Record in MLflow what a build made: the dataset, the spec, and how much came out."""
    run.log_params({"store_version": version.name, "spec": version.spec.to_json()})
    run.log_tags({"git_commit": git_commit()})
    run.log_metrics(
        {
            "patches": version.rows,
            "images": version.images,
            "rejected": len(version.rejected),
            "bytes": version.bytes,
        }
    )
    run.log_dataset(version.dataset, fingerprint=version.dataset_fingerprint, source=version.name)


def log_inputs(run: TrackedRun, recipe: Recipe, version: StoreVersion) -> None:
    """Record in MLflow what a training is made from: recipe, store version, dataset, commit."""
    run.log_params(
        {
            "recipe": recipe.name,
            "recipe_fingerprint": recipe.fingerprint,
            "architecture": recipe.architecture,
            "qf": recipe.qf,
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

    The picture shows the image of the first set whose gain is the median.
    """
    folder = settings().reports / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    for comparison in scores.values():
        log_result(run, comparison.restored)
        log_result(run, comparison.jpeg, "jpeg_")
    dataset, comparison = next(iter(scores.items()))
    picture = folder / f"{label_of(dataset)}-qf{recipe.qf}.png"
    draw_picture(dataset, comparison, recipe, restorer, picture)
    run.log_file(picture, "pictures")
    return picture


def log_result(run: TrackedRun, result: EvaluationResult, prefix: str = "") -> None:
    """Record the means of an evaluation as metrics, and its table of images as a file."""
    label = label_of(result.dataset)
    for row in result.rows:
        values = {**row.metrics, "bpp": row.bpp, "seconds_per_mpx": row.seconds_per_mpx}
        metrics = {f"{label}/qf{row.qf}/{prefix}{name}": v for name, v in values.items()}
        run.log_metrics({name: value for name, value in metrics.items() if isfinite(value)})
    with TemporaryDirectory() as scratch:
        table = Path(scratch) / f"{label}-{prefix}images.csv"
        result.to_csv(table)
        run.log_file(table, "evaluation")


def draw_picture(
    dataset: str, comparison: Comparison, recipe: Recipe, restorer: Restorer, path: Path
) -> None:
    """Draw JPEG, restored and original of the image whose gain is the set's median."""
    gains = sorted(
        (after.metrics["psnr"] - before.metrics["psnr"], after.image)
        for before, after in zip(
            comparison.jpeg.per_image, comparison.restored.per_image, strict=True
        )
    )
    _, name = gains[len(gains) // 2]
    sources = datasets.list_images(dataset, root=settings().datasets_root, purpose="evaluate")
    _, original = next(load_images([source for source in sources if source.name == name]))
    compressed, _ = jpeg.compress(original, recipe.qf)
    pictures.before_after(
        original,
        compressed,
        restorer(compressed),
        path,
        title=f"{name}, JPEG quality factor {recipe.qf}, restored by {recipe.name}",
    )


def score_rows(name: str, comparison: Comparison) -> list[Row]:
    """Return the rows that people compare: JPEG, the network and the gain, a QF after another."""
    rows: list[Row] = []
    for row in comparison.restored.rows:
        before = comparison.jpeg.row(row.qf)
        gains = {metric: comparison.gain(row.qf, metric) for metric in row.metrics}
        for who, values in (("JPEG", before.metrics), (name, row.metrics), ("gain", gains)):
            rows.append({"set": row.dataset, "qf": row.qf, "": who, **_rounded(values)})
    return rows


def scores_artifact(name: str, comparison: Comparison) -> None:
    """Leave the scores as a Prefect table."""
    dataset = comparison.restored.dataset
    create_table_artifact(
        score_rows(name, comparison), key="scores", description=f"{name} on {dataset}"
    )


def link_artifact(run: TrackedRun) -> None:
    """Leave a link to the MLflow run as a Prefect artifact; nothing if it was not recorded."""
    if page := run.page_at(settings().tracking_uri or MLFLOW_PAGE):
        text = f"MLflow run {run.name}"
        create_link_artifact(
            page,
            text if settings().tracking_uri else f"{text} (first: {mlflow_command()})",
            key="mlflow-run",
        )


def model_card(recipe: Recipe, version: StoreVersion, scores: Mapping[str, Comparison]) -> str:
    """Return the description of a model version (Markdown): what, from what, how good, how used."""
    lines = [
        f"**{recipe.architecture}** removes artifacts of grey JPEGs of quality factor {recipe.qf}.",
        f"Recipe `{recipe.name}` ({recipe.source}), {recipe.steps} steps on `{version.dataset}` "
        f"({version.rows:,} patches, store `{version.name}`), commit `{git_commit()}`.",
        "",
        "| set | images | JPEG dB | restored dB | SSIM | SSIM gaussian | PSNR-B dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for comparison in scores.values():
        row, before = comparison.restored.row(recipe.qf), comparison.jpeg.row(recipe.qf)
        m = row.metrics
        lines.append(
            f"| {row.dataset} | {row.images} | {before.metrics['psnr']:.2f} | {m['psnr']:.2f} | "
            f"{m['ssim']:.4f} | {m['ssim_gaussian']:.4f} | {m['psnr_b']:.2f} |"
        )
    lines += [
        "",
        "Input and output: (N, 1, H, W) float32 in [0, 1], studio-range luma (MATLAB `rgb2ycbcr`),"
        " any batch, H and W of 8 or more. Load with `mlflow.pytorch.load_model`; no project code"
        " is needed.",
    ]
    return "\n".join(lines)


def label_of(dataset: str) -> str:
    """Return a dataset reference as a part of metric and file names."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in dataset)


def _tool(name: str) -> str:
    """Return how to call a tool of this environment: by name where the shell finds it."""
    ours = Path(sys.executable).with_name(name)
    return name if which(name) == str(ours) else str(ours)


def _rounded(values: Mapping[str, float]) -> Row:
    return {
        name: round(value, 2 if name.startswith("psnr") else 4) for name, value in values.items()
    }
