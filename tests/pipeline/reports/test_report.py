"""What a report says: its rows, its sections, its files, its page without anything from outside."""

import io
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from flows.reporting.pages import mlflow_command, mlflow_server
from flows.settings import settings
from pipeline.evaluation.protocol import compare, evaluate
from pipeline.evaluation.published import all_rows
from pipeline.evaluation.rate_distortion import QFS
from pipeline.images.metrics import METRICS
from pipeline.reports.analyses import DETAIL, ScoredNetwork, affordable_images, analyse
from pipeline.reports.html import render
from pipeline.reports.picture_sections import choose_images, error_map, pixels_of
from pipeline.reports.report_data import (
    CONTENT,
    Report,
    ReportedNetwork,
    ReportError,
    cost_of,
    finite_curve,
    from_files,
    to_files,
)
from pipeline.reports.result_table import table_rows
from pipeline.reports.sections import MOST_BARS, charts_of
from tests.support.reports import HOSTILE, SIDE, small_images, smoothing, whole_report

pytestmark = pytest.mark.slow  # the page of a whole report takes seconds


class Outline(HTMLParser):
    """The ids, and the texts and addresses, of a page."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.sources, self.tags, self.text = [], [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page():
    return render(whole_report())


def test_every_section_is_there_and_linked_from_the_top(page):
    outline = Outline(page.html)
    sections = ["results", "pictures", "gains", "cost", "rate-distortion", "transfer", "curves"]
    for name in [*sections, "made"]:
        assert name in outline.ids
        assert f"#{name}" in outline.links


def test_what_is_empty_has_no_section():
    html = render(Report(title="Empty")).html
    outline = Outline(html)
    assert [name for name in outline.ids if name not in ("made",)] == []
    assert [link for link in outline.links if link.startswith("#")] == ["#made"]
    assert len(html) < 60_000, "the library of charts is left out where there is no chart"


def test_text_is_escaped_wherever_it_comes_from(page):
    outline = Outline(page.html)
    assert HOSTILE in outline.text
    assert '<script>alert("1")' not in page.html
    assert outline.tags.count("script") == 3, "the charts' data, their library, the page's own"


def test_the_page_names_no_address_outside_itself(page):
    outline = Outline(page.html)
    addresses = [*outline.sources, *outline.links]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page.html)
    assert found is not None
    policy = dict(part.strip().split(" ", 1) for part in unescape(found[1]).split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert all(source.startswith("'sha256-") for source in policy["script-src"].split())


def test_the_same_report_gives_the_same_page(page):
    assert render(whole_report()).html == page.html


def test_each_chart_is_a_png_too(page):
    assert set(page.charts) == set(charts_of(whole_report()))
    for png in page.charts.values():
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            assert min(image.size) > 100


def test_ssim_families_are_columns_of_their_own():
    rows = [row for row in table_rows(whole_report()) if row.kind in ("published", "other")]
    families = [{"ssim", "ssim_gaussian"} & set(row.metrics) for row in rows]
    assert {"ssim"} in families
    assert {"ssim_gaussian"} in families
    assert {"ssim", "ssim_gaussian"} not in families
    for row in rows:
        assert set(row.beyond) <= set(row.metrics)


def test_published_rows_stand_beside_ours_with_the_difference_of_the_better_network():
    report = whole_report()
    rows = [row for row in table_rows(report) if (row.qf, row.kind) == (10, "published")]
    place = ("arcnn", "classic5", 10)
    found = [row for row in all_rows() if (row.architecture, row.dataset, row.qf) == place]
    (printed,) = [row for row in found if row.psnr is not None]
    (row,) = [
        row for row in rows if (row.network, "psnr" in row.metrics) == (printed.network, True)
    ]
    ours = max(n.scores[0].restored.row(10).metrics["psnr"] for n in report.networks)
    assert row.metrics["psnr"] == printed.psnr
    assert row.beyond["psnr"] == pytest.approx(ours - printed.metrics["psnr"])
    assert printed.paper in row.source


def test_rows_of_an_unknown_set_or_another_protocol_have_no_papers_beside_them():
    kinds = {row.kind for row in table_rows(whole_report("mine"))}
    assert kinds == {"jpeg", "network"}
    rescaled = compare(smoothing(0.1), small_images(), "classic5", [10], "rescaled")
    report = Report(title="x", networks=(ReportedNetwork(name="a", scores=(rescaled,)),))
    assert {row.kind for row in table_rows(report)} == {"jpeg", "network"}


def test_jpeg_comes_once_for_each_set_and_quality_factor():
    rows = [row for row in table_rows(whole_report()) if row.kind == "jpeg"]
    assert [(row.dataset, row.qf) for row in rows] == [("classic5", 10), ("classic5", 20)]


def test_an_evaluation_of_jpeg_alone_is_a_report_too():
    alone = evaluate(None, small_images(), "classic5", [10])
    report = Report(title="JPEG", jpeg=(alone,))
    rows = table_rows(report)
    assert [row.kind for row in rows][:2] == ["jpeg", "published"]
    assert charts_of(report) == {}
    assert "measured, 3 images" in render(report).html


def test_two_networks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two networks have one name"):
        Report(title="x", networks=(ReportedNetwork(name="a"), ReportedNetwork(name="a")))


def test_the_files_give_the_same_report_again():
    report = whole_report()
    files = to_files(report)
    assert from_files(files.__getitem__) == report
    assert all(name == CONTENT or name.endswith(".webp") for name in files)


def test_a_foreign_content_is_refused():
    with pytest.raises(ReportError, match="another version"):
        from_files({CONTENT: json.dumps({"title": 3, "networks": "none"}).encode()}.__getitem__)


def test_the_pictures_are_those_with_the_most_and_the_least_gain():
    images = [(f"{i}", image) for i, (_, image) in enumerate(small_images())]
    comparison = compare(smoothing(0.3), images, "mine", [10])
    gains = comparison.gains_in_psnr(10)
    ordered = sorted(gains, key=lambda name: -gains[name])
    assert choose_images(comparison, 10, 2) == [ordered[0], ordered[-1]]
    assert choose_images(comparison, 10, 9) == ordered


def test_a_picture_holds_what_was_scored_and_the_error_map_what_differs():
    picture = whole_report().pictures[0]
    layers = {layer: pixels_of(content) for layer, content in picture.layers.items()}
    assert {pixels.shape for pixels in layers.values()} == {(SIDE, SIDE)}
    name, original = small_images()[0]
    assert (picture.image, picture.cut) == (name, False)
    assert np.array_equal(layers["original"], original)
    psnr = METRICS["psnr"].measure(original, layers["restored"])
    assert picture.restored_scores["psnr"] == pytest.approx(psnr)
    error = np.abs(layers["restored"].astype(int) - layers["original"])
    assert np.array_equal(
        pixels_of(error_map(picture.layers, "restored")), np.minimum(8 * error, 255)
    )


def test_charts_of_many_images_show_the_extremes_and_say_so():
    images = [(f"{i:03}", small_images()[i % 3][1][: 16 + i % 8, :]) for i in range(MOST_BARS + 5)]
    scores = compare(smoothing(0.2), images, "mine", [10])
    report = Report(title="x", networks=(ReportedNetwork(name="a", scores=(scores,)),))
    chart = charts_of(report)["gains-1"]
    assert "Of 45 images" in chart.note
    assert json.dumps(chart.chart.spec).count('"series": "a"') == MOST_BARS


def scored(restorer, scores):
    reported = ReportedNetwork(name="n", architecture="arcnn", scores=(scores,))
    return ScoredNetwork(reported=reported, restorer=restorer, qfs=(10,))


def scores_at(speed, qfs=(10,)):
    """A comparison whose network took so many seconds a million pixels."""
    found = compare(smoothing(0.1), small_images()[:1], "mine", qfs)
    timed = [replace(one, seconds=one.pixels * speed / 1e6) for one in found.restored.per_image]
    return replace(found, restored=replace(found.restored, per_image=tuple(timed)))


def test_analyses_take_the_middle_of_as_many_images_as_the_time_allows():
    network = scored(smoothing(0.1), scores_at(1.0))
    images = [(str(i), np.zeros((1000, 1000), np.uint8)) for i in range(5)]
    assert [n for n, _ in affordable_images([network], images, 3.1, [10])] == ["0", "1"]
    assert analyse([network], images, "mine", seconds=0.1).curves is None
    a_detail = DETAIL**2 / 1e6 * len(QFS) * 1.5
    found = analyse([network], images, "mine", seconds=2.5 * a_detail)
    assert found.curves is not None
    pixels = {one.image: one.pixels for one in found.curves.results["n"].per_image}
    assert pixels == {"0": DETAIL**2, "1": DETAIL**2}
    (note,) = {
        chart.note
        for chart in charts_of(
            Report(title="x", rate_distortion=found.curves, analysed=found.images)
        ).values()
    }
    assert "Mean over 2 images of mine, cut to the middle 256x256 pixels" in note


def test_an_evaluation_at_all_quality_factors_is_not_made_again():
    def never(luma, table):
        raise AssertionError("called again")

    scores = scores_at(1.0, QFS)
    network = scored(never, scores)
    found = analyse([network], iter(()), "mine", seconds=0)
    assert found.curves is not None
    assert found.curves.results == {"JPEG": scores.jpeg, "n": scores.restored}
    assert found.images == ""


def test_a_lone_mark_is_no_chart_and_its_costs_are_told_all_the_same():
    scores = compare(smoothing(0.2), small_images(), "mine", [10])
    cost = cost_of("arcnn")
    alone = ReportedNetwork(name="a", architecture="arcnn", cost=cost, scores=(scores,))
    report = Report(title="x", networks=(alone,))
    assert {chart.section for chart in charts_of(report).values()} == {"gains"}
    assert f"{cost.parameters:,}" in Outline(render(report).html).text


def test_the_matrix_is_of_networks_of_one_architecture_and_the_curves_of_all():
    report = whole_report()
    (transfer,) = report.transfers.values()
    assert [*report.transfers] == ["arcnn"]
    assert (transfer.trained_qfs, transfer.input_qfs) == ((10, 20), (10, 20))
    first, second = report.networks
    assert transfer.gain(10, 20) == pytest.approx(first.scores[0].gain(20))
    assert transfer.gain(20, 20) == pytest.approx(second.scores[0].gain(20))
    curves = report.rate_distortion
    assert curves is not None
    assert [*curves.results] == ["JPEG", first.name, second.name]
    assert [row.qf for row in curves.results["JPEG"].rows] == [*range(10, 91, 10)]


def test_a_diverged_training_has_a_curve_up_to_there():
    assert finite_curve([(30, float("nan")), (20, 0.2), (10, 0.3)]) == ((10, 0.3), (20, 0.2))


def test_links_to_mlflow_carry_no_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example:5000")
    settings.cache_clear()
    told = mlflow_server(), mlflow_command()
    monkeypatch.undo()
    settings.cache_clear()
    assert told == ("https://mlflow.example:5000", "open https://mlflow.example:5000")
