"""A small report with every section, from real evaluations of a small network."""

from functools import cache

import numpy as np

from pipeline.datasets.references import list_images
from pipeline.evaluation.protocol import compare
from pipeline.images.luma import read_luma
from pipeline.networks.restorer import Restorer
from pipeline.reports.analyses import ScoredNetwork, analyse
from pipeline.reports.picture_sections import picture_of
from pipeline.reports.report_data import Report, ReportedNetwork, cost_of
from storage import files

HOSTILE = '<script>alert("1")</script> & "co"'
SIDE = 96
CORNER = slice(128, 128 + SIDE)


@cache
def small_images() -> tuple[tuple[str, np.ndarray], ...]:
    """Return details of sample's held-out photographs, (name, luma), 96x96."""
    images = list_images("sample", root=None, purpose="evaluate")
    lumas = [(image.name, read_luma(files.read_bytes(image.uri), image.name)) for image in images]
    return tuple((name, np.ascontiguousarray(luma[CORNER][:, CORNER])) for name, luma in lumas)


def smoothing(share: float) -> Restorer:
    """Return a restorer that mixes in the mean of the neighbours, which helps at low quality."""

    def restore(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
        padded = np.pad(luma.astype(np.float64), 1, mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        return np.rint((1 - share) * luma + share * mean).astype(np.uint8)

    return restore


@cache
def whole_report(dataset: str = "classic5") -> Report:
    """Return a report of two networks on two quality factors, with every section.

    `dataset` is the name under which the photographs' details stand in it: `classic5` has
    published rows.
    """
    networks, pictures = [], []
    for name, architecture, share, qf in (
        (f"arcnn {HOSTILE}", "arcnn", 0.2, 10),
        ("arcnn-qf20", "arcnn", 0.1, 20),
    ):
        restorer = smoothing(share)
        scores = compare(restorer, small_images(), dataset, [10, 20])
        reported = ReportedNetwork(
            name=name,
            architecture=architecture,
            cost=cost_of(architecture),
            made={"recipe": "arcnn-qf10", "store version": "stores/x@3", "note": HOSTILE},
            loss=tuple((step, 1 / step) for step in range(10, 200, 10)),
            validation_psnr=((100, 28.0), (200, 28.5)),
            scores=(scores,),
        )
        networks.append(ScoredNetwork(reported=reported, restorer=restorer, qfs=(qf,)))
        pictures.append(picture_of(small_images()[0], scores, 10, restorer, name))
    analyses = analyse(networks, small_images(), dataset, seconds=60)
    return Report(
        title=f"Study {HOSTILE}",
        command="qfactory study",
        created="2026-01-01 12:00",
        networks=tuple(network.reported for network in networks),
        pictures=tuple(pictures),
        transfers=analyses.matrices,
        rate_distortion=analyses.curves,
        analysed=analyses.images,
        made={"commit": "0123456789abcdef"},
        notes=(f"a note {HOSTILE}",),
    )
