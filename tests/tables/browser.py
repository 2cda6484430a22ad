"""Debian's chromium, headless and offline."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int, height: int = 900, **looks: Any) -> Iterator[tuple[Any, list[str]]]:
    """Open a page from disk; yield it and a list that fills with its errors and its requests to anything but files."""
    problems: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": height}, **looks)
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else problems.append(request.url))
    page.context.set_offline(True)
    page.goto(path.as_uri())
    yield page, problems
    page.close()
