"""The downstream command: what restoration does for later steps; without Prefect and Ray."""

from collections.abc import Sequence

from flows.commands.analysis_inputs import (
    ImageCount,
    NamedNetwork,
    Output,
    folder_of,
    open_networks,
    shown_images,
)
from flows.console import out, print_json, show_table
from flows.parameters import QualityFactors, Reference
from flows.planning.evaluated_images import images_of
from models.srcnn import SRCNN
from pipeline.drawing import pictures
from pipeline.drawing.charts import bar_chart, save_png
from pipeline.evaluation.downstream import (
    CONTRAST,
    INPUTS,
    JPEG,
    ORIGINAL,
    RESTORED,
    SCORED,
    Downstream,
    Step,
    applied,
    steps_of,
)
from pipeline.evaluation.downstream import downstream as apply_steps
from pipeline.evaluation.scores import csv_of
from pipeline.evaluation.super_resolution import SRCNN_WEIGHTS, srcnn_enlarger
from pipeline.images.metrics import METRICS
from pipeline.networks.weights import load_network
from storage.files import join, write_bytes

Row = dict[str, object]


def downstream(
    network: str,
    *,
    dataset: Reference = "live1",
    qf: QualityFactors | None = None,
    images: ImageCount = None,
    srcnn: str | None = None,
    output: Output = None,
    json: bool = False,
) -> None:
    """Measure super-resolution and contrast after JPEG, restored JPEG and original (AR-CNN, 5).

    Writes downstream.csv, gains.png, and for each step a picture of the typical image.

    Args:
        network: a checkpoint or a registered model, as for `evaluate`
        dataset: set to score on
        qf: JPEG quality factors (default: 10 20)
        images: only the first so many
        srcnn: weights of an SRCNN for super-resolution x2 (default: those that ship, trained on
            `sample`)
        output: folder or URI of the files (default: reports/downstream/DATASET in the workspace)
        json: print one JSON array of rows and nothing else
    """
    (opened,) = open_networks([network])
    steps = steps_of(srcnn_enlarger(_super_resolution(srcnn or str(SRCNN_WEIGHTS))))
    with shown_images(dataset, images, "downstream") as loaded:
        found = apply_steps(opened.restorer, steps, loaded, dataset, qf or (10, 20))
    folder = folder_of(output, "downstream", dataset)
    write_bytes(join(folder, "downstream.csv"), csv_of(found.rows()))
    chart = bar_chart(
        {f"QF {qf}": [(step, found.gain(step, qf)) for step in found.steps] for qf in found.qfs},
        title=f"What restoring by {opened.name} adds to later steps: {dataset}",
        x_label="PSNR gain over JPEG, dB",
        y_label="step",
    )
    save_png(chart, join(folder, "gains.png"))
    draw_typical(found, steps, opened, folder)
    rows = mean_rows(found)
    if json:
        print_json(rows)
        return
    for metric, called in (("psnr", "PSNR in dB"), ("ssim", "SSIM")):
        title = f"{called} after each step: {dataset}, restored by {opened.name}"
        show_table([_readable(row, metric, METRICS[metric].digits) for row in rows], title)
        out.print()
    out.print(f"files: {folder}", markup=False)


def mean_rows(found: Downstream) -> list[Row]:
    """Return the means of every step and quality factor, one column an input and metric."""
    return [
        {
            "step": step,
            "qf": qf,
            **{
                f"{metric}_{given}": found.mean(step, qf, given, metric)
                for metric in SCORED
                for given in INPUTS
            },
        }
        for step in found.steps
        for qf in found.qfs
    ]


def draw_typical(
    found: Downstream, steps: Sequence[Step], network: NamedNetwork, folder: str
) -> None:
    """Draw, for each step at the first quality factor, the image whose gain is the median."""
    qf = found.qfs[0]
    for step in steps:
        name = found.typical_image(step.name, qf)
        ((_, luma),) = images_of(found.dataset, names=[name])
        ((_, outputs, reference),) = applied(network.restorer, [step], name, luma, qf)
        pictures.before_after(
            reference,
            outputs[JPEG],
            outputs[RESTORED],
            join(folder, f"{step.name}-qf{qf}.png"),
            title=f"{step.name} after JPEG and after restoration: {name}",
            subtitle=_subtitle(step, qf, network),
            network=network.name,
        )


def _subtitle(step: Step, qf: int, network: NamedNetwork) -> str:
    made = f"JPEG of quality factor {qf}, restored by {network.name}"
    if step.factor == 1:
        return f"{made}; {step.name} applied to each"
    return f"{made}, both at 1/{step.factor} of the size, then {step.name}"


def _super_resolution(weights: str) -> SRCNN:
    _, network = load_network(weights)
    if not isinstance(network, SRCNN):
        raise ValueError(f"{weights} is a {type(network).__name__}: give weights of an SRCNN")
    return network


def _readable(row: Row, metric: str, digits: int) -> Row:
    values = {given: f"{row[f'{metric}_{given}']:.{digits}f}" for given in INPUTS}
    if row["step"] in CONTRAST:  # what it makes of the original is what the others are compared to
        values[ORIGINAL] = "reference"
    gain = row[f"{metric}_{RESTORED}"] - row[f"{metric}_{JPEG}"]  # type: ignore[operator]
    original = values.pop(ORIGINAL)
    named = {"step": row["step"], "qf": row["qf"], **values}
    return {**named, "gain": f"{gain:+.{digits}f}", ORIGINAL: original}
