"""Questions about papers and runs: which there are, how two differ, what a table's cells hold, which claims hold. None needs torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from espalier.code import stale_runs
from espalier.progress import late_bar
from espalier.record import Measurement, Record, Store
from espalier.tables import published
from espalier.tables.catalogue import catalogue
from espalier.tables.claims import Verdict, judge
from espalier.tables.comparison import Cell, compare
from espalier.tables.export import Grid as PrintedGrid
from espalier.tables.export import export as written
from espalier.tables.export import wide
from espalier.tables.names import did_you_mean
from espalier.tables.schema import SCALES
from espalier.tables.settings import changed, flattened

VERDICTS = ("holds", "fails", "inconclusive", "not run")


@dataclass(frozen=True)
class PaperSummary:
    """One paper: its tables, the number of its rows that can be rerun, and its claims, counted by verdict."""

    paper: str
    tables: list[str]
    rows: int
    claims: dict[str, int]


@dataclass(frozen=True)
class RunSummary:
    """One finished run.

    Args:
        run: Its name.
        started: When it began, ISO 8601, UTC.
        duration_s: How long it took.
        variant: Whether its config differs from its row's.
        stale: Whether its code has changed since.
        changed: The words that a variant was asked for with, such as ``method.rho.start=0.01``.
        top1_pct: Its test accuracy; None where it has none.
        rate: Weights / non-zero weights; None where they were not counted.
    """

    run: str
    started: str
    duration_s: float
    variant: bool
    stale: bool
    changed: list[str]
    top1_pct: float | None
    rate: float | None


@dataclass(frozen=True)
class Difference:
    """A setting or figure in which two runs differ, dotted; None where a run lacks it."""

    key: str
    first: Any
    second: Any


def own_records(store: Store | None = None) -> list[Record]:
    """Return the records of the store, ordered by name."""
    return list((store or Store()).records())


def own_measurements(store: Store | None = None) -> list[Measurement]:
    """Return the measurements of all runs of the store."""
    place = store or Store()
    return [measurement for record in place.records() for measurement in place.measurements(record.name)]


def papers(store: Store | None = None) -> list[PaperSummary]:
    """Return every paper: its tables, the rows that can be rerun, and how many claims hold; comparisons are none."""
    own = own_records(store)
    found = []
    for paper in (paper for paper in published.papers().values() if not paper.facts.house):
        words: list[str] = [verdict.verdict for verdict in judge(paper, own, stale=_stale_of(paper.name, own))]
        tally = {word: words.count(word) for word in VERDICTS}
        found.append(PaperSummary(paper.name, paper.table_names, sum(map(len, paper.rows.values())), tally))
    return found


def claims(paper: str, store: Store | None = None) -> list[Verdict]:
    """Judge each claim of a paper by the records: holds, fails, inconclusive or not run, with the figures behind it.

    Raises:
        ValueError: There is no such paper; the message has the nearest.
    """
    own = own_records(store)
    return judge(published.paper(paper), own, stale=_stale_of(paper, own))


def _stale_of(paper: str, own: Iterable[Record]) -> set[str]:
    return stale_runs(record for record in own if record.paper == paper)


def _root(store: Store | None) -> Path | None:
    return None if store is None else store.root


def highest_scale(name: str, store: Store | None = None) -> str:
    """Return the highest scale at which a table has records, own or shipped; smoke where it has none."""
    of = published.table(name, store=_root(store))
    known = [*own_records(store), *published.paper(of.paper).shipped_records()]
    present = {record.scale for record in known if (record.paper, record.table) == (of.paper, of.table)}
    return next((scale for scale in reversed(SCALES) if scale in present), SCALES[0])


def cells(name: str, *, scale: str | None = None, store: Store | None = None) -> list[Cell]:
    """Return a table's cells: published, shipped and one's own.

    Args:
        name: ``PAPER/TABLE``.
        scale: smoke, desk or paper; None takes the highest that has records.
        store: Where one's own runs live; None takes ``ESPALIER_STORE``, else ``runs``.

    Raises:
        ValueError: There is no such table; the message has the nearest.
    """
    of = published.table(name, store=_root(store))
    home = published.paper(of.paper)
    own = own_records(store)
    return compare(
        of,
        own,
        home.shipped_records(),
        scale or highest_scale(name, store),
        measurements=own_measurements(store),
        shipped_measurements=home.shipped_measurements(),
        stale=_stale_of(of.paper, own),
    )


def table(name: str, *, scale: str | None = None, store: Store | None = None) -> pd.DataFrame:
    """Return a table's cells as a frame, one line each: the keys of ``Cell.as_json``, then what a reader must know. See ``cells``."""
    lines = [
        {**cell.as_json(), "note": cell.note, "comparable": cell.comparable, "stale": list(cell.stale)}
        for cell in cells(name, scale=scale, store=store)
    ]
    return pd.DataFrame(lines)


def export(name: str, to: str, *, scale: str | None = None, store: Store | None = None) -> str:
    """Return a table as text: ``csv``, ``md``, ``latex`` or ``json``. See ``cells``.

    Raises:
        ValueError: There is no such table or format.
        ModuleNotFoundError: LaTeX without great-tables.
    """
    return written(published.table(name, store=_root(store)), cells(name, scale=scale, store=store), to)


