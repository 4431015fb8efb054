"""The command that puts two registered versions side by side. No Prefect, no Ray."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from flows.commands.models_registry import open_registry
from flows.console import out, print_json, show_table, shown
from flows.parameters import QualityFactors, Reference
from flows.planning.beside_jpeg import gate_scores
from flows.planning.evaluated_images import images_of
from flows.planning.named_networks import open_network
from flows.reporting.score_tables import SPARE
from pipeline.evaluation.protocol import evaluate
from pipeline.evaluation.scores import EvaluationResult
from pipeline.images.degrade import STANDARD, Protocol
from storage.registry.gate import COMPARED, Decision, GateScores, decide
from storage.registry.registered_version import RegisteredVersion, RegistryError, scores_of


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Two versions, scored alike."""

    rows: list[dict[str, object]]
    """Set, quality factor, whose, and the metrics; the last of three is the difference."""
    decision: Decision
    """What the gate says of the second version if the first is champion."""
    images: dict[str, int] | None = None
    """On how many, over all quality factors, the PSNR of the second is `better`, `worse`, `equal`;
    None where only recorded means are compared."""


def compare(
    a: str,
    b: str,
    *,
    dataset: Reference | None = None,
    qf: QualityFactors | None = None,
    degradation: Protocol = STANDARD,
    json: bool = False,
) -> None:
    """Compare two versions: metric by metric, image by image, and what the gate would say.

    With a dataset both are scored on it now, else their recorded gate scores are compared. Nothing
    is written or promoted.

    Args:
        a: NAME (its champion), NAME@ALIAS or NAME/VERSION; it stands for the champion
        b: the same; it stands for the version that would take its place
        dataset: a set to score both on now
        qf: JPEG quality factors of the inputs; by default those of the recorded gate scores
        degradation: `image` compresses the images as they are, `rescaled` makes them smaller first
        json: print one JSON object and nothing else
    """
    registry = open_registry()
    first, second = registry.resolve(a), registry.resolve(b)
    if dataset is None:
        if qf is not None:
            raise ValueError("--qf: recorded scores have theirs; give a --dataset to score on")
        found = _recorded(first, second)
    else:
        qfs = qf or _recorded_qfs(first, second)
        found = _scored(first, second, dataset, qfs, degradation)
    if json:
        answer = {"a": first.uri, "b": second.uri, "rows": found.rows, "images": found.images}
        print_json({**answer, "gate": asdict(found.decision)})
        return
    show_table(found.rows, f"{first.uri}, {second.uri}, and what the second gains", spare=SPARE)
    if found.images is not None:
        told = ", ".join(f"{count} {how}" for how, count in found.images.items())
        out.print(f"PSNR, image by image: {told}")
    out.print(f"the gate: {found.decision.alias}, {found.decision.reason}", markup=False)


def _recorded(first: RegisteredVersion, second: RegisteredVersion) -> SideBySide:
    before, after = _known(first), _known(second)
    rows: list[dict[str, object]] = [
        {"set": s.label, "": v.uri, **{name: getattr(s, name) for name in COMPARED}}
        for v, s in ((first, before), (second, after))
    ]
    if before.label == after.label:
        gains = {name: getattr(after, name) - getattr(before, name) for name in COMPARED}
        rows.append({"set": before.label, "": "difference", **gains})
    return SideBySide(rows=rows, decision=decide(after, before))


def _known(version: RegisteredVersion) -> GateScores:
    if (scores := scores_of(version)) is None:
        raise RegistryError(f"{version.uri} has no recorded gate scores: give a --dataset")
    return scores


def _recorded_qfs(first: RegisteredVersion, second: RegisteredVersion) -> list[int]:
    known = [scores for version in (first, second) if (scores := scores_of(version))]
    qfs = sorted({qf for scores in known for qf in scores.qfs})
    if not qfs:
        raise ValueError("no quality factors are recorded for these versions: give --qf")
    return qfs


def _scored(
    first: RegisteredVersion,
    second: RegisteredVersion,
    dataset: str,
    qfs: Sequence[int],
    degradation: Protocol,
) -> SideBySide:
    results = [_evaluated(version.uri, dataset, qfs, degradation) for version in (first, second)]
    before, after = results
    rows: list[dict[str, object]] = []
    for ours, theirs in zip(after.rows, before.rows, strict=True):
        gains = {name: value - theirs.metrics[name] for name, value in ours.metrics.items()}
        lines = ((first.uri, theirs.metrics), (second.uri, ours.metrics), ("difference", gains))
        rows += [{"set": ours.label, "qf": ours.qf, "": who, **m} for who, m in lines]
    return SideBySide(
        rows=rows,
        decision=decide(gate_scores(after, qfs), gate_scores(before, qfs)),
        images=_images(before, after),
    )


def _evaluated(
    uri: str, dataset: str, qfs: Sequence[int], degradation: Protocol
) -> EvaluationResult:
    restorer = open_network(uri).restorer
    with shown(f"evaluate {uri} on {dataset}") as update:
        return evaluate(restorer, images_of(dataset, update), dataset, qfs, degradation)


def _images(before: EvaluationResult, after: EvaluationResult) -> dict[str, int]:
    gains = [
        ours.metrics["psnr"] - theirs.metrics["psnr"]
        for ours, theirs in zip(after.per_image, before.per_image, strict=True)
    ]
    return {
        "better": sum(gain > 0 for gain in gains),
        "worse": sum(gain < 0 for gain in gains),
        "equal": sum(gain == 0 for gain in gains),
    }
