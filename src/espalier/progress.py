"""The progress bar of whatever takes long."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_bar(console: Console | None, unit: str) -> Progress:
    """Return a bar that counts ``unit`` on ``console``; without one it shows nothing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console or Console(quiet=True), disable=console is None)


@contextmanager
def late_bar(console: Console | None, unit: str, *, after_s: float = 2.0) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each thing that is done; a bar counts them once ``after_s`` have passed.

    Args:
        console: Where the bar is shown; None shows none.
        unit: What is counted.
        after_s: What is done sooner shows nothing.
    """
    progress = progress_bar(console, unit)
    bar, began = progress.add_task("", total=None), time.monotonic()

    def told(name: str) -> None:
        progress.update(bar, advance=1, description=name)
        if not progress.live.is_started and time.monotonic() - began > after_s:
            progress.start()

    try:
        yield told
    finally:
        progress.stop()
