"""Papers' rows beside ours: every row well-formed, the right ones found, no SSIM families mixed."""

import numpy as np
import pytest

from models import ARCHITECTURES
from pipeline.datasets import references
from pipeline.evaluation.published import (
    JPEG,
    all_rows,
    beside,
    comparable_rows,
    json_rows,
)
from pipeline.evaluation.scores import MeanScore
from pipeline.images.degrade import Protocol
from pipeline.images.metrics import METRICS


def mean(dataset: str = "live1", qf: int = 10, degradation: Protocol = "image") -> MeanScore:
    return MeanScore(
        dataset=dataset,
        qf=qf,
        degradation=degradation,
        images=29,
        metrics={"psnr": 29.0, "ssim": 0.82, "ssim_gaussian": 0.81, "psnr_b": 28.5},
        bpp=0.3,
        seconds_per_mpx=1.0,
    )


def published_rows(architecture, dataset, qf):
    rows = comparable_rows(mean(dataset, qf))
    return [row for row in rows if row.architecture == architecture]


def test_every_row_names_images_networks_and_values_that_can_be():
    for row in all_rows():
        assert row.architecture in {"", JPEG, *ARCHITECTURES}
        assert references.parse(row.dataset).dataset is not None
        assert row.dataset in {"live1", "classic5", "bsds500:test"}
        assert 1 <= row.qf <= 100
        assert row.metrics
        assert row.psnr is None or 24 < row.psnr < 40
        assert row.ssim is None or 0.7 < row.ssim < 1
        if row.psnr is not None and row.psnr_b is not None:
            assert row.psnr - 3 < row.psnr_b <= row.psnr
        assert row.ssim_family in {"uniform", "gaussian"}
        assert row.paper
        assert row.table
        assert (row.ssim is None) or {row.ssim_metric} < set(METRICS)


def test_no_row_stands_twice():
    keys = [(r.network, r.paper, r.dataset, r.qf) for r in all_rows()]
    assert len(keys) == len(set(keys))


def test_quality_never_falls_from_one_quality_factor_to_the_next():
    """A slip of the pen in a table shows as a jump."""
    series: dict[tuple[str, str, str], list] = {}
    for row in all_rows():
        series.setdefault((row.network, row.paper, row.dataset), []).append(row)
    for rows in series.values():
        for metric in ("psnr", "ssim", "psnr_b"):
            values = [v for r in sorted(rows, key=lambda r: r.qf) if (v := getattr(r, metric))]
            assert values == sorted(values)
            assert metric == "ssim" or (np.diff(values) < 4).all()


def test_each_of_a_networks_published_rows_is_found_and_told_apart():
    first, dcrn, second = published_rows("arcnn", "live1", 10)
    assert (first.psnr, second.psnr) == (29.13, 28.96)
    assert (first.ssim_family, second.ssim_family) == ("uniform", "gaussian")
    assert len({first.label, dcrn.label, second.label}) == 3
    assert "released weights" in second.note
    assert dcrn.metrics == {"psnr_b": 28.77}
    assert [r.psnr for r in published_rows("cascnn", "live1", 40)] == [33.98, 34.10]
    assert [r.psnr for r in published_rows("dmcnn", "live1", 10)] == [29.73]
    assert [r.psnr for r in published_rows("dcrn", "classic5", 30)] == [33.15]
    assert [(r.ssim, r.psnr_b) for r in published_rows("l4", "live1", 40)] == [(None, None)]


@pytest.mark.parametrize(
    ("network", "dataset", "qf", "paper", "table", "metrics"),
    [
        ("SA-DCT", "live1", 40, "CAS-CNN", "Table II", (32.99, 0.924, 31.79)),
        ("AR-CNN", "live1", 40, "CAS-CNN", "Table II", (33.63, 0.931, 33.12)),
        ("L4", "live1", 40, "CAS-CNN", "Table II", (33.77, None, None)),
        ("L8", "live1", 20, "CAS-CNN", "Table II", (31.51, 0.891, 30.92)),
        ("CAS-CNN multi-scale", "live1", 20, "CAS-CNN", "Table II", (31.67, 0.894, 30.84)),
        ("CAS-CNN fine-tuned", "live1", 20, "CAS-CNN", "Table II", (31.70, 0.895, 30.88)),
        ("TNRD", "live1", 10, "DMCNN", "Table 1", (29.24, 0.825, 28.90)),
        ("DnCNN-3", "live1", 20, "DMCNN", "Table 1", (31.62, 0.894, 30.89)),
        ("AR-CNN", "bsds500:test", 10, "DMCNN", "Table 2", (29.10, None, None)),
        ("TNRD", "bsds500:test", 20, "DMCNN", "Table 2", (31.41, None, None)),
        ("DnCNN-3", "bsds500:test", 20, "DMCNN", "Table 2", (31.50, None, None)),
        ("DDCN", "bsds500:test", 10, "DMCNN", "Table 2", (29.59, 0.838, 29.18)),
        ("DMCNN", "bsds500:test", 10, "DMCNN", "Table 2", (29.67, 0.840, 29.33)),
        ("AR-CNN", "classic5", 30, "DCRN", "not stated", (None, None, 32.00)),
        ("AR-CNN", "live1", 20, "DCRN", "not stated", (None, None, 30.79)),
    ],
)
def test_a_value_stands_under_the_paper_that_prints_it(network, dataset, qf, paper, table, metrics):
    (row,) = [
        row
        for row in all_rows()
        if (row.network, row.dataset, row.qf, row.paper) == (network, dataset, qf, paper)
    ]
    assert row.table == table
    assert (row.psnr, row.ssim, row.psnr_b) == metrics


def test_a_reference_finds_the_rows_of_its_images():
    assert published_rows("dmcnn", "bsds500", 10) == published_rows("dmcnn", "bsds500:test", 10)
    assert published_rows("jpeg", "live1:all", 10) == published_rows("jpeg", "live1", 10) != []
    for other in ("bsds500:val", "bsds500:test+val", "folder:live1", "nix"):
        assert published_rows("jpeg", other, 10) == []
    assert published_rows("arcnn-deep", "live1", 10) == []


def test_a_difference_is_ours_less_the_published_value_in_its_own_ssim_family():
    for row, difference in beside("arcnn", mean()):
        family = {"uniform": "ssim", "gaussian": "ssim_gaussian"}[row.ssim_family]
        other = {"ssim", "ssim_gaussian"} - {family}
        printed = {"psnr": row.psnr, family: row.ssim, "psnr_b": row.psnr_b}
        known = {name: value for name, value in printed.items() if value is not None}
        assert not other & set(difference)
        assert difference == pytest.approx({n: mean().metrics[n] - known[n] for n in known})


def test_what_is_not_comparable_is_never_shown():
    assert comparable_rows(mean(degradation="rescaled")) == []
    assert beside("dmcnn", mean(degradation="rescaled")) == []
    assert beside(None, mean()) == []


def test_rows_for_programs_say_paper_table_and_ssim_family():
    (row,) = json_rows("dmcnn", mean())
    assert (row["paper"], row["table"], row["ssim_family"]) == ("DMCNN", "Table 1", "uniform")
    assert isinstance(row["difference"], dict)
    assert set(row["difference"]) == {"psnr", "ssim", "psnr_b"}


def test_labels_leave_room_for_the_numbers():
    assert max(len(row.label) for row in all_rows() if row.architecture) <= 25
