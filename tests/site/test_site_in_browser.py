"""The site in a browser, offline: no error, no request, no finding of axe, usable by keyboard, readable narrow, dark and printed."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from browser import CHROMIUM, opened
from fabricated import HOSTILE, compared

from espalier.site.links import slug
from espalier.site.pages import write_report
from espalier.tables.published import Paper

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium")
WIDTHS = [1280, 400]
PAGES = [
    "index.html",
    "papers/progressive-admm.html",
    "compare/methods.html",
    "runs.html",
    "break-even.html",
    "runs/progressive-admm/lenet5/admm-70x.html",
    f"runs/compare/methods/{slug(HOSTILE)}.html",
]
COMPARISON = "compare/methods.html"

CLIPPED = """() => [...document.querySelectorAll('p, li, h1, h2, h3, figcaption, summary, button')]
    .filter(one => one.scrollWidth > one.clientWidth + 1 && !one.classList.contains('unseen') && getComputedStyle(one).display !== 'inline')
    .map(one => one.textContent.slice(0, 40))"""
OVERLAPPING = """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
    const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    return boxes.flatMap(([name, a], i) => boxes.slice(i + 1).filter(([, b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > a.height / 3)
        .map(([other]) => `${name} / ${other}`));
})"""
CUT = """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => { const box = text.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1 || box.top < frame.top - 1; })
        .map(text => text.textContent);
})"""
SMALLEST = "() => Math.min(...[...document.querySelectorAll('figure svg text')].map(text => text.getBoundingClientRect().height))"
# without preload: axe would fetch the style sheet, which no page from disk may
FINDINGS = """async () => (await axe.run(document, {preload: false})).violations
    .map(found => `${found.impact}: ${found.id}: ${found.nodes.slice(0, 3).map(node => node.target).join(' | ')}`)"""
LOADED_MS = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"
ACTIVE = "() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_every_page_works_offline_and_axe_finds_nothing(browser: Any, site: Path, name: str, width: int, scheme: str) -> None:
    with opened(browser, site / name, width=width, color_scheme=scheme) as (page, problems):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(LOADED_MS) < 1000
        assert page.title().endswith(" - espalier")
        levels = page.eval_on_selector_all("h1,h2,h3,h4", "found => found.map(heading => +heading.tagName[1])")
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        page.eval_on_selector_all("details", "found => found.forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CLIPPED) == []
        assert page.locator(".box:not([tabindex='0']), .box:not([aria-label]), .box:not([role=region])").count() == 0
        assert page.locator("table:not(:has(caption))").count() == 0
        page.evaluate(AXE_SCRIPT)
        assert page.evaluate(FINDINGS) == []
    assert problems == []


@pytest.mark.parametrize("name", ["papers/progressive-admm.html", COMPARISON])
@pytest.mark.parametrize("width", WIDTHS)
def test_charts_are_named_and_their_text_is_readable(browser: Any, site: Path, name: str, width: int) -> None:
    with opened(browser, site / name, width=width) as (page, _):
        names = page.eval_on_selector_all("svg.chart", "found => found.map(one => one.getAttribute('aria-label'))")
        assert len(names) >= 3
        assert all("scale desk" in name for name in names)
        assert len(set(names)) == len(names)
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate(CUT) == []
        assert page.evaluate(SMALLEST) >= 7


def test_a_table_wider_than_the_page_says_so_until_its_end_is_reached(browser: Any, site: Path) -> None:
    with opened(browser, site / COMPARISON, width=1280) as (page, problems):
        box, hint = page.get_by_role("region", name="Rows, scale desk"), page.locator(".hint:visible")
        assert box.evaluate("one => one.scrollWidth <= one.clientWidth")  # seeds and source stand once, below: all columns fit
        assert hint.count() == 0
        page.set_viewport_size({"width": 400, "height": 900})
        hint.first.wait_for()
        fade = "one => getComputedStyle(one).maskImage"
        assert "gradient" in box.evaluate(fade)
        assert "scroll the table sideways" in hint.first.inner_text()
        box.evaluate("one => { one.scrollLeft = one.scrollWidth }")
        page.wait_for_function("!document.querySelector('[aria-label=\"Rows, scale desk\"]').classList.contains('more')")
        assert box.evaluate(fade) == "none"
        page.emulate_media(media="print")
        assert hint.count() == 0
    assert problems == []


BROKEN = """() => [...document.querySelectorAll('#rows-desk tbody th a')].flatMap(link => [...link.childNodes].filter(one => one.length)
    .flatMap(text => [...text.data.matchAll(/[^-_]+[-_]*/g)].filter(word => { const range = new Range();
        range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1; }).map(word => word[0])))"""


def test_names_of_rows_break_between_words_alone(browser: Any, tmp_path: Path) -> None:
    paper, records, measurements = compared(tmp_path)
    path = paper.folder / "tables" / "methods.yaml"
    path.write_text(path.read_text().replace("-block-", "-block_punched-"))
    renamed = [one.model_copy(update={"row": one.row.replace("-block-", "-block_punched-")}) for one in records if one.row != HOSTILE]
    home = write_report([Paper(paper.folder)], renamed, measurements, tmp_path / "out")
    with opened(browser, home.parent / COMPARISON, width=400) as (page, _):
        assert "magnitude-block_punched-4x" in page.locator("#rows-desk").inner_text().replace("\n", "")
        assert page.evaluate(BROKEN) == []


@pytest.mark.parametrize("width", [640, 400])
def test_wide_tables_scroll_in_their_box_beside_the_names_of_their_rows(browser: Any, site: Path, width: int) -> None:
    with opened(browser, site / COMPARISON, width=width) as (page, _):
        box = page.get_by_role("region", name="Rows, scale desk")
        assert box.evaluate("one => one.scrollWidth > one.clientWidth && getComputedStyle(one).overflowX === 'auto'")
        box.evaluate("one => { one.scrollLeft = one.scrollWidth }")
        name, frame = box.locator("tbody th").first.bounding_box(), box.bounding_box()
        assert abs(name["x"] - frame["x"]) < 3
        assert name["width"] < 0.5 * frame["width"]


def test_the_keyboard_filters_and_sorts_the_papers(browser: Any, site: Path) -> None:
    with opened(browser, site / "index.html", width=1280) as (page, problems):
        page.keyboard.press("Tab")
        assert page.evaluate(ACTIVE) == "Skip to the content"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.type") == "search"
        page.keyboard.type("crossbar isqed")
        assert page.locator("#papers tbody tr:visible").count() == 1
        assert page.locator("output").inner_text() == "1 of 27"
        page.keyboard.press("Control+A")
        page.keyboard.type("not implemented")
        assert page.locator("#papers tbody tr:visible").count() == 26
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate(ACTIVE) == "year":
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        heading, years = page.locator("#papers th", has_text="year"), "rows => rows.map(row => row.lastElementChild.textContent)"
        for order, direction in (("ascending", False), ("descending", True)):
            page.keyboard.press("Enter")
            assert heading.get_attribute("aria-sort") == order
            found = page.eval_on_selector_all("#papers tbody tr", years)
            assert found == sorted(found, reverse=direction)
            assert page.locator("#papers th[aria-sort=none]").count() == page.locator("#papers th[aria-sort]").count() - 1
    assert problems == []


def test_arrow_keys_walk_the_points_and_a_point_leads_to_its_runs(browser: Any, site: Path) -> None:
    with opened(browser, site / COMPARISON, width=1280) as (page, problems):
        chart = page.locator("svg.chart").first
        assert chart.locator(".point[tabindex='0']").count() == 1
        chart.locator(".point[tabindex='0']").focus()
        assert page.locator("#tip").inner_text() == "dense: top1_pct 92.10 ± 0.10 %, rate 1 x; n = 3"
        page.keyboard.press("ArrowRight")
        assert page.locator("#tip").inner_text().startswith("ADMM-filter-2x: top1_pct 91.65")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden()
        page.keyboard.press("Enter")
        page.wait_for_url("**/runs/compare/methods/dense.html#desk")
        assert page.locator("h1").inner_text() == "dense"
    assert problems == []


def test_a_legend_hides_a_contestant_in_every_chart(browser: Any, site: Path) -> None:
    with opened(browser, site / COMPARISON, width=1280) as (page, problems):
        points, before = page.locator(".point:visible"), page.locator(".point:visible").count()
        button = page.get_by_role("button", name="dense", exact=True).first
        button.press("Enter")
        assert button.get_attribute("aria-pressed") == "false"
        assert points.count() == before - page.locator("svg.chart").count()
        assert page.locator("svg.chart").first.locator(".point[tabindex='0']").get_attribute("aria-label").startswith("ADMM-filter-2x")
        button.press("Enter")
        assert points.count() == before
    assert problems == []


def test_the_copy_button_copies_the_command(browser: Any, site: Path) -> None:
    with opened(browser, site / "runs/progressive-admm/lenet5/admm-70x.html", width=1280) as (page, problems):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy the command of yours, seed 1").press("Enter")
        page.wait_for_function("document.getElementById('said').textContent === 'Copied'")
        assert page.evaluate("navigator.clipboard.readText()") == "espalier run progressive-admm/lenet5 row=admm-70x scale=desk seed=1"
    assert problems == []


def test_without_scripts_and_on_paper_everything_is_there(browser: Any, site: Path) -> None:
    with opened(browser, site / COMPARISON, width=800, java_script_enabled=False) as (page, _):
        assert page.locator("tbody tr:visible").count() > 20
        assert page.locator(".filter:visible, .copy:visible, th button").count() == 0
        page.emulate_media(media="print")
        assert page.locator("nav:visible, .filter:visible").count() == 0
        assert page.locator("svg.chart:visible").count() == 4
        assert page.locator(".box").first.evaluate("one => getComputedStyle(one).overflowX") == "visible"


def test_names_from_outside_run_nothing(browser: Any, site: Path) -> None:
    with opened(browser, site / f"runs/compare/methods/{slug(HOSTILE)}.html", width=1280) as (page, problems):
        assert page.locator("h1").inner_text() == HOSTILE
        assert "broken" not in page.title().replace(HOSTILE, "")
        assert page.locator("img").count() == 0
    assert problems == []


@pytest.mark.parametrize("width", WIDTHS)
def test_ten_seconds_are_enough(browser: Any, site: Path, width: int) -> None:
    """The first screen names papers, their states and scales, and where to look further; a paper's, published and own figures."""
    for name, texts in {
        "index.html": ("Comparisons", "Runs", "partly run", "not implemented", "progressive-admm", "desk"),
        "papers/progressive-admm.html": ("Progressive DNN Compression", "scale: desk", "99.2 published", "yours, n = 2", "not run"),
    }.items():
        with opened(browser, site / name, width=width, height=960) as (page, _):
            for text in texts:
                place = page.get_by_text(text).first.bounding_box()
                assert place is not None, text
                assert place["y"] + place["height"] <= 960, text
