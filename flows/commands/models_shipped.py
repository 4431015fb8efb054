"""The command about what ships: recorded scores, and whether this machine gets the same."""

from collections.abc import Mapping, Sequence

from flows.console import notes, print_json, show_table, shown
from flows.parameters import References
from flows.planning.evaluated_images import images_of
from flows.planning.named_networks import open_network
from flows.planning.shipped_networks import recorded_rows, shipped_weights, training_of
from pipeline.evaluation.protocol import evaluate

TOLERANCE_DB = 0.01
"""Processors round differently: below this a PSNR is the recorded one."""
DIFFERS = 1

Row = dict[str, object]


def shipped(*, score: bool = False, dataset: References | None = None, json: bool = False) -> int:
    """Show the networks that ship: their recorded scores beside the papers', and their trainings.

    Args:
        score: score each network again, in float32, wherever it has a recorded score; exit code 1
            where a PSNR differs by more than 0.01 dB
        dataset: these sets alone
        json: print one JSON object and nothing else
    """
    rows: list[Row] = []
    differing = 0
    for name in shipped_weights():
        recorded = [row for row in recorded_rows(name) if not dataset or row["dataset"] in dataset]
        again = _psnr_again(name, recorded) if score else {}
        for row in recorded:
            now = again.get((row["dataset"], row["qf"]))
            rows.append(_row(name, row))
            if now is not None:
                difference = now - row["psnr"]
                rows[-1] |= {"now": round(now, 4), "difference": round(difference, 4)}
                differing += abs(difference) > TOLERANCE_DB
    trainings = [{"network": name, **training_of(name)} for name in shipped_weights()]
    if json:
        print_json({"scores": rows, "trainings": trainings})
    else:
        show_table(rows, spare=("psnr_b", "ssim"))
        show_table(trainings)
    if differing:
        notes.print(f"[red]{differing} of {len(rows)} scores are not as recorded[/]")
    return DIFFERS if differing else 0


def _row(name: str, recorded: Mapping) -> Row:
    paper = next((row for row in recorded["published"] if row["psnr"] is not None), None)
    return {
        "set": recorded["dataset"],
        "qf": recorded["qf"],
        "": name,
        **{metric: round(recorded[metric], 4) for metric in ("psnr", "ssim", "psnr_b")},
        "published": "" if paper is None else f"{paper['psnr']:.2f} ({paper['paper']})",
        "ours less it": "" if paper is None else round(recorded["psnr"] - paper["psnr"], 2),
    }


def _psnr_again(name: str, recorded: Sequence[Mapping]) -> dict[tuple[str, int], float]:
    """Score a shipped network wherever it has a recorded score; dB by set and quality factor."""
    restorer, found = open_network(name).restorer, {}
    for reference in dict.fromkeys(row["dataset"] for row in recorded):
        qfs = [row["qf"] for row in recorded if row["dataset"] == reference]
        with shown(f"{name} on {reference}") as update:
            result = evaluate(restorer, images_of(reference, update), reference, qfs)
        found |= {(reference, row.qf): row.metrics["psnr"] for row in result.rows}
    return found
