"""The form in which a table is printed: its own rows and columns, or the paper's grid that its ``layout`` pivots them into."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from espalier.tables.comparison import Cell
from espalier.tables.names import did_you_mean
from espalier.tables.schema import Layout, Problem, Row, Table

NAME = "row"  # the key that stands for the row's name
BETWEEN = ", "


@dataclass(frozen=True)
class Printed:
    """A table as it is printed.

    Args:
        corner: What the rows are named by.
        rows: Labels of the rows, in order.
        columns: Label -> unit of its figures, in order; empty where the rows name theirs.
        places: (row's label, column's label) -> cells there: several where a measured figure was taken in several settings.
    """

    corner: str
    rows: tuple[str, ...]
    columns: Mapping[str, str]
    places: Mapping[tuple[str, str], list[Cell]]

    def at(self, row: str, column: str) -> list[Cell]:
        """Return the cells at one place; none where the paper's grid has a gap."""
        return self.places.get((row, column), [])


def printed(table: Table, cells: Sequence[Cell]) -> Printed:
    """Return a compared table in the paper's form: pivoted by its layout, else row by row.

    Args:
        table: Published table.
        cells: What ``compare`` returned for it.
    """
    if table.layout is None:
        places = {(row, column): [cell for cell in cells if (cell.row, cell.column) == (row, column)] for row, column in _own(table)}
        return Printed(NAME, tuple(table.rows), {name: column.unit for name, column in table.columns.items()}, places)
    places = {}
    for cell in cells:
        if cell.column in table.layout.value:
            places.setdefault(place(table, cell.row, cell.column), []).append(cell)
    filled = _filled(table, places)
    rows = dict.fromkeys(place(table, row, value)[0] for row, value in filled)
    columns = {place(table, row, value)[1]: table.columns[value].unit if table.layout.rows else "" for row, value in filled}
    return Printed(BETWEEN.join(table.layout.rows), tuple(rows), columns, places)


def _own(table: Table) -> Iterator[tuple[str, str]]:
    return ((row, column) for row in table.rows for column in table.columns)


def _filled(table: Table, places: Mapping[tuple[str, str], Sequence[Cell]]) -> list[tuple[str, str]]:
    """Return (row, value column) of every place, in the order of the file, of columns of the grid that hold anything."""
    assert table.layout is not None, "only a table with a layout is pivoted"
    pairs = [(row, value) for row in table.rows for value in table.layout.value]
    told = {at[1] for at, cells in places.items() if any(_says_something(cell) for cell in cells)}
    return [(row, value) for row, value in pairs if place(table, row, value)[1] in told]


def _says_something(cell: Cell) -> bool:
    return (cell.published, cell.shipped_mean, cell.ours_mean) != (None, None, None)


def place(table: Table, row: str, value: str) -> tuple[str, str]:
    """Return the labels of the grid's row and column that a figure goes to; the value's name where it tells figures apart."""
    assert table.layout is not None, "only a table with a layout is pivoted"
    layout = table.layout
    across, down = (BETWEEN.join(_label(table, row, key) or "" for key in keys) for keys in (layout.columns, layout.rows))
    if not layout.rows:
        unit = table.columns[value].unit
        return (f"{value} ({unit})" if unit else value), across
    if not layout.columns:
        return down, value
    return down, across if len(layout.value) == 1 else f"{across}{BETWEEN}{value}"


def _label(table: Table, name: str, key: str) -> str | None:
    """Return what a row says under a key of the layout; None where it says nothing."""
    row = table.rows[name]
    if key in row.labels:
        return row.labels[key]
    if key in row.cells:
        published, unit = row.cells[key].value, table.columns[key].unit
        text = published if isinstance(published, str) else f"{published:g}"
        return text + (unit if unit == "x" else f" {unit}" if unit else "")
    return name if key == NAME else _overrides(row).get(key)


def _overrides(row: Row) -> dict[str, str]:
    return {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in row.overrides or [])}


def problems(table: Table) -> Iterator[Problem]:
    """Yield what is wrong with a table's layout: keys that a row lacks, values that are no columns, two rows for one place."""
    if (layout := table.layout) is None:
        return
    for index, value in enumerate(layout.value):
        if value not in table.columns:
            yield ("layout", "value", index), f"the table has no column '{value}'; {did_you_mean(value, table.columns)}"
    wrong = list(_missing_keys(table, layout))
    yield from wrong
    if wrong:
        return
    taken: dict[tuple[str, str], str] = {}
    for name in table.rows:
        here = place(table, name, layout.value[0])
        if here in taken:
            where = " / ".join(label for label in here if label)
            yield ("rows", name), f"'{name}' and '{taken[here]}' go to the same place of the layout, {where}; give one another label"
        taken[here] = name


def _missing_keys(table: Table, layout: Layout) -> Iterator[Problem]:
    known = dict.fromkeys([NAME, *table.columns, *(key for row in table.rows.values() for key in (*row.labels, *_overrides(row)))])
    for axis, keys in (("rows", layout.rows), ("columns", layout.columns)):
        for index, key in enumerate(keys):
            silent = [name for name in table.rows if _label(table, name, key) is None]
            if key not in known:
                yield ("layout", axis, index), f"'{key}' is no column, override or label of a row; {did_you_mean(key, known)}"
            elif silent:
                yield (
                    ("rows", silent[0]),
                    f"the layout names its {axis} by '{key}', which '{silent[0]}' lacks; add it under its cells or labels",
                )
