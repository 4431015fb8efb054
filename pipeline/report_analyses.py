"""Rate-distortion curves and QF-transfer matrices for a report, within a limit of time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluate import NamedImage
from pipeline.qf_transfer import QfTransfer
from pipeline.rate_distortion import JPEG, QFS, RateDistortion, rate_distortion
from pipeline.scores import EvaluationResult
from pipeline.tiles import Restorer

SCORING_S_PER_MPX = 0.25
"""Seconds that compressing and scoring take beside the network, a million pixels."""


@dataclass(frozen=True, kw_only=True)
class Analysed:
    """A network that takes part in the analyses."""

    restorer: Restorer
    architecture: str | None
    qfs: tuple[int, ...]
    """Quality factors that it was trained for."""
    seconds_per_mpx: float
    """As measured in its evaluation."""


def affordable_images(
    networks: Iterable[Analysed], images: Iterable[NamedImage], seconds: float, qfs: Sequence[int]
) -> list[NamedImage]:
    """Return the first images, as many as are evaluated at all QFs in about so many seconds."""
    a_pixel = SCORING_S_PER_MPX + sum(n.seconds_per_mpx + SCORING_S_PER_MPX for n in networks)
    chosen: list[NamedImage] = []
    for name, luma in images:
        seconds -= luma.size / 1e6 * len(qfs) * a_pixel
        if seconds < 0:
            break
        chosen.append((name, luma))
    return chosen


def analyse(
    networks: Mapping[str, Analysed], images: Iterable[NamedImage], dataset: str, *, seconds: float
) -> tuple[RateDistortion | None, dict[str, QfTransfer]]:
    """Return rate-distortion curves of all networks, and a matrix for each architecture.

    A matrix needs two networks of an architecture, each for one quality factor. Both analyses
    share one evaluation, of as many of the first images as `seconds` allow; None, and no matrix,
    where they allow none.
    """
    by_qf = _families(networks)
    qfs = sorted({*QFS, *(qf for family in by_qf.values() for qf in family)})
    chosen = affordable_images(networks.values(), images, seconds, qfs)
    if not chosen:
        return None, {}
    restorers = {name: network.restorer for name, network in networks.items()}
    found = rate_distortion(restorers, chosen, dataset, qfs)
    curves = {name: at_qfs(result, QFS) for name, result in found.results.items()}
    matrices = {
        architecture: QfTransfer(
            jpeg=at_qfs(found.results[JPEG], sorted(family)),
            restored={
                qf: at_qfs(found.results[name], sorted(family)) for qf, name in family.items()
            },
        )
        for architecture, family in by_qf.items()
    }
    return RateDistortion(results=curves), matrices


def at_qfs(result: EvaluationResult, qfs: Sequence[int]) -> EvaluationResult:
    """Return the part of a result that is of these quality factors."""
    kept = tuple(score for score in result.per_image if score.qf in qfs)
    return EvaluationResult(dataset=result.dataset, degradation=result.degradation, per_image=kept)


def _families(networks: Mapping[str, Analysed]) -> dict[str, dict[int, str]]:
    """Return architecture -> QF -> name, of architectures with networks for two QFs or more."""
    families: dict[str, dict[int, str]] = {}
    for name, network in networks.items():
        if network.architecture is not None and len(network.qfs) == 1:
            families.setdefault(network.architecture, {}).setdefault(network.qfs[0], name)
    return {architecture: found for architecture, found in families.items() if len(found) > 1}
