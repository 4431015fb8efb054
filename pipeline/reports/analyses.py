"""Rate-distortion curves and QF-transfer matrices for a report, within a limit of time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.evaluation.cross_quality import QfTransfer
from pipeline.evaluation.protocol import NamedImage
from pipeline.evaluation.rate_distortion import JPEG, QFS, RateDistortion, rate_distortion
from pipeline.evaluation.scores import Comparison, EvaluationResult
from pipeline.networks.restorer import Restorer
from pipeline.reports.picture_sections import middle
from pipeline.reports.report_data import ReportedNetwork

SCORING_S_PER_MPX = 0.25
"""Seconds that compressing and scoring take beside the network, a million pixels."""
DETAIL = 256
"""Largest side of what is evaluated of an image, in pixels; a multiple of the JPEG's 8."""
CUT = f"cut to the middle {DETAIL}x{DETAIL} pixels"


@dataclass(frozen=True, kw_only=True)
class ScoredNetwork:
    """A network of a report that can be called again."""

    reported: ReportedNetwork
    restorer: Restorer
    qfs: tuple[int, ...] = ()
    """Quality factors that it was trained for; none where that is not known."""

    @property
    def scores(self) -> Comparison:
        """Its evaluation on the first set: the speed, and the results where they are enough."""
        return self.reported.scores[0]


@dataclass(frozen=True, kw_only=True)
class Analyses:
    """What the analyses found; nothing where there was no time for it."""

    curves: RateDistortion | None = None
    matrices: Mapping[str, QfTransfer] = field(default_factory=dict)
    """By architecture."""
    images: str = ""
    """What was done to the images before, in words."""


def affordable_images(
    networks: Sequence[ScoredNetwork],
    images: Iterable[NamedImage],
    seconds: float,
    qfs: Sequence[int],
) -> list[NamedImage]:
    """Return the first images, as many as are evaluated at all QFs in about so many seconds."""
    speeds = [network.scores.restored.rows[0].seconds_per_mpx for network in networks]
    a_pixel = SCORING_S_PER_MPX + sum(speed + SCORING_S_PER_MPX for speed in speeds)
    chosen: list[NamedImage] = []
    for name, luma in images:
        seconds -= luma.size / 1e6 * len(qfs) * a_pixel
        if seconds < 0:
            break
        chosen.append((name, luma))
    return chosen


def analyse(
    networks: Sequence[ScoredNetwork], images: Iterable[NamedImage], dataset: str, *, seconds: float
) -> Analyses:
    """Return rate-distortion curves of all networks, and a matrix for each architecture.

    A matrix needs two networks of an architecture, each for one quality factor. Where the networks
    were evaluated at every quality factor that is needed, these are their own results on all
    images. Elsewhere both analyses share one evaluation, of the middle of as many of the first
    images as `seconds` allow.
    """
    by_qf = _families(networks)
    qfs = sorted({*QFS, *(qf for family in by_qf.values() for qf in family)})
    found, cut = _evaluated(networks, qfs), ""
    if found is None:
        details = ((name, middle(luma, DETAIL)) for name, luma in images)
        chosen = affordable_images(networks, details, seconds, qfs)
        if not chosen:
            return Analyses()
        restorers = {network.reported.name: network.restorer for network in networks}
        found, cut = rate_distortion(restorers, chosen, dataset, qfs), CUT
    curves = {name: at_qfs(result, QFS) for name, result in found.results.items()}
    matrices = {architecture: _matrix(found, family) for architecture, family in by_qf.items()}
    return Analyses(curves=RateDistortion(results=curves), matrices=matrices, images=cut)


def at_qfs(result: EvaluationResult, qfs: Sequence[int]) -> EvaluationResult:
    """Return the part of a result that is of these quality factors."""
    kept = tuple(score for score in result.per_image if score.qf in qfs)
    return EvaluationResult(dataset=result.dataset, degradation=result.degradation, per_image=kept)


def _evaluated(networks: Sequence[ScoredNetwork], qfs: Sequence[int]) -> RateDistortion | None:
    """Return the networks' own evaluations; None unless all have every quality factor."""
    scores = {network.reported.name: network.scores for network in networks}
    known = [{one.qf for one in found.restored.per_image} for found in scores.values()]
    sets = {found.restored.label for found in scores.values()}
    if len(sets) != 1 or not all(set(qfs) <= evaluated for evaluated in known):
        return None
    jpeg = next(iter(scores.values())).jpeg
    results = {JPEG: jpeg, **{name: found.restored for name, found in scores.items()}}
    return RateDistortion(results={name: at_qfs(one, qfs) for name, one in results.items()})


def _matrix(found: RateDistortion, family: Mapping[int, str]) -> QfTransfer:
    qfs = sorted(family)
    restored = {qf: at_qfs(found.results[name], qfs) for qf, name in family.items()}
    return QfTransfer(jpeg=at_qfs(found.results[JPEG], qfs), restored=restored)


def _families(networks: Sequence[ScoredNetwork]) -> dict[str, dict[int, str]]:
    """Return architecture -> QF -> name, of architectures with networks for two QFs or more."""
    families: dict[str, dict[int, str]] = {}
    for network in networks:
        reported = network.reported
        if reported.architecture is not None and len(network.qfs) == 1:
            family = families.setdefault(reported.architecture, {})
            family.setdefault(network.qfs[0], reported.name)
    return {architecture: found for architecture, found in families.items() if len(found) > 1}
