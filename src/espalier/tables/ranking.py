"""Which figures of a table compete, which of them is the best, and how the contestants of a comparison rank.

Figures compete only within one source (published, shipped, yours), one column, hence one kind, and, where they were measured, one setting.
Those that print alike tie: a rank that rests on digits nobody is shown would look like an error. So do times of one computation: where
zeros are multiplied too, networks of the same shapes differ in nothing that a clock could see (``Cell.work``), whatever it said.
"""

import statistics
from collections.abc import Iterator, Sequence

from espalier.tables.comparison import Cell, is_known
from espalier.tables.figures import mean_text, published_text
from espalier.tables.layout import BETWEEN, place
from espalier.tables.schema import Column, Table

PARTS = ("published", "shipped", "yours")
METHOD = "method"  # what competes: the label of a comparison's row, or the key of a layout

Figure = tuple[str, str, str, str]  # row, column, part, setting


def contestant(table: Table, row: str) -> str | None:
    """Return what a row's curve is called, such as ``ADMM, filter``; None for a row of no contestant, such as the dense one."""
    labels = table.rows[row].labels
    if not table.contestants or not set(table.contestants) <= labels.keys():
        return None
    return BETWEEN.join(labels[key] for key in table.contestants)


def looks(table: Table) -> dict[str, tuple[int, int]]:
    """Return each contestant's numbers of a colour, one for each first label (the method), and of a form, one for each set of the others.

    A chart of many contestants is read by these: what shares a colour is one method, what shares a mark and dashes one structure.
    """
    first, *others = table.contestants
    labels = {name: table.rows[row].labels for row in table.rows if (name := contestant(table, row)) is not None}
    colours = list(dict.fromkeys(of[first] for of in labels.values()))
    forms = list(dict.fromkeys(tuple(of[key] for key in others) for of in labels.values()))
    return {name: (colours.index(of[first]), forms.index(tuple(of[key] for key in others))) for name, of in labels.items()}


def value_of(cell: Cell, part: str) -> float | None:
    """Return one source's figure of a cell; None where it has none, or only a text."""
    given = {"published": cell.published, "shipped": cell.shipped_mean, "yours": cell.ours_mean}[part]
    return float(given) if isinstance(given, int | float) else None


def ranks(table: Table, cells: Sequence[Cell]) -> dict[str, int]:
    """Return each contestant's place by mean accuracy in its round, 1 the best; those that tie share one.

    A round is the rows that differ in the method only: one constraint, one asked rate, for an asked rate means what its constraint counts.
    Nobody has a place until every row of the round that can run has a figure, all of equally many seeds, nor where one alone can run.
    One's own records decide where there are any, else the shipped ones: the two are never ranked among each other.
    """
    title = next((name for name, column in table.columns.items() if _is_accuracy(column)), None)
    part = ranked_part(cells)
    rounds: dict[str, dict[str, tuple[float, int] | None]] = {}
    for row in table.runnable:
        if contestant(table, row) is not None:
            rounds.setdefault(round_of(table, row), {})[row] = None
    for cell in cells:
        value = value_of(cell, part)
        if title is not None and cell.column == title and value is not None and contestant(table, cell.row) is not None:
            shown = float(mean_text(value, None, table.columns[title]).replace(",", ""))
            rounds.setdefault(round_of(table, cell.row), {})[cell.row] = shown, num_seeds(cell, part)
    places: dict[str, int] = {}
    for entries in rounds.values():
        figures = {row: figure for row, figure in entries.items() if figure is not None}
        if len(figures) == len(entries) > 1 and len({num for _, num in figures.values()}) == 1:
            places |= {row: 1 + sum(other > shown for other, _ in figures.values()) for row, (shown, _) in figures.items()}
    return places


def round_of(table: Table, row: str) -> str:
    """Return what the rows of a comparison that differ from this one in the method only have in common, such as ``filter, 4x``."""
    return BETWEEN.join(value for key, value in sorted(table.rows[row].labels.items()) if key != METHOD)


