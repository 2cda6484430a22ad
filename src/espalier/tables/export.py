"""A compared table as CSV or JSON, one line a cell, or as Markdown or LaTeX in the form the paper prints."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from espalier.tables.comparison import JSON_KEYS, Cell
from espalier.tables.layout import printed
from espalier.tables.names import did_you_mean
from espalier.tables.schema import UNKNOWN, Column, Table

STALE_MARK = "*"
STALE_LEGEND = f"{STALE_MARK} has runs made by code that has changed since; rerun=stale does them anew."
PARTS = ("published", "shipped", "yours")


def export(table: Table, cells: Sequence[Cell], to: str) -> str:
    """Return a compared table as text.

    Args:
        table: Published table.
        cells: What ``compare`` returned for it.
        to: ``csv``, ``md``, ``latex`` or ``json``.

    Raises:
        ValueError: There is no such format.
        ModuleNotFoundError: LaTeX without great-tables; the message says how to install it.
    """
    writers: dict[str, Callable[[Table, Sequence[Cell]], str]] = {
        "csv": lambda _, cells: to_csv(cells),
        "md": to_markdown,
        "latex": to_latex,
        "json": lambda _, cells: to_json(cells),
    }
    if to not in writers:
        raise ValueError(f"no format '{to}'; {did_you_mean(to, writers)}.")
    return writers[to](table, cells)


def to_json(cells: Sequence[Cell]) -> str:
    """Return one JSON object a cell, in a list; keys as in ``JSON_KEYS``."""
    return json.dumps([cell.as_json() for cell in cells], indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(cells: Sequence[Cell]) -> str:
    """Return one line a cell, full precision; ``?`` is unknown, empty is not stated or not run."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*JSON_KEYS, "shipped_n", "comparable", "note", "stale"], lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        seeds = " ".join(str(seed) for seed in cell.seeds)
        rest = {"seeds": seeds, "shipped_n": cell.shipped_n, "comparable": cell.comparable, "note": cell.note}
        rest["stale"] = " ".join(map(str, cell.stale))
        writer.writerow(cell.as_json() | rest)
    return stream.getvalue()


def to_markdown(table: Table, cells: Sequence[Cell]) -> str:
    """Return a pipe table (published | shipped | yours under each column that has any), its source and the cells' notes."""
    grid = wide(table, cells)
    heads = [grid.corner, *(f"{title}, {part}" for title, part in grid.heads)]
    lines = ["| " + " | ".join(_in_markdown(head) for head in heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(_in_markdown(text) for text in (row, *texts)) + " |" for row, texts in grid.rows]
    about = [f"**{_in_markdown(table.title)}** ({table.name}{f', scale {cells[0].scale}' if cells else ''})", ""]
    return "\n".join(about + lines + ["", *(f"{_in_markdown(line)}  " for line in _legend(table, cells, grid))]) + "\n"


def to_latex(table: Table, cells: Sequence[Cell]) -> str:
    """Return a LaTeX table (booktabs) with one spanner a column.

    Raises:
        ModuleNotFoundError: great-tables is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415 (takes half a second)
        from great_tables import GT  # noqa: PLC0415 (optional)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"LaTeX needs {error.name}; install it with: pip install 'espalier[report]'", name=error.name) from error
    grid = wide(table, cells)
    keys = [f"c{index}" for index in range(len(grid.heads))]
    frame = pd.DataFrame([[row, *texts] for row, texts in grid.rows], columns=["row", *keys])
    great = GT(frame).tab_header(title=table.title)
    for title in dict.fromkeys(title for title, _ in grid.heads):
        under = [key for key, head in zip(keys, grid.heads, strict=True) if head[0] == title]
        great = great.tab_spanner(label=title, columns=under, id=title)
    great = great.cols_label(
        {"row": "" if table.layout is None else grid.corner, **{key: part for key, (_, part) in zip(keys, grid.heads, strict=True)}}
    )
    for line in _legend(table, cells, grid):
        great = great.tab_source_note(line)
    return str(great.as_latex()).replace("±", r"$\pm$")  # great-tables has escaped everything else


@dataclass(frozen=True)
class Grid:
    """Texts of a table as it is printed: ``heads`` names (title, part) of each text in ``rows``, ``corner`` what the rows are named by."""

    corner: str
    heads: list[tuple[str, str]]
    rows: list[tuple[str, list[str]]]


def wide(table: Table, cells: Sequence[Cell]) -> Grid:
    """Return the texts of a compared table in the paper's form, published | shipped | yours under each column that has any."""
    form = printed(table, cells)
    texts = {(row, name, part): _text(table, form.at(row, name), part) for row in form.rows for name in form.columns for part in PARTS}
    shown = [(name, part) for name in form.columns for part in PARTS if any(texts[row, name, part] for row in form.rows)]
    heads = [(f"{name} ({unit})" if (unit := form.columns[name]) else name, part) for name, part in shown]
    return Grid(form.corner, heads, [(row, [texts[row, name, part] for name, part in shown]) for row in form.rows])


def _text(table: Table, cells: Sequence[Cell], part: str) -> str:
    if not cells:
        return ""
    column = table.columns[cells[0].column]
    if part == "published":
        first = cells[0]
        if first.published is None:
            return ""
        mark = "" if first.provenance in (None, table.source.provenance) or first.published == UNKNOWN else f" [{first.provenance}]"
        return published_text(first.published) + mark
    found = []
    for cell in cells:
        mean, std, num = (
            (cell.shipped_mean, cell.shipped_std, cell.shipped_n) if part == "shipped" else (cell.ours_mean, cell.ours_std, len(cell.seeds))
        )
        if mean is not None:
            where = f" ({cell.device})" if column.kind == "measured" else ""
            mark = STALE_MARK if part == "yours" and cell.stale else ""
            found.append(f"{mean_text(mean, std, column)} (n={num})" + mark + where)
    return "; ".join(found)


def published_text(value: float | str) -> str:
    """Return a published figure as it was written, thousands apart."""
    return value if isinstance(value, str) else f"{value:,.10g}"


def mean_text(mean: float, std: float | None, column: Column) -> str:
    """Return mean ± standard deviation: two decimals for accuracies, else three significant digits of the mean."""
    if column.kind == "accuracy":
        digits = 2
    elif mean == int(mean) and not std:
        digits = 0
    else:
        digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 2  # three significant digits
    spread = f" ± {std:,.{digits}f}" if std is not None else ""
    return f"{mean:,.{digits}f}{spread}"


def _legend(table: Table, cells: Sequence[Cell], grid: Grid) -> list[str]:
    lines = [f"Published: {table.source.where}; {table.source.provenance} unless marked. {UNKNOWN}: unknown."]
    if any(part != "published" for _, part in grid.heads):
        lines.append("Shipped and yours: mean ± standard deviation over n seeds.")
        if apart := not_comparable(cells):
            lines.append(f"Not to be set against the published figures (other scale or hardware): {', '.join(apart)}.")
    if any(cell.stale for cell in cells):
        lines.append(STALE_LEGEND)
    if table.note:
        lines.append(table.note)
    notes = dict.fromkeys(f"{cell.row}, {cell.column}: {cell.note}" for cell in cells if cell.note)
    return lines + list(notes)


def not_comparable(cells: Sequence[Cell]) -> list[str]:
    """Return the columns whose rerun figures may not be set against the published ones."""
    return sorted({cell.column for cell in cells if not cell.comparable and (cell.ours_mean, cell.shipped_mean) != (None, None)})


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text.replace("\n", " "))
