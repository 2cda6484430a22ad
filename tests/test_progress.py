"""Bars: one that comes only where something takes long, and one that is told of too few."""

import io
import time

import pytest
from rich.console import Console

from espalier.progress import count, late_bar, late_sign, progress_bar

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(("after_s", "shown"), [(60.0, False), (-1.0, True)])
def test_a_late_bar_shows_what_takes_longer(after_s: float, shown: bool) -> None:
    stream = io.StringIO()
    with late_bar(Console(file=stream, force_terminal=True, width=100), "pages", after_s=after_s) as told:
        told("index.html")
        told("runs.html")
    assert ("runs.html" in stream.getvalue()) is shown
    assert ("2/?" in stream.getvalue()) is shown


@pytest.mark.parametrize(("terminal", "after_s", "shown"), [(True, 0.0, True), (True, 60.0, False), (False, 0.0, False)])
def test_a_sign_of_life_comes_late_and_on_a_terminal_alone(terminal: bool, after_s: float, shown: bool) -> None:
    stream = io.StringIO()
    with late_sign(Console(file=stream, force_terminal=terminal, width=100), "loading [torch]", after_s=after_s):
        time.sleep(0.2)
    assert ("loading [torch] ..." in stream.getvalue()) is shown


def test_a_bar_of_known_length_that_goes_when_it_ends() -> None:
    stream = io.StringIO()
    with late_bar(Console(file=stream, force_terminal=True, width=100), "images", total=2, after_s=-1.0, transient=True) as told:
        told("reading")
        told("reading")
    assert "reading" in stream.getvalue()
    assert "2/2" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[1A\x1b[2K")  # the cursor goes up and the line is wiped


def test_a_bar_that_was_told_of_too_few_grows_and_never_passes_its_end() -> None:
    with progress_bar(None, "epochs") as progress:
        bar = progress.add_task("", total=2)
        seen = []
        for _ in range(4):
            count(progress, bar)
            seen.append((progress.tasks[0].completed, progress.tasks[0].total))
    assert seen == [(1, 2), (2, 2), (3, 3), (4, 4)]


def test_a_number_that_is_known_only_later_becomes_the_bars_end() -> None:
    stream = io.StringIO()
    with late_bar(Console(file=stream, force_terminal=True, width=80), "pages", after_s=-1.0) as told:
        told("index.html", 311)
        told("runs/a-paper/a-table-of-it/a-row-of-a-very-long-name-that-goes-on.html", 311)
    assert "2/311" in stream.getvalue()
    assert "/?" not in stream.getvalue()


def test_without_a_console_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with late_bar(None, "pages", after_s=-1.0) as told:
        told("index.html")
    assert capsys.readouterr() == ("", "")