def shared_times(table: Table, cells: Sequence[Cell]) -> dict[Figure, float]:
    """Return the measured figures that are timings of one computation, each with the mean over all of that computation in its setting."""
    alike: dict[tuple[str, ...], list[tuple[Figure, float]]] = {}
    for cell in cells:
        for part, work in (("shipped", cell.shipped_work), ("yours", cell.work)):
            value = value_of(cell, part)
            if table.columns[cell.column].kind == "measured" and work and value is not None:
                alike.setdefault((cell.column, part, cell.device, work), []).append(((cell.row, cell.column, part, cell.device), value))
    return {
        figure: statistics.fmean(value for _, value in entries) for entries in alike.values() if len(entries) > 1 for figure, _ in entries
    }


def of_one_computation(table: Table, cells: Sequence[Cell]) -> list[str]:
    """Return a sentence on each measured column that holds timings of one computation: between these no row is faster."""
    shared, said = shared_times(table, cells), []
    for title in dict.fromkeys(column for _, column, _, _ in shared):
        groups: dict[tuple[str, str, float], list[str]] = {}
        for (row, column, part, setting), mean in shared.items():
            if column == title:
                groups.setdefault((part, setting, mean), []).append(row)
        rows = list(dict.fromkeys(tuple(group) for group in groups.values()))
        timed = {cell.row for cell in cells if cell.column == title and (cell.ours_mean, cell.shipped_mean) != (None, None)}
        which = "all rows are" if rows == [tuple(row for row in table.rows if row in timed)] else f"{'; '.join(map(', '.join, rows))} are"
        said.append(
            f"{title}: {which} timings of one computation (zeros are multiplied too, and no shape changed); what differs between them is "
            "noise, so they share their mean in bold and on the Pareto front."
        )
    return said


def num_seeds(cell: Cell, part: str) -> int:
    """Return the number of seeds behind one source's figure of a cell; 0 for a published one, which does not say."""
    return {"published": 0, "shipped": cell.shipped_n, "yours": len(cell.seeds)}[part]


def ranked_part(cells: Sequence[Cell]) -> str:
    """Return whose figures are ranked: ``yours`` where there are any, else ``shipped``."""
    return "yours" if any(cell.ours_mean is not None for cell in cells) else "shipped"


def _is_accuracy(column: Column) -> bool:
    return column.kind == "accuracy" and column.better == "higher" and column.computed is None


def best(table: Table, cells: Sequence[Cell]) -> set[Figure]:
    """Return the best figures, all that tie: of each column, among the figures that compete there; none where only one does, or all tie.

    The dense baseline does not compete. In a comparison rows of one round do, see ``ranks``; in a paper's grid the methods do: across a row
    where the layout's columns name them, else down a column. A layout that names no rows lists figures of one network; none competes.
    """
    rounds: dict[tuple[str, ...], list[tuple[Figure, float]]] = {}
    shared = shared_times(table, cells)
    for cell in cells:
        column = table.columns[cell.column]
        if column.better == "neither" or column.kind == "text" or table.dense_row == (table.table, cell.row):
            continue
        setting = cell.device if column.kind == "measured" else ""
        for group in _round(table, cell):
            for part in PARTS:
                value = value_of(cell, part)
                if value is not None and (part != "published" or is_known(cell.published)):
                    figure = (cell.row, cell.column, part, cell.device)
                    shown = published_text(value) if part == "published" else mean_text(shared.get(figure, value), None, column)
                    rounds.setdefault((cell.column, part, setting, group), []).append((figure, float(shown.replace(",", ""))))
    winners = set()
    for (title, *_), entries in rounds.items():
        top = (max if table.columns[title].better == "higher" else min)(value for _, value in entries)
        if any(value != top for _, value in entries):
            winners |= {figure for figure, value in entries if value == top}
    return winners


def _round(table: Table, cell: Cell) -> Iterator[str]:
    """Yield the name of the round that a cell's figures enter, if any."""
    layout = table.layout
    if table.contestants:
        if contestant(table, cell.row) is not None:
            yield round_of(table, cell.row)
    elif layout is None:
        yield ""
    elif layout.rows and cell.column in layout.value:
        down, across = place(table, cell.row, cell.column)
        yield down if METHOD in layout.columns else across
