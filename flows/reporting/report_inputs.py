"""What goes into a report: networks that were scored, pictures of them, and the analyses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flows.planning.evaluated_images import images_of
from flows.settings import git_commit, settings
from pipeline.evaluation.scores import EvaluationResult
from pipeline.images.degrade import STANDARD
from pipeline.networks.restorer import Restorer
from pipeline.reports.analyses import Analysed, Analyses, analyse
from pipeline.reports.picture_sections import choose_images, picture_of
from pipeline.reports.report_data import Picture, Report, ReportedNetwork, surroundings

MOST_PICTURES = 12
"""Of one report."""
PICTURES_EACH = 4
"""Of one network; fewer where a report has several."""
LEFT_OUT = (
    "Rate-distortion curves and the QF-transfer matrix are left out: a detail of one image would "
    "take more than {seconds:g} seconds here (QFACTORY_REPORT_SECONDS). `qfactory analyze "
    "rate-distortion` and `qfactory analyze transfer` make them."
)


@dataclass(frozen=True, kw_only=True)
class ScoredNetwork:
    """A network of a report that can be called again."""

    reported: ReportedNetwork
    open: Callable[[], Restorer]
    qfs: tuple[int, ...] = ()
    """Quality factors that it was trained for; none where that is not known."""


def report_of(
    title: str,
    command: str,
    networks: Sequence[ScoredNetwork],
    *,
    jpeg: Sequence[EvaluationResult] = (),
) -> Report:
    """Return the report of networks' scores, or of JPEG's own, with pictures and analyses added.

    The analyses are of the first set, and left out, with a note, where even one image takes long.
    """
    opened = {network.reported.name: network.open() for network in networks}
    analyses, notes = Analyses(), ()
    if (gate := _analysed_set(networks, jpeg)) is not None:
        analyses = _analyses(gate, networks, opened)
        if analyses.curves is None:
            notes = (LEFT_OUT.format(seconds=settings().report_seconds),)
    return Report(
        title=title,
        command=command,
        created=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        networks=tuple(network.reported for network in networks),
        jpeg=tuple(jpeg),
        pictures=tuple(_pictures(networks, opened)),
        transfers=analyses.matrices,
        rate_distortion=analyses.curves,
        analysed=analyses.images,
        made={"commit": git_commit(), **surroundings()},
        notes=notes,
    )


def _pictures(
    networks: Sequence[ScoredNetwork], opened: Mapping[str, Restorer]
) -> Iterator[Picture]:
    """Yield pictures of each network's first set, at its first quality factor."""
    each = max(1, min(PICTURES_EACH, MOST_PICTURES // max(1, len(networks))))
    for network in networks[:MOST_PICTURES]:
        name = network.reported.name
        comparison = network.reported.scores[0]
        qf = comparison.restored.per_image[0].qf
        chosen = choose_images(comparison, qf, each)
        images = dict(images_of(comparison.restored.dataset, names=chosen))
        for image in chosen:
            yield picture_of((image, images[image]), comparison, qf, opened[name], name)


def _analysed_set(
    networks: Sequence[ScoredNetwork], jpeg: Sequence[EvaluationResult]
) -> str | None:
    """Return the first set that something was scored on by the standard protocol."""
    first = [network.reported.scores[0].restored for network in networks] or [*jpeg]
    return next((one.dataset for one in first if one.degradation == STANDARD), None)


def _analyses(
    dataset: str, networks: Sequence[ScoredNetwork], opened: Mapping[str, Restorer]
) -> Analyses:
    analysed = {
        network.reported.name: Analysed(
            restorer=opened[network.reported.name],
            architecture=network.reported.architecture,
            qfs=network.qfs,
            scores=network.reported.scores[0],
        )
        for network in networks
        if network.reported.scores[0].restored.degradation == STANDARD
    }
    return analyse(analysed, images_of(dataset), dataset, seconds=settings().report_seconds)
