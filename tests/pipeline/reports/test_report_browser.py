"""The report in a real browser: divider, zoom, sorting, no request, no error, wide and narrow."""

from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.reports.html import save_page
from pipeline.reports.sections import charts_of
from tests.support.browsers import NEEDED, chromium_path
from tests.support.reports import whole_report

if NEEDED:
    from playwright import sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 90_000


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of this machine."""
    found = chromium_path()
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=found, args=ARGUMENTS, timeout=PATIENCE_MS
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The file of a report with every section."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    save_page(whole_report(), path)
    return path


class Opened:
    """A report in a window, with all that the browser asked for and complained of."""

    def __init__(self, browser, file, width=1600, height=1000, scheme="light", touch=False):
        viewport = {"width": width, "height": height}
        context = browser.new_context(
            viewport=viewport, color_scheme=scheme, has_touch=touch, is_mobile=touch
        )
        context.set_default_timeout(PATIENCE_MS)
        self.page = context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
        self.drawn()

    def drawn(self):
        """Wait until every open chart is drawn."""
        self.until(
            "[...document.querySelectorAll('[open] .plot')].every(p => p.querySelector('svg'))"
        )

    def until(self, condition):
        """Wait for what JavaScript says; Playwright's own way breaks the page's policy."""
        for _ in range(PATIENCE_MS // 100):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(100)
        raise TimeoutError(condition)

    def column(self, number):
        """The texts of a column of the table, by its place."""
        cells = f"#scores tbody tr > :nth-child({number + 1})"
        return self.page.locator(cells).all_inner_texts()

    def split(self):
        """Where the right picture begins, in percent of the stage, as it is drawn."""
        return self.page.locator(".compare .over").first.evaluate(
            "side => parseFloat(getComputedStyle(side).clipPath.match(/([\\d.]+)%\\)$/)[1])"
        )

    def rests_at(self, percent):
        """Whether the right picture begins there, within 1 %, once what was moved is drawn."""
        for _ in range(PATIENCE_MS // 100):
            if abs(self.split() - percent) <= 1:
                return True
            self.page.wait_for_timeout(100)
        return False

    def transform(self):
        """(enlargement, x, y) of the picture, in pixels of the window."""
        return self.page.locator(".compare .over img").first.evaluate(
            "image => { const m = new DOMMatrix(getComputedStyle(image).transform);"
            " return [m.a, m.e, m.f]; }"
        )


@contextmanager
def opening(browser, file):
    window = Opened(browser, file)
    yield window
    assert window.complaints == []
    addresses = {url for url in window.requests if urlsplit(url).scheme != "data"}
    assert addresses == {file.as_uri()}
    window.page.context.close()


@pytest.fixture
def opened(browser, file):
    with opening(browser, file) as window:
        yield window


@pytest.fixture(scope="module")
def shared(browser, file):
    """A window for tests that leave it as they found it."""
    with opening(browser, file) as window:
        yield window


def test_every_chart_is_drawn(shared):
    assert shared.page.locator(".plot svg").count() == len(charts_of(whole_report()))
    marks = shared.page.locator("[data-chart='rate-distortion-1'] svg [role='graphics-symbol']")
    assert marks.count() > 0


def test_the_divider_follows_the_mouse(opened):
    stage = opened.page.locator(".compare .stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    middle = box["y"] + box["height"] / 2
    assert opened.split() == 50
    opened.page.mouse.move(box["x"] + box["width"] / 2, middle)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] / 5, middle, steps=5)
    assert opened.rests_at(20)
    opened.page.mouse.move(box["x"] - 50, middle)
    opened.page.mouse.up()
    assert opened.rests_at(0)
    opened.page.mouse.move(box["x"] + box["width"] / 2, middle)
    assert opened.split() == 0, "it was let go"


def test_the_divider_obeys_the_keyboard(opened):
    divider = opened.page.locator(".compare .divider").first
    divider.focus()
    for key, place in (("ArrowRight", 52), ("Shift+ArrowLeft", 42), ("Home", 0), ("End", 100)):
        divider.press(key)
        assert opened.split() == place
        assert divider.get_attribute("aria-valuenow") == str(place)


def test_the_divider_follows_a_finger(browser, file):
    window = Opened(browser, file, width=375, height=800, touch=True)
    stage = window.page.locator(".compare .stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    finger = window.page.context.new_cdp_session(window.page)

    def touch(kind, *shares):
        points = [{"x": box["x"] + box["width"] * s, "y": box["y"] + 20} for s in shares]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.75)
    assert window.rests_at(75)
    for share in (0.65, 0.5, 0.35, 0.25):
        touch("touchMove", share)
    assert window.rests_at(25)
    touch("touchEnd")
    assert window.rests_at(25)
    assert window.complaints == []
    window.page.context.close()


def test_a_window_that_is_resized_is_drawn_anew_once_it_rests(browser, file):
    window = Opened(browser, file)
    page = window.page
    page.evaluate(
        "() => { const embed = vegaEmbed; window.counts = {drawn: 0, ended: 0};"
        " window.vegaEmbed = async (...given) => {"
        " counts.drawn += 1; const made = await embed(...given); const end = made.finalize;"
        " made.finalize = () => { counts.ended += 1; end(); }; return made; }; }"
    )
    charts = page.locator("[open] .plot").count()
    page.set_viewport_size({"width": 900, "height": 1000})
    page.evaluate("for (let n = 0; n < 5; n += 1) dispatchEvent(new Event('resize'))")
    window.until(f"counts.drawn >= {charts}")
    page.wait_for_timeout(1000)
    assert page.evaluate("counts.drawn") <= 2 * charts, "not for each of six events"
    drawn = page.evaluate("counts.drawn")
    page.set_viewport_size({"width": 375, "height": 1000})
    window.until(f"counts.drawn >= {drawn + charts}")
    assert page.evaluate("counts.ended") >= charts, "what was drawn before is let go"
    window.drawn()
    assert page.locator("[open] .plot svg").count() == charts
    assert window.complaints == []
    page.context.close()


def test_pictures_are_enlarged_in_step_and_moved_around(opened):
    page = opened.page
    stage = page.locator(".compare .stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert opened.transform() == [1, 0, 0]
    page.locator(".compare [data-zoom='4']").first.click()
    enlargement, x, y = opened.transform()
    assert enlargement == 4
    assert x == pytest.approx(-1.5 * box["width"], rel=0.01), "the middle stays in the middle"
    assert y == pytest.approx(-1.5 * box["height"], rel=0.01)
    under = page.locator(".compare .under img").first
    assert under.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"
    page.mouse.move(box["x"] + 20, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 80)
    page.mouse.up()
    assert opened.transform() == pytest.approx([4, x + 60, y + 20], abs=1)
    assert opened.split() == 50, "what was dragged is the picture"
    stage.focus()
    stage.press("ArrowRight")
    assert opened.transform()[1] < x + 60
    page.locator(".compare [data-zoom='1']").first.click()
    assert opened.transform() == [1, 0, 0]


def test_any_two_of_the_pictures_can_be_compared(opened):
    sources = [
        image.get_attribute("src")
        for image in opened.page.locator(".compare").first.locator("[data-layer]").all()
    ]
    assert len(set(sources)) == 5, "JPEG, restored, original, two error maps"
    opened.page.locator("select.right").first.select_option("restored-error")
    opened.page.locator("select.left").first.select_option("original")
    assert opened.page.locator(".compare .over img").first.get_attribute("src") == sources[4]
    assert opened.page.locator(".compare .under img").first.get_attribute("src") == sources[2]
    assert opened.page.locator(".tag-left").first.inner_text() == "original"


def test_a_click_on_a_heading_sorts_and_a_third_one_restores(shared):
    headings = shared.page.locator("#scores thead th")
    titles = headings.all_inner_texts()
    number = next(i for i, title in enumerate(titles) if title.startswith("PSNR,"))
    given = shared.column(number)
    button = headings.nth(number).locator("button")
    values, empty = [text for text in given if text], [text for text in given if not text]
    ascending = sorted(values, key=_leading_number)
    assert values != ascending
    for state, wanted in (
        ("descending", sorted(values, key=_leading_number, reverse=True) + empty),
        ("ascending", ascending + empty),
        ("none", given),
    ):
        button.click()
        assert headings.nth(number).get_attribute("aria-sort") == state
        assert list(map(_leading_number, shared.column(number))) == list(
            map(_leading_number, wanted)
        )


def _leading_number(text: str) -> float:
    return float(text.split()[0]) if text else -1.0


def test_rows_without_a_value_come_last_and_the_keyboard_sorts_too(shared):
    headings = shared.page.locator("#scores thead th")
    titles = headings.all_inner_texts()
    number = next(i for i, title in enumerate(titles) if "Gaussian" in title)
    button = headings.nth(number).locator("button")
    for key in ("Enter", "Space"):
        button.focus()
        button.press(key)
        texts = shared.column(number)
        filled = [bool(text.strip()) for text in texts]
        assert filled == sorted(filled, reverse=True)
        assert not all(filled)
    assert headings.nth(number).get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert headings.nth(number).get_attribute("aria-sort") == "none"


def test_papers_rows_of_other_networks_can_be_hidden(shared):
    rows = shared.page.locator("#scores tbody tr.other")
    assert rows.count() > 0
    assert rows.first.is_visible()
    shared.page.locator("#others").uncheck()
    assert not rows.first.is_visible()
    assert shared.page.locator("#scores tbody tr.published").first.is_visible()
    shared.page.locator("#others").check()
    assert rows.first.is_visible()


def test_a_chart_can_be_saved_as_a_png(shared):
    with shared.page.expect_download() as download:
        shared.page.locator(".save").first.click()
    assert download.value.suggested_filename == "gains-1.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1600])
def test_the_page_is_as_wide_as_the_window(browser, file, width, scheme):
    window = Opened(browser, file, width=width, height=800, scheme=scheme)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert window.page.evaluate(overflow) == 0
    assert window.complaints == []
    ink, paper = window.page.evaluate(
        "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
    )
    dark, light = (min((ink, paper), key=_brightness), max((ink, paper), key=_brightness))
    assert (paper == light) == (scheme == "light")
    assert _brightness(light) - _brightness(dark) > 150
    window.page.context.close()


def _brightness(colour: str) -> float:
    numbers = [float(part) for part in colour.strip("rgba()").split(",")[:3]]
    return sum(numbers) / 3
