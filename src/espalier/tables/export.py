"""A compared table as CSV or JSON, one line a cell, or as Markdown or LaTeX in the form the paper prints.

Each ends with where its figures come from: the command that made it, espalier's version, and the records behind it. LaTeX has them as ``%``
lines and Markdown as ``<!-- -->``, which show in neither. CSV has them as the columns ``command``, ``espalier`` and ``records``: pandas
reads those as they are, where ``#`` lines would want ``comment="#"``, which cuts every text that holds that sign.
"""

import csv
import io
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from espalier.tables import ranking
from espalier.tables.common import Common
from espalier.tables.comparison import JSON_KEYS, Cell
from espalier.tables.figures import mean_text, published_text
from espalier.tables.layout import printed
from espalier.tables.names import did_you_mean
from espalier.tables.ranking import PARTS
from espalier.tables.schema import UNKNOWN, Table

STALE_MARK = "*"
STALE_LEGEND = f"{STALE_MARK} has runs made by code that has changed since; rerun=stale does them anew."
RANK = "rank"
BETWEEN = "; "  # figures of one cell, each of another setting
CSV_KEYS = (*JSON_KEYS, "shipped_n", "comparable", "note", "stale", RANK, "best", "records", "command", "espalier")
_BOLD, _END, _GUARD, _BAR = "\ue000", "\ue001", "\ue002", "\ue003"  # stand for LaTeX of ours until great-tables has escaped the rest
_LATEX = {
    _BOLD: r"\textbf{",
    _END: "}",
    _GUARD: "{}",
    _BAR: r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",  # noqa: RUF001  the sign itself
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "…": r"\ldots{}",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",  # noqa: RUF001  a symbol of many captions
}


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
        "csv": to_csv,
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


def to_csv(table: Table, cells: Sequence[Cell]) -> str:
    """Return one line a cell, full precision; ``?`` is unknown, empty is not stated or not run.

    ``rank`` is the row's among its contestants, ``best`` names the sources whose figure is the best of its column.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_KEYS, lineterminator="\n")
    writer.writeheader()
    ranks, best = ranking.ranks(table, cells), ranking.best(table, cells)
    origin = {"command": _command(table, cells, "csv"), "espalier": version("espalier")}
    for cell in cells:
        seeds, stale = (" ".join(map(str, given)) for given in (cell.seeds, cell.stale))
        rest = {"seeds": seeds, "shipped_n": cell.shipped_n, "comparable": cell.comparable, "note": cell.note, "stale": stale}
        tops = [part for part in PARTS if (cell.row, cell.column, part, cell.device) in best]
        rest |= {RANK: ranks.get(cell.row, ""), "best": " ".join(tops), "records": " ".join(records_of([cell]))}
        writer.writerow(cell.as_json() | rest | origin)
    return stream.getvalue()


def to_markdown(table: Table, cells: Sequence[Cell]) -> str:
    """Return a pipe table (published | shipped | yours under each column that has any), its source, the cells' notes and its origin."""
    grid = wide(table, cells)
    heads = [grid.corner, *(f"{title}, {part}" for title, part in grid.heads)]
    lines = ["| " + " | ".join(_in_markdown(head) for head in heads) + " |", "|" + " --- |" * len(heads)]
    for (row, _), figures in zip(grid.rows, grid.figures, strict=True):
        lines.append("| " + " | ".join([_in_markdown(row), *(_joined(here, _in_markdown, "**", "**") for here in figures)]) + " |")
    about = [f"**{_in_markdown(table.title)}** ({table.name}{f', scale {cells[0].scale}' if cells else ''})", ""]
    legend = [f"{_in_markdown(line)}  " for line in _legend(table, cells, grid)]
    origin = ["", "<!--", *(line.replace("-->", "-- >") for line in _origin(table, cells, "md")), "-->"]
    return "\n".join(about + lines + ["", *legend] + origin) + "\n"


