"""The progress bar of whatever takes long."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

MAX_NAME = 30  # characters of what is under way
PATIENCE_S = 2.0  # what takes no longer shows no late bar


def progress_bar(console: Console | None, unit: str, *, transient: bool = False) -> Progress:
    """Return a bar that counts ``unit`` on ``console``; without one it shows nothing, a transient one goes when it ends."""
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=MAX_NAME)),
        BarColumn(),  # gives way where it is narrow, and no figure does
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(unit, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    return Progress(*columns, console=console or Console(quiet=True), disable=console is None, transient=transient)


def terminal() -> Console | None:
    """Return the error stream where it is a terminal."""
    console = Console(stderr=True)
    return console if console.is_terminal else None


def count(progress: Progress, bar: TaskID) -> None:
    """Count one; where more come than the bar was told of, its total grows with them."""
    progress.advance(bar)
    task = progress.tasks[progress.task_ids.index(bar)]
    if task.total is not None and task.completed > task.total:
        progress.update(bar, total=task.completed)


@contextmanager
def late_sign(console: Console | None, doing: str, *, after_s: float = PATIENCE_S) -> Iterator[None]:
    """Show on a terminal that something is under way, once it has taken ``after_s``; elsewhere nothing."""
    if console is None or not console.is_terminal:
        yield
        return
    sign = console.status(f"{escape(doing)} ...")
    timer = threading.Timer(max(0.0, after_s), sign.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may be about to start the sign
        sign.stop()


@contextmanager
def late_bar(
    console: Console | None, unit: str, *, total: int | None = None, after_s: float = PATIENCE_S, transient: bool = False
) -> Iterator[Callable[..., None]]:
    """Yield a function to call with the name of each thing that is done; a bar counts them once ``after_s`` have passed.

    Where their number is known only later, the function takes it beside the name.

    Args:
        console: Where the bar is shown; None shows none.
        unit: What is counted.
        total: How many there are, where that is known.
        after_s: What is done sooner shows nothing.
        transient: Whether the bar goes when it ends.
    """
    progress = progress_bar(console, unit, transient=transient)
    bar, began = progress.add_task("", total=total), time.monotonic()

    def told(name: str, of: int | None = None) -> None:
        progress.update(bar, advance=1, description=name, total=total if of is None else of)
        if not progress.live.is_started and time.monotonic() - began > after_s:
            progress.start()

    try:
        yield told
    finally:
        progress.stop()
