"""The report in a real browser: no error, no request, no sideways scrolling."""

import itertools
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_works_offline(report_page: Path, width: int) -> None:
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else problems.append(request.url))
        page.goto(report_page.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").inner_text() == "espalier"
        assert page.locator("ol.claims > li").count() == 14
        assert page.locator("svg[role=img][aria-label]").count() >= 1
        levels = page.eval_on_selector_all("h1,h2,h3,h4", "found => found.map(heading => +heading.tagName[1])")
        browser.close()
    assert problems == []
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