def to_latex(table: Table, cells: Sequence[Cell]) -> str:
    """Return a LaTeX table (booktabs) with one spanner a column; it compiles with any engine, UTF-8 beyond the commonest signs aside.

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
    lines = zip(grid.rows, grid.figures, strict=True)
    texts = [[_for_latex(row), *(_joined(here, _for_latex, _BOLD, _END) for here in figures)] for (row, _), figures in lines]
    great = GT(pd.DataFrame(texts, columns=["row", *keys])).tab_header(title=_for_latex(table.title))
    for number, title in enumerate(dict.fromkeys(title for title, _ in grid.heads)):
        under = [key for key, head in zip(keys, grid.heads, strict=True) if head[0] == title]
        great = great.tab_spanner(label=_for_latex(title), columns=under, id=f"s{number}")
    labels = {key: part for key, (_, part) in zip(keys, grid.heads, strict=True)}
    great = great.cols_label({"row": "" if table.layout is None else _for_latex(grid.corner), **labels})
    for line in _legend(table, cells, grid):
        great = great.tab_source_note(_for_latex(line))
    text = str(great.as_latex())
    for sign, written in _LATEX.items():
        text = text.replace(sign, written)
    return text.rstrip("\n") + "\n" + "".join(f"% {line}\n" for line in _origin(table, cells, "latex"))


@dataclass(frozen=True)
class Grid:
    """A table as it is printed.

    Args:
        corner: What the rows are named by.
        heads: (title, part) of each text in a row.
        rows: (label, texts) of each row.
        figures: The same texts, figure by figure (several where they were measured in several settings), and whether each is the best.
        said: What holds for every figure and stands in none of them: over how many seeds, and in which setting, each in a sentence.
    """

    corner: str
    heads: list[tuple[str, str]]
    rows: list[tuple[str, list[str]]]
    figures: Sequence[Sequence[Sequence[tuple[str, bool]]]] = ()
    said: Sequence[str] = ()


def wide(table: Table, cells: Sequence[Cell]) -> Grid:
    """Return the texts of a compared table in the paper's form, published | shipped | yours under each column that has any.

    A comparison's table has the contestants' ranks as its last column. A number of seeds that all figures of a source share, and a setting
    that all times of a column share, are said once; else each figure has its own.
    """
    form, best = printed(table, cells), ranking.best(table, cells)
    places = list(itertools.product(form.rows, form.columns, PARTS))
    common = Common.of(table, [cell for row in form.rows for name in form.columns for cell in form.at(row, name)])
    found = {(row, name, part): _figures(table, form.at(row, name), part, best, common) for row, name, part in places}
    shown = [(name, part) for name in form.columns for part in PARTS if any(found[row, name, part] for row in form.rows)]
    heads = [(f"{name} ({unit})" if (unit := form.columns[name]) else name, part) for name, part in shown]
    lines = {row: [found[row, name, part] for name, part in shown] for row in form.rows}
    if table.layout is None and (ranks := ranking.ranks(table, cells)):
        heads.append((RANK, ranking.ranked_part(cells)))
        for row, line in lines.items():
            line.append([(str(ranks[row]), False)] if row in ranks else [])
    texts = [(row, [BETWEEN.join(text for text, _ in here) for here in line]) for row, line in lines.items()]
    return Grid(form.corner, heads, texts, list(lines.values()), common.sentences)


def _figures(table: Table, cells: Sequence[Cell], part: str, best: set[ranking.Figure], common: Common) -> list[tuple[str, bool]]:
    found = []
    for cell in cells[:1] if part == "published" else cells:
        column = table.columns[cell.column]
        if part == "published":
            if cell.published is None:
                continue
            unmarked = cell.provenance in (None, table.source.provenance) or cell.published == UNKNOWN
            text = published_text(cell.published) + ("" if unmarked else f" [{cell.provenance}]")
        else:
            shipped = (cell.shipped_mean, cell.shipped_std, cell.shipped_n)
            mean, std, num = shipped if part == "shipped" else (cell.ours_mean, cell.ours_std, len(cell.seeds))
            if mean is None:
                continue
            where = f" ({cell.device})" if column.kind == "measured" and cell.column not in common.settings else ""
            mark = STALE_MARK if part == "yours" and cell.stale else ""
            text = mean_text(mean, std, column) + ("" if part in common.seeds else f" (n={num})") + mark + where
        found.append((text, (cell.row, cell.column, part, cell.device) in best))
    return found


def _joined(figures: Sequence[tuple[str, bool]], escaped: Callable[[str], str], start: str, end: str) -> str:
    return BETWEEN.join(f"{start}{escaped(text)}{end}" if top else escaped(text) for text, top in figures)


def _legend(table: Table, cells: Sequence[Cell], grid: Grid) -> list[str]:
    shown = {part for _, part in grid.heads}
    lines = [f"Published: {table.source.where}; {table.source.provenance} unless marked. {UNKNOWN}: unknown."] if PARTS[0] in shown else []
    if shown - {PARTS[0]}:
        lines += grid.said
        if PARTS[0] in shown and (apart := not_comparable(cells)):
            lines.append(f"Not to be set against the published figures (other scale or hardware): {', '.join(apart)}.")
    among = " among rows that differ in the method only" if table.contestants else ""
    if any(top for line in grid.figures for here in line for _, top in here):
        lines.append(f"Bold: the best of its column{among}, the dense baseline aside, never across sources or settings.")
    lines += ranking.of_one_computation(table, cells)
    if any(title == RANK for title, _ in grid.heads):
        lines.append(f"Rank: by mean accuracy{among}; those that print alike share one.")
    if any(cell.stale for cell in cells):
        lines.append(STALE_LEGEND)
    if table.note:
        lines.append(table.note)
    notes = dict.fromkeys(f"{cell.row}, {cell.column}: {cell.note}" for cell in cells if cell.note)
    return lines + list(notes)


def not_comparable(cells: Sequence[Cell]) -> list[str]:
    """Return the columns whose rerun figures may not be set against the published ones."""
    return sorted({cell.column for cell in cells if not cell.comparable and (cell.ours_mean, cell.shipped_mean) != (None, None)})


def records_of(cells: Sequence[Cell]) -> list[str]:
    """Return the names of the records behind some cells, one's own first."""
    own = {name for cell in cells for name in cell.runs}
    shipped = {f"shipped:{name}" for cell in cells for name in cell.shipped_runs}
    return [*sorted(own), *sorted(shipped)]


def _command(table: Table, cells: Sequence[Cell], to: str) -> str:
    return shlex.join(["espalier", "table", table.name, *(["--scale", cells[0].scale] if cells else []), "--to", to])


def _origin(table: Table, cells: Sequence[Cell], to: str) -> Iterator[str]:
    """Yield the lines of the comment that says where the figures come from."""
    yield f"{_command(table, cells, to)}   (espalier {version('espalier')})"
    names = records_of(cells)
    yield f"records: {'none' if not names else len(names)}"
    yield from (name.replace("\n", " ") for name in names)


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text.replace("\n", " "))


def _for_latex(text: str) -> str:
    r"""Return a text for great-tables, which escapes it: on one line, bars marked, guarded where the ``\\`` before would eat its start."""
    plain = text.replace("\n", " ").replace("|", _BAR)
    return _GUARD + plain if plain.lstrip().startswith(("[", "*")) else plain
