"""The page of a comparison: accuracy against what it costs, the front that no row beats, ranks, and each row's runs and commands."""

from collections.abc import Mapping, Sequence
from typing import Any

from espalier.site.charts import NUM_COLOURS, SHAPES, Chart, Point, Series, scatter
from espalier.site.evidence import Evidence
from espalier.site.links import row_page
from espalier.site.paper import rerun, rerun_text, texts
from espalier.tables.common import Common
from espalier.tables.comparison import Cell
from espalier.tables.labelling import axis_label
from espalier.tables.points import front
from espalier.tables.ranking import METHOD, contestant, looks, of_one_computation, ranked_part, ranks, value_of
from espalier.tables.schema import Table

COSTS = {  # what accuracy is set against where the table has it, and what a title calls it
    "rate": "rate",
    "macs_rate": "rate of multiply-adds",
    "macs_effective": "multiply-adds",
    "stored_bytes": "bytes",
    "latency_ms_p50": "latency",
}


def comparison_context(table: Table, evidence: Evidence) -> dict[str, Any]:
    """Return what the template of a comparison's page shows, the highest scale first."""
    return {"table": table, "scales": [_at(table, scale, evidence) for scale in evidence.scales(table)]}


def _at(table: Table, scale: str, evidence: Evidence) -> dict[str, Any]:
    told = rerun(table, scale, evidence)
    cells: list[Cell] = told["cells"]
    by_row: dict[str, dict[str, list[Cell]]] = {row: {column: [] for column in table.columns} for row in table.rows}
    for cell in cells:
        by_row[cell.row][cell.column].append(cell)
    accuracy = next((name for name, column in table.columns.items() if column.kind == "accuracy" and column.computed is None), None)
    charts, fronts = _charts(table, scale, by_row, accuracy, ranked_part(cells)) if accuracy is not None else ([], {})
    places = ranks(table, cells)
    common = Common.of(table, cells)
    alone = len(common.sources) == 1 and bool(common.seeds)  # whose figures they are, and of how many seeds, is then said once
    commands = _commands(table, scale, evidence)
    rows = [
        {
            "name": row,
            "note": table.rows[row].note,
            "rank": places.get(row),
            "fronts": [title for title, on in fronts.items() if row in on],
            "columns": [[_texts(table, cell, common) for cell in by_row[row][column]] for column in table.columns],
            "href": row_page(table.paper, table.table, row, scale),
            "commands": "\n".join(commands.get(row, [])),
        }
        for row in table.rows
        if any(_told(cell) for here in by_row[row].values() for cell in here)
    ]
    return {
        "scale": scale,
        "alone": alone,
        "columns": {name: column.unit for name, column in table.columns.items()},
        "rows": rows,
        "ranks": _mean_ranks(table, places),
        "charts": charts,
        "curves": [chart for chart in told["charts"] if chart.title != "Accuracy against rate"],
        "notes": [
            *(common.sentences[:1] if alone else []),
            *told["notes"],
            *of_one_computation(table, cells),
            *(f"{name}: {row.note}." for name, row in table.rows.items() if row.note and row.overrides is None),
        ],
        "cell_notes": told["cell_notes"],
    }


def _told(cell: Cell) -> bool:
    return (cell.ours_mean, cell.shipped_mean) != (None, None)


def _texts(table: Table, cell: Cell, common: Common) -> dict[str, Any]:
    """Return what a cell says; its setting only where the column has several, for the notes below the table name the only one."""
    said = texts(table, cell)
    return said | {"setting": ""} if cell.column in common.settings else said


def _commands(table: Table, scale: str, evidence: Evidence) -> dict[str, list[str]]:
    """Return row -> the commands of its runs, one's own where there are any."""
    found: dict[str, list[str]] = {}
    for record in evidence.of(table, "yours", scale) or evidence.of(table, "shipped", scale):
        if not record.variant and record.command:
            found.setdefault(record.row, []).append(record.command)
    return found


def _mean_ranks(table: Table, places: Mapping[str, int]) -> list[tuple[str, float, int]]:
    """Return (method, mean rank, number of rounds ranked), the best first. Rounds: see ``ranking.ranks``."""
    found: dict[str, list[int]] = {}
    for row, place in places.items():
        found.setdefault(table.rows[row].labels.get(METHOD) or row, []).append(place)
    return sorted(((name, sum(each) / len(each), len(each)) for name, each in found.items()), key=lambda entry: entry[1])