def layout(name: str, *, scale: str | None = None, store: Store | None = None) -> PrintedGrid:
    """Return a table's texts in the form its paper prints (``layout`` in its YAML, else one line a row). See ``cells``."""
    return wide(published.table(name, store=_root(store)), cells(name, scale=scale, store=store))


def records(store: Store | None = None) -> pd.DataFrame:
    """Return all runs, one line each: a column per fact, per config key (dotted) and per metric."""
    facts = {"paper", "table", "row", "scale", "seed", "variant", "identity", "device", "started", "duration_s"}
    return pd.DataFrame(
        [
            {**record.model_dump(include=facts), **dict(flattened(record.config, "config.")), **record.metrics}
            for record in own_records(store)
        ]
    )


def runs(store: Store | None = None) -> list[RunSummary]:
    """Return all finished runs, ordered by name."""
    own = own_records(store)
    stale = stale_runs(own)
    return [
        RunSummary(
            run=record.name,
            started=record.started,
            duration_s=record.duration_s,
            variant=record.variant,
            stale=record.name in stale,
            changed=changed(record),
            top1_pct=record.metrics.get("top1_pct"),
            rate=record.metrics.get("rate"),
        )
        for record in own
    ]


def matching(name: str, store: Store | None = None) -> list[Record]:
    """Return the runs whose name begins so, or that a glob names.

    Raises:
        ValueError: There are none; the message has the nearest names.
    """
    known = {record.name: record for record in own_records(store)}
    pattern = name.strip("/")
    found = [known[one] for one in known if fnmatchcase(one, pattern) or ("*" not in pattern and one.startswith(pattern))]
    if not found:
        if name.endswith(".safetensors"):
            raise ValueError(f"{name}: there is no such file; `espalier runs` lists runs, whose names have no ending.")
        raise ValueError(f"no run is called '{name}'; {did_you_mean(name, known)}; `espalier runs` lists them.")
    return found


def find(name: str, store: Store | None = None) -> Record:
    """Return the run of that name, or the only one whose name begins so.

    Raises:
        ValueError: None or several do.
    """
    found = matching(name, store)
    if len(found) != 1:
        raise ValueError(f"{len(found)} runs are called '{name}': {', '.join(record.name for record in found)}; write more of the one.")
    return found[0]


def diff(first: str | Record, second: str | Record, store: Store | None = None) -> list[Difference]:
    """Return the settings and figures in which two runs differ.

    Args:
        first: A run or its name, see ``find``.
        second: The other.
        store: Where they live.
    """
    found = (find(one, store) if isinstance(one, str) else one for one in (first, second))
    left, right = (dict(flattened({"config": record.config, "metrics": record.metrics})) for record in found)
    keys = dict.fromkeys([*left, *right])
    return [Difference(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def report(out: str | Path = "report", store: Store | None = None, *, console: Console | None = None) -> Path:
    """Write the site of all papers, comparisons and runs; return its first page. It opens from disk.

    Args:
        out: Folder of the site.
        store: Where one's own runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        console: Where a bar shows the progress, if it takes longer than two seconds; None shows none.

    Raises:
        ValueError: ``out`` is a file.
        ModuleNotFoundError: jinja2 is not installed; the message says how to install it.
    """
    try:
        from espalier.site.break_even import break_even_result  # noqa: PLC0415
        from espalier.site.pages import write_report  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        message = f"a report needs {error.name}; install it with: pip install 'espalier[report]'"
        raise ModuleNotFoundError(message, name=error.name) from error
    if Path(out).is_file():
        raise ValueError(f"--out {out} is a file; name a folder, in which index.html is written.")
    place = store or Store()
    own = own_records(place)
    measurements = [one for record in own for one in place.measurements(record.name)]
    with late_bar(console, "pages") as told:
        every, rates = published.papers(store=place.root).values(), break_even_result()
        return write_report(every, own, measurements, Path(out), planned=catalogue(), stale=stale_runs(own), break_even=rates, told=told)


def plot(
    name: str,
    to: str | Path,
    *,
    scale: str | None = None,
    x: str = "rate",
    y: str = "top1_pct",
    width_in: float | None = None,
    store: Store | None = None,
) -> Path:
    """Draw a table: accuracy against rate, bytes or latency, with the spread over seeds and the Pareto front; return the file.

    Args:
        name: ``PAPER/TABLE``.
        to: File to write: .pdf, .svg, .png, or .csv for the points.
        scale: See ``cells``.
        x: Column along the horizontal axis, such as ``rate``, ``macs_rate``, ``stored_bytes``, ``latency_ms_p50``.
        y: Column along the vertical one, such as ``top1_pct``, ``loss_pct``.
        width_in: Width in inches; None takes a column of a paper, 3.33.
        store: See ``cells``.

    Raises:
        ValueError: There is no such table, column, format or width, or no row has both figures.
    """
    from espalier.tables.plots import COLUMN_WIDTH_IN  # noqa: PLC0415  draws with matplotlib
    from espalier.tables.plots import plot as draw  # noqa: PLC0415

    width = COLUMN_WIDTH_IN if width_in is None else width_in
    return draw(published.table(name, store=_root(store)), cells(name, scale=scale, store=store), Path(to), x=x, y=y, width_in=width)
