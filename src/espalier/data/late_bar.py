"""A progress bar that shows itself only where there is something to wait for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

PATIENCE_S = 2.0  # what takes no longer shows nothing


@contextmanager
def late_bar(total: int, unit: str, console: Console | None = None) -> Iterator[Callable[[], None]]:
    """Yield a function that counts one; after ``PATIENCE_S`` a bar appears.

    Args:
        total: How many there are.
        unit: What is counted.
        console: Where it is shown; None takes the error stream, and shows nothing unless that is a terminal.
    """
    console = console or Console(stderr=True)
    started = time.monotonic()
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    bar = progress.add_task(f"reading {total:,} {unit}", total=total)

    def advance() -> None:
        if not progress.live.is_started and time.monotonic() - started > PATIENCE_S:
            progress.start()
        progress.advance(bar)

    try:
        yield advance
    finally:
        progress.stop()