def _charts(
    table: Table, scale: str, by_row: Mapping[str, Mapping[str, Sequence[Cell]]], accuracy: str, part: str
) -> tuple[list[Chart], dict[str, list[str]]]:
    """Return the charts of accuracy against each cost, and title -> rows on that chart's front. Settings never share a chart."""
    charts, fronts = [], {}
    for cost in (name for name in COSTS if name in table.columns):
        devices = dict.fromkeys(cell.device for cells in by_row.values() for cell in cells[cost] if cell.device)
        settings = list(devices) if _is_timed(table, cost) else [""]
        for setting in settings:
            pairs = {
                row: (across, up)
                for row, cells in by_row.items()
                for across in cells[cost]
                for up in cells[accuracy]
                if (not _is_timed(table, cost) or across.device == setting)
                and value_of(across, part) is not None
                and value_of(up, part) is not None
            }
            if pairs:
                title = f"Accuracy against {COSTS[cost]}"
                chart, on = _against(table, scale, pairs, part, title=title, setting=setting)
                charts.append(chart)
                fronts[f"{COSTS[cost]} ({setting})" if len(settings) > 1 else COSTS[cost]] = on
    return charts, fronts


def _series(name: str, points: Sequence[Point], numbers: tuple[int, int] | None, apart: int) -> Series:
    """Return a contestant's curve; the dense row's point has a look of its own, which ends the list of colours."""
    if numbers is None:
        return Series(name, apart - 1, tuple(points), form=len(SHAPES) - 1)
    colour, form = numbers
    return Series(name, colour + apart * (form + 1), tuple(points), joined=len(points) > 1, form=form)


def _is_timed(table: Table, column: str) -> bool:
    return table.columns[column].kind in ("measured", "modelled")


def _against(
    table: Table, scale: str, pairs: Mapping[str, tuple[Cell, Cell]], part: str, *, title: str, setting: str
) -> tuple[Chart, list[str]]:
    names = {row: contestant(table, row) or row for row in pairs}
    numbers = looks(table)
    apart = NUM_COLOURS * (1 + max((colour for colour, _ in numbers.values()), default=0) // NUM_COLOURS)
    points: dict[str, list[Point]] = {}
    for row, (across, up) in pairs.items():
        points.setdefault(names[row], []).append(_point(table, scale, row, across, up, part))
    across, up = next(iter(pairs.values()))
    lines = [
        {"row": row, "source": part, "setting": setting, across.column: value_of(one, part), up.column: value_of(two, part)}
        for row, (one, two) in pairs.items()
    ]
    members = front(table, lines, across.column, up.column, [cell for pair in pairs.values() for cell in pair])
    if table.columns[across.column].better == "higher":
        members.reverse()  # the cheapest first, from which the steps rise
    on = [member["row"] for member in members]
    chart = scatter(
        [_series(name, points[name], numbers.get(name), apart) for name in points],
        title=title,
        of=", ".join(word for word in (table.title, f"scale {scale}", setting) if word),
        x_label=axis_label(across.column, table.columns[across.column]),
        y_label=axis_label(up.column, table.columns[up.column]),
        front=[(member[across.column], member[up.column]) for member in members],
        note=f"{setting}. {_said(on)}" if setting else _said(on),
    )
    return chart, on


def _said(on: Sequence[str]) -> str:
    return f"Pareto front (grey steps): {', '.join(on)}."


def _point(table: Table, scale: str, row: str, across: Cell, up: Cell, part: str) -> Point:
    spreads = [cell.ours_std if part == "yours" else cell.shipped_std for cell in (across, up)]
    values = [value_of(cell, part) or 0.0 for cell in (across, up)]
    said = [
        f"{cell.column} {rerun_text(value, std, table.columns[cell.column])} {table.columns[cell.column].unit}".strip()
        for cell, value, std in zip((up, across), reversed(values), reversed(spreads), strict=True)
    ]
    num = len(up.seeds) if part == "yours" else up.shipped_n
    text = f"{row}: {said[0]}, {said[1]}; n = {num}"
    return Point(values[0], values[1], spreads[0], spreads[1], text, "../" + row_page(table.paper, table.table, row, scale))
