"""The report in a real browser: no error, no request, no sideways scrolling, usable by keyboard, readable when narrow or dark."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, opened

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium")
WIDTHS = [1280, 400]

CLIPPED = """() => [...document.querySelectorAll('p, li, h1, h2, h3, figcaption, summary')]
    .filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline')
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
CONTRAST = """() => {
    const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(part => { const c = part / 255;
        return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = light(getComputedStyle(document.body).backgroundColor);
    return [...document.querySelectorAll('.ours, .shipped, .soft, .note, .verdict, .badge, small')].map(one => {
        const ink = light(getComputedStyle(one).color);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05); });
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_works_offline(browser: Any, report_page: Path, width: int) -> None:
    with opened(browser, report_page, width=width) as (page, problems):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").inner_text() == "espalier"
        assert page.locator("ol.claims > li").count() == 14
        levels = page.eval_on_selector_all("h1,h2,h3,h4", "found => found.map(heading => +heading.tagName[1])")
        page.eval_on_selector_all("details", "found => found.forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CLIPPED) == []
    assert problems == []
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("width", WIDTHS)
def test_wide_tables_scroll_in_their_box_beside_the_names_of_their_rows(browser: Any, report_page: Path, width: int) -> None:
    with opened(browser, report_page, width=width) as (page, _):
        box = page.locator("main .box").first
        assert box.evaluate("one => one.scrollWidth > one.clientWidth && getComputedStyle(one).overflowX === 'auto'")
        box.evaluate("one => { one.scrollLeft = one.scrollWidth }")
        name, frame = box.locator("tbody th").first.bounding_box(), box.bounding_box()
        assert abs(name["x"] - frame["x"]) < 3
        assert name["width"] < 0.5 * frame["width"]


def test_the_keyboard_reaches_links_and_tables_and_shows_where_it_is(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page, width=1280) as (page, _):
        seen = []
        for _ in range(20):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("[document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle]"))
        assert {style for _, style in seen} == {"solid"}
        assert "box" in {name for name, _ in seen}
        page.keyboard.press("Enter")
        assert page.locator(".box:not([tabindex='0']), .box:not([aria-label])").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_are_named_and_their_text_is_readable(browser: Any, report_page: Path, width: int) -> None:
    with opened(browser, report_page, width=width) as (page, _):
        names = page.eval_on_selector_all("figure svg", "found => found.map(one => one.role + one.getAttribute('aria-label'))")
        assert len(names) >= 3
        assert all(name and name.startswith("img") and "scale desk" in name for name in names)
        assert len(set(names)) == len(names)
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate(CUT) == []
        assert page.evaluate(SMALLEST) >= 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_ground(browser: Any, report_page: Path, scheme: str) -> None:
    with opened(browser, report_page, width=1280, color_scheme=scheme) as (page, _):
        assert min(page.evaluate(CONTRAST)) >= 4.5


@pytest.mark.parametrize("width", WIDTHS)
def test_ten_seconds_are_enough(browser: Any, report_page: Path, width: int) -> None:
    """The first screen names the paper, the scale, published and own figures, and the verdicts."""
    with opened(browser, report_page, width=width, height=960) as (page, _):
        for text in ("Progressive DNN Compression", "scale: desk", "99.2 published", "yours, n = 2", "not run"):
            place = page.get_by_text(text).first.bounding_box()
            assert place is not None, text
            assert place["y"] + place["height"] <= 960, text
