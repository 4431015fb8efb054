"""What goes into a report: networks that were scored, pictures of them, and the analyses."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from flows.planning.evaluated_images import images_of
from flows.settings import git_commit, settings
from pipeline.evaluation.scores import EvaluationResult
from pipeline.images.degrade import STANDARD
from pipeline.reports.analyses import Analyses, ScoredNetwork, analyse
from pipeline.reports.picture_sections import choose_images, picture_of
from pipeline.reports.report_data import Picture, Report, surroundings

MOST_PICTURES = 12
"""Of one report."""
PICTURES_EACH = 4
"""Of one network; fewer where a report has several."""
LEFT_OUT = (
    "Rate-distortion curves and the QF-transfer matrix are left out: a detail of one image would "
    "take more than {seconds:g} seconds here (QFACTORY_REPORT_SECONDS). `qfactory analyze "
    "rate-distortion` and `qfactory analyze transfer` make them."
)


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
    analyses, notes, seconds = Analyses(), (), settings().report_seconds
    if (gate := _analysed_set(networks, jpeg)) is not None:
        standard = [n for n in networks if n.scores.restored.degradation == STANDARD]
        analyses = analyse(standard, images_of(gate), gate, seconds=seconds)
        if analyses.curves is None:
            notes = (LEFT_OUT.format(seconds=seconds),)
    return Report(
        title=title,
        command=command,
        created=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        networks=tuple(network.reported for network in networks),
        jpeg=tuple(jpeg),
        pictures=tuple(_pictures(networks)),
        transfers=analyses.matrices,
        rate_distortion=analyses.curves,
        analysed=analyses.images,
        made={"commit": git_commit(), **surroundings()},
        notes=notes,
    )


def _pictures(networks: Sequence[ScoredNetwork]) -> Iterator[Picture]:
    """Yield pictures of each network's first set, at its first quality factor."""
    each = max(1, min(PICTURES_EACH, MOST_PICTURES // max(1, len(networks))))
    for network in networks[:MOST_PICTURES]:
        comparison = network.scores
        qf = comparison.restored.per_image[0].qf
        chosen = choose_images(comparison, qf, each)
        images = dict(images_of(comparison.restored.dataset, names=chosen))
        for image in chosen:
            shown = (image, images[image])
            yield picture_of(shown, comparison, qf, network.restorer, network.reported.name)


def _analysed_set(
    networks: Sequence[ScoredNetwork], jpeg: Sequence[EvaluationResult]
) -> str | None:
    """Return the first set that something was scored on by the standard protocol."""
    first = [network.scores.restored for network in networks] or [*jpeg]
    return next((one.dataset for one in first if one.degradation == STANDARD), None)
