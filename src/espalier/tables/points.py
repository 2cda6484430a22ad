"""The points of a table's chart: one a row and source that has both figures, and the front that none of them beats."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from espalier.tables.comparison import Cell
from espalier.tables.names import did_you_mean
from espalier.tables.ranking import PARTS, contestant, shared_times, value_of
from espalier.tables.schema import Table

Point = dict[str, Any]


def check_axis(table: Table, name: str, option: str) -> None:
    """Raise ``ValueError`` with the nearest name unless a column of figures is called so."""
    known = [title for title, column in table.columns.items() if column.kind != "text"]
    if name not in known:
        raise ValueError(f"{option} {name}: {table.name} has no column of figures of that name; {did_you_mean(name, known)}.")


def points(table: Table, cells: Sequence[Cell], x: str = "rate", y: str = "top1_pct") -> list[Point]:
    """Return one line a row and source (published, shipped, yours) that has both figures.

    Its keys are ``row``, ``source``, the two figures and the spread of the second over ``n`` seeds, ``front`` (whether no point of the
    source on the front beats it), ``contestant``, ``setting`` (of a measured figure), ``stale``, ``comparable`` and ``records``.
    A measured figure is read in one setting alone, the one that most rows have; what was published elsewhere is then left out.
    """
    setting = common_setting(table, cells, (x, y))
    chosen: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        if table.columns[cell.column].kind != "measured" or cell.device == setting:
            chosen.setdefault((cell.row, cell.column), cell)
    lines: list[Point] = []
    for row in table.rows:
        across, up = chosen.get((row, x)), chosen.get((row, y))
        if across is None or up is None:
            continue
        for part in PARTS if setting is None else PARTS[1:]:
            first, second = value_of(across, part), value_of(up, part)
            if first is None or second is None:
                continue
            spread, num = {"published": (None, 0), "shipped": (up.shipped_std, up.shipped_n), "yours": (up.ours_std, len(up.seeds))}[part]
            runs = {"published": (), "shipped": (*across.shipped_runs, *up.shipped_runs), "yours": (*across.runs, *up.runs)}[part]
            facts = {"n": num, "front": False, "contestant": contestant(table, row) or "", "setting": setting or ""}
            known = {"stale": part == "yours" and bool(up.stale), "comparable": up.comparable, "records": list(dict.fromkeys(runs))}
            lines.append({"row": row, "source": part, x: first, y: second, f"{y}_std": spread} | facts | known)
    for line in front(table, lines, x, y, cells):
        line["front"] = True
    return lines


def common_setting(table: Table, cells: Sequence[Cell], names: Sequence[str]) -> str | None:
    """Return the setting that most rows were measured in; None where none of the columns is measured."""
    measured = [name for name in names if name in table.columns and table.columns[name].kind == "measured"]
    found = Counter(cell.device for cell in cells if cell.column in measured and (cell.ours_mean, cell.shipped_mean) != (None, None))
    return found.most_common(1)[0][0] if found else ("" if measured else None)


def front(table: Table, lines: Sequence[Point], x: str, y: str, cells: Sequence[Cell] = ()) -> list[Point]:
    """Return the points of the Pareto front, along x: no other is as good in both figures and better in one.

    One source's alone: one's own where there are any, else the shipped ones, else the published. Times of one computation count as their
    mean, so that none beats another by noise; ``cells`` says which these are, see ``ranking.shared_times``.
    """
    signs = {name: {"higher": 1.0, "lower": -1.0, "neither": 0.0}[table.columns[name].better] for name in (x, y) if name in table.columns}
    source = next((part for part in reversed(PARTS) if any(line["source"] == part for line in lines)), None)
    if len(signs) < 2 or 0.0 in signs.values():
        return []
    shared = shared_times(table, cells)
    own = [line for line in lines if line["source"] == source]
    held: list[dict[str, float]] = [
        {name: shared.get((line["row"], name, line["source"], line.get("setting", "")), float(line[name])) for name in signs}
        for line in own
    ]
    beaten = [any(_beats(other, one, signs) for other in held) for one in held]
    return sorted((line for line, out in zip(own, beaten, strict=True) if not out), key=lambda line: line[x])


def _beats(one: Mapping[str, float], other: Mapping[str, float], signs: Mapping[str, float]) -> bool:
    gains = [sign * (one[name] - other[name]) for name, sign in signs.items()]
    return min(gains) >= 0 and max(gains) > 0


def points_csv(lines: Sequence[Point]) -> str:
    """Return the points as CSV; names of records stand apart by spaces."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**line, "records": " ".join(line["records"])} for line in lines)
    return buffer.getvalue()
