"""Grids of the terminal that lose nothing where it is narrow: what does not fit side by side is stacked."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as Grid

UNBOUNDED = 100_000  # columns


class Fitted:
    """A grid where the terminal is wide enough for all of it, else its lines one below another, each text after its head.

    Args:
        heads: Heads of the columns; the first names the lines, and several lines may bear one name.
        lines: The texts of each line, whose brackets are no markup; what is empty is left out where lines are stacked.
        title: Stands above.
        num_names: Columns, from the first on, that name a line: their heads are left out where lines are stacked.
    """

    def __init__(self, heads: Sequence[str], lines: Iterable[Sequence[str]], *, title: str, num_names: int = 1) -> None:
        self.num_names = num_names
        self.heads, self.title = [escape(head) for head in heads], escape(title)
        self.lines = [[escape(text) for text in line] for line in lines]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the grid, or the stacked lines."""
        grid = self._grid()
        if Measurement.get(console, options.update(max_width=UNBOUNDED), grid).maximum <= options.max_width:
            yield grid
            return
        yield f"[italic]{self.title}[/]"
        for name, lines in groupby(self.lines, key=lambda line: line[0]):
            yield f"[bold]{name}[/]"
            for line in lines:
                named = ", ".join(line[1 : self.num_names])
                rest = zip(self.heads[self.num_names :], line[self.num_names :], strict=True)
                told = "; ".join(f"[dim]{head}[/] {text}" for head, text in rest if text)
                yield Padding((f"{named}: {told}" if named else told).replace("\n", " "), (0, 0, 0, 2))

    def _grid(self) -> Grid:
        grid = Grid(*self.heads, title=self.title)
        for column in grid.columns:
            column.overflow = "fold"
        for line in self.lines:
            grid.add_row(*line)
        return grid
