"""A bar that comes only where something takes long."""

import io

import pytest
from rich.console import Console

from espalier.progress import late_bar

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(("after_s", "shown"), [(60.0, False), (-1.0, True)])
def test_a_late_bar_shows_what_takes_longer(after_s: float, shown: bool) -> None:
    stream = io.StringIO()
    with late_bar(Console(file=stream, force_terminal=True, width=100), "pages", after_s=after_s) as told:
        told("index.html")
        told("runs.html")
    assert ("runs.html" in stream.getvalue()) is shown
    assert ("2/?" in stream.getvalue()) is shown


def test_without_a_console_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with late_bar(None, "pages", after_s=-1.0) as told:
        told("index.html")
    assert capsys.readouterr() == ("", "")
