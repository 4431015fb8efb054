"""Commands that analyse trained networks: answers without Prefect, Ray and MLflow runs."""

from flows.commands.analysis_inputs import (
    ImageCount,
    NamedNetwork,
    Output,
    folder_of,
    open_networks,
    shown_images,
)
from flows.console import notes, out, print_json, show_table
from flows.parameters import QualityFactors, Reference
from pipeline.drawing.charts import save_png
from pipeline.evaluation.cross_quality import QfTransfer, transfer_chart, transfer_matrix
from pipeline.evaluation.rate_distortion import (
    AXES,
    JPEG,
    QFS,
    RateDistortion,
    rate_distortion_chart,
)
from pipeline.evaluation.rate_distortion import rate_distortion as measure
from pipeline.evaluation.scores import csv_of
from storage.files import join, write_bytes

Row = dict[str, object]


def transfer(
    *networks: str,
    dataset: Reference = "live1",
    qf: QualityFactors | None = None,
    images: ImageCount = None,
    output: Output = None,
    json: bool = False,
) -> None:
    """Score networks of one quality factor each on JPEGs of several (CAS-CNN, Fig. 4).

    Writes transfer.png, the gains as a grid, and transfer.csv.

    Args:
        networks: checkpoints and registered models, as for `evaluate`, one of a quality factor
        dataset: set to score on
        qf: JPEG quality factors of the inputs (default: 10 20 30 40)
        images: only the first so many
        output: folder or URI of the files (default: reports/transfer/DATASET in the workspace)
        json: print one JSON array of rows and nothing else
    """
    opened = by_trained_qf(open_networks(networks))
    restorers = {trained: network.restorer for trained, network in opened.items()}
    with shown_images(dataset, images, "transfer") as loaded:
        found = transfer_matrix(restorers, loaded, dataset, qf or (10, 20, 30, 40))
    names = {trained: network.name for trained, network in opened.items()}
    rows = _transfer_rows(found, names)
    folder = folder_of(output, "transfer", dataset)
    write_bytes(join(folder, "transfer.csv"), csv_of(rows))
    save_png(transfer_chart(found), join(folder, "transfer.png"))
    if json:
        print_json(rows)
        return
    of_jpeg = {f"QF {row.qf}": round(row.metrics["psnr"], 2) for row in found.jpeg.rows}
    table: list[Row] = [{"PSNR, dB": "JPEG", "trained for": "", **of_jpeg}]
    for trained in found.trained_qfs:
        gains = {f"QF {qf}": f"{found.gain(trained, qf):+.2f}" for qf in found.input_qfs}
        table.append({"PSNR, dB": names[trained], "trained for": f"QF {trained}", **gains})
    show_table(table, f"{found.dataset}: JPEG, and what networks add to it")
    out.print(f"\nfiles: {folder}", markup=False)


def rate_distortion(
    *networks: str,
    dataset: Reference = "live1",
    qf: QualityFactors | None = None,
    images: ImageCount = None,
    output: Output = None,
    json: bool = False,
) -> None:
    """Measure PSNR and SSIM against bits a pixel, and the bits saved (CAS-CNN, Fig. 3).

    Writes psnr.png, ssim.png, ssim_gaussian.png and rate-distortion.csv.

    Args:
        networks: checkpoints and registered models, as for `evaluate`
        dataset: set to score on
        qf: two or more JPEG quality factors (default: 10 20 ... 90)
        images: only the first so many
        output: folder or URI of the files (default: reports/rate-distortion/DATASET in the
            workspace)
        json: print one JSON object, `curves` and `differences` from JPEG, and nothing else
    """
    qfs = sorted(set(qf or QFS))
    if len(qfs) < 2:
        raise ValueError(f"QF {qfs}: a curve needs two or more quality factors")
    opened = {network.name: network.restorer for network in open_networks(networks)}
    with shown_images(dataset, images, "rate-distortion") as loaded:
        found = measure(opened, loaded, dataset, qfs)
    rows, differences = _curve_rows(found), [_differences(found, name) for name in opened]
    folder = folder_of(output, "rate-distortion", dataset)
    write_bytes(join(folder, "rate-distortion.csv"), csv_of(rows))
    for metric in AXES:
        save_png(rate_distortion_chart(found, metric), join(folder, f"{metric}.png"))
    if json:
        print_json({"curves": rows, "differences": differences})
        return
    show_table([_readable(row) for row in rows], f"{found.dataset}: quality against bits")
    out.print()
    show_table([_told(row) for row in differences], "mean differences from JPEG (Bjontegaard)")
    out.print(f"\nfiles: {folder}", markup=False)


def by_trained_qf(networks: list[NamedNetwork]) -> dict[int, NamedNetwork]:
    """Return networks by the one quality factor that each was trained for, ascending.

    Raises ValueError for a network of several or of an unknown one, and for two of the same.
    """
    found: dict[int, NamedNetwork] = {}
    for network in networks:
        if len(network.qfs) != 1:
            trained = " ".join(map(str, network.qfs)) or "unknown QFs"
            raise ValueError(
                f"{network.name} was trained for {trained}: a transfer matrix is made of networks "
                "of one quality factor each; `analyze rate-distortion` takes any"
            )
        (qf,) = network.qfs
        if qf in found:
            raise ValueError(
                f"{found[qf].name} and {network.name} were both trained for QF {qf}: name one "
                "network of each quality factor"
            )
        found[qf] = network
    return dict(sorted(found.items()))


def _transfer_rows(found: QfTransfer, names: dict[int, str]) -> list[Row]:
    return [
        {
            "network": names[trained],
            "trained_qf": trained,
            **row.as_json_row(),
            "gain": found.gain(trained, row.qf),
        }
        for trained in found.trained_qfs
        for row in found.restored[trained].rows
    ]


def _curve_rows(found: RateDistortion) -> list[Row]:
    return [
        {
            "network": name,
            **row.as_json_row(),
            "gain": row.metrics["psnr"] - found.results[JPEG].row(row.qf).metrics["psnr"],
            "saved": None if name == JPEG else found.bits_saved(name, row.qf),
        }
        for name, result in found.results.items()
        for row in result.rows
    ]


def _differences(found: RateDistortion, name: str) -> Row:
    """Return a network's mean differences from JPEG; None where they are not defined."""
    row: Row = {"network": name}
    for key, difference in (("bd_rate", found.bd_rate), ("bd_psnr", found.bd_psnr)):
        try:
            row[key] = difference(name)
        except ValueError as error:
            notes.print(f"{name}, {key}: {error}", markup=False)
            row[key] = None
    return row


def _readable(row: Row) -> Row:
    gain, saved = row["gain"], row["saved"]
    of_jpeg = row["network"] == JPEG
    share = f"{100 * saved:.1f} %" if isinstance(saved, float) else "-"
    return {
        "network": row["network"],
        "qf": row["qf"],
        "bits/px": f"{row['bpp']:.3f}",
        "psnr": f"{row['psnr']:.2f}",
        "gain": "" if of_jpeg else f"{gain:+.2f}",
        "ssim": f"{row['ssim']:.4f}",
        "bits saved": "" if of_jpeg else share,
    }


def _told(row: Row) -> Row:
    rate, psnr = row["bd_rate"], row["bd_psnr"]
    return {
        "network": row["network"],
        "bits at equal PSNR": "-" if rate is None else f"{rate:+.1f} %",
        "PSNR at equal bits": "-" if psnr is None else f"{psnr:+.2f} dB",
    }
