"""How the shell answers: JSON for programs, the same way for every verb, and grids for people."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table as Grid

from espalier.fitting import Fitted

if TYPE_CHECKING:
    from espalier.archiving import Packed
    from espalier.bench_result import Bench
    from espalier.comparing import Comparison
    from espalier.inventory import Difference, PaperSummary, RunSummary
    from espalier.knobs import Knob, Setting
    from espalier.merging import Unpacked
    from espalier.outlining import Outline
    from espalier.record import Measurement, Record, Store
    from espalier.tables.claims import Verdict
    from espalier.tables.comparison import Cell
    from espalier.tables.export import Grid as PrintedGrid

console = Console()
errors = Console(stderr=True)

EXPECTED = (ValueError, OSError, ModuleNotFoundError)  # errors whose message names cause and way out
STOPPED = "stopped; what was finished is kept. The same command goes on: a run from its last epoch, a timing from its start."
COLOURS = {"holds": "green", "fails": "red", "inconclusive": "yellow", "not run": "dim"}


class StoppedError(SystemExit):
    """Ctrl-C, of which a line has told already."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn Ctrl-C into a line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print(STOPPED, soft_wrap=True)
        raise StoppedError(130) from None


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn errors that name their cause and way out into one line and exit code 2; ``ESPALIER_DEBUG=1`` shows where they came from."""
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("ESPALIER_DEBUG"):
            raise
        tell_error(str(error))
        sys.exit(2)


def tell_error(message: str) -> None:
    """Say on stderr what went wrong."""
    errors.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


@contextmanager
def answered_errors(*, as_json: bool) -> Iterator[None]:
    """Answer an error with ``{"error": MESSAGE}`` where JSON was asked for; whoever catches it says the same to people, on stderr."""
    try:
        yield
    except (BrokenPipeError, typer.Exit):  # nobody reads on; no error
        raise
    except StoppedError:
        if as_json:
            answer({"error": STOPPED}, list, as_json=True)
        raise
    except Exception as error:
        if as_json:
            worded = getattr(error, "format_message", None)  # of a word that the shell cannot read; its class depends on typer's version
            expected = isinstance(error, EXPECTED)
            text = worded() if worded else str(error) if expected else f"{type(error).__name__}: {error}"
            answer({"error": text}, list, as_json=True)
        raise


def answer(value: Any, shown: Callable[[], Iterable[RenderableType]], *, as_json: bool) -> None:
    """Print ``value`` as JSON and nothing else, or what ``shown`` makes of it for people."""
    if as_json:
        sys.stdout.write(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return
    for part in shown():
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))  # a path stays one word


def plain(value: Any) -> Any:
    """Return ``value`` with records, dataclasses and paths as JSON knows them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "as_json", None)
        return own() if own is not None else plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def papers_grid(found: Iterable["PaperSummary"]) -> Grid:
    """Return one line a paper."""
    grid = Grid("paper", "tables", "rows", *COLOURS)
    grid.columns[0].no_wrap = True
    for paper in found:
        grid.add_row(paper.paper, str(len(paper.tables)), str(paper.rows), *(str(paper.claims[word]) for word in COLOURS))
    return grid


def claim_lines(verdicts: Iterable["Verdict"]) -> Iterator[str]:
    """Yield a line a claim, one with the reason where it does not hold, one with the stale runs it rests on."""
    for verdict in verdicts:
        yield f"[bold]{verdict.id}[/] [{COLOURS[verdict.verdict]}]{verdict.verdict}[/]  {escape(verdict.statement)}"
        if verdict.reason:
            yield f"    [dim]{escape(verdict.reason)}[/]"
        if verdict.stale:
            yield f"    [dim]stale (code changed since; rerun=stale does them anew): {escape(', '.join(verdict.stale))}[/]"


def cells_grid(name: str, cells: Iterable["Cell"], *, store: "Store | None" = None) -> Iterator[RenderableType]:
    """Yield one line a cell, and what the mark of stale runs means where it stands; ``store`` is that of the cells."""
    from espalier.tables.export import STALE_LEGEND, STALE_MARK  # noqa: PLC0415
    from espalier.tables.published import table  # noqa: PLC0415

    every, columns = list(cells), table(name, store=None if store is None else store.root).columns
    quoted = any(cell.published is not None for cell in every)  # a comparison has nothing published
    heads = ("row", "column", *(("published", "provenance") if quoted else ()), "shipped", "yours", "seeds")
    settings: dict[str, set[str]] = {}
    for cell in every:
        if columns[cell.column].kind == "measured" and cell.device:
            settings.setdefault(cell.column, set()).add(cell.device)
    lines = []
    for cell in every:
        unit, several = columns[cell.column].unit, len(settings.get(cell.column, ())) > 1
        setting = f"\n{cell.device}" if several and cell.device else ""  # a time without its setting says nothing
        line = [
            cell.row,
            f"{cell.column} ({unit}){setting}" if unit else cell.column + setting,
            *(("" if cell.published is None else str(cell.published), cell.provenance or "") if quoted else ()),
            _spread(cell.shipped_mean, cell.shipped_std),
            _spread(cell.ours_mean, cell.ours_std) + (STALE_MARK if cell.stale else ""),
            ",".join(map(str, cell.seeds)),
        ]
        lines.append(line)
    yield Fitted(heads, lines, title=f"{name} at scale={every[0].scale}", num_names=2)
    yield from (escape(f"{column}: measured on {next(iter(of))}.") for column, of in settings.items() if len(of) == 1)
    if any(cell.stale for cell in every):
        yield STALE_LEGEND


def standings_grid(found: "Comparison") -> Iterator[RenderableType]:
    """Yield a comparison: one line a row, what holds for all, why some rows are empty, and how to go on."""
    titles = ("row", "rank", "top-1 %", "n", "loss", "rate", "MAC rate", "bytes", "ms", "epochs")
    lines = []
    for one in found.standings:
        figures = (one.loss_pct, one.rate, one.macs_rate, one.stored_bytes, one.latency_ms_p50, one.epochs)
        rank = "" if one.rank is None else str(one.rank)
        top1, num = _spread(one.top1_pct, one.top1_std), str(one.num_seeds or "")
        lines.append([one.row, rank, top1, num, *(_spread(each, None) for each in figures)])
    yield Fitted(titles, lines, title=f"{found.name} at scale={found.scale}")
    yield escape(f"{found.note} Rank: of the accuracy among rows that differ in the method only, once all have equally many seeds (n).")
    if devices := dict.fromkeys(one.device for one in found.standings if one.device):
        yield escape(f"Timed on {'; '.join(devices)}.")
    yield from map(escape, found.notes)
    yield from (escape(f"{one.row}: {one.note}") for one in found.standings if one.note)
    yield from (f"[red]{escape(remark)}[/]" for remark in found.remarks)
    yield escape(f"Go on: espalier table {found.name} | espalier plot {found.name} --to figure.pdf | espalier report")


def outline_lines(found: "Outline") -> Iterator[RenderableType]:
    """Yield what a comparison would do: one line a row, what holds for all, what cannot be, and what it comes to."""
    seeds = f"seed{'s' * (len(found.seeds) > 1)} {','.join(map(str, found.seeds))}"
    what = f", the {found.trials} trials of each contestant" if found.trials else f", {seeds}"
    lines = [
        [one.row, one.recipe, str(one.epochs), ",".join(map(str, one.done)), _by_seed(one.trains), _by_seed(one.reuses)]
        for one in found.rows
        if not one.reason
    ]
    heads = ("row", "recipe", "epochs", "done (seeds)", "trains (step epochs)", "reuses")
    yield Fitted(heads, lines, title=f"{found.name} at scale={found.scale}{what}: nothing is run")
    yield from (escape(f"{one.row}: not applicable: {one.reason}") for one in found.rows if one.reason)
    yield escape(found.note)
    if found.trials:
        yield escape(f"Then every row ({seeds}) with the settings of its best trial; those are not known yet.")
    yield escape(f"{found.epochs} epochs to train; {found.expected}.")


def _by_seed(steps: Mapping[int, tuple[str, ...]]) -> str:
    """Return what is done in each seed, once where it is the same in all."""
    texts = {seed: ", ".join(names) for seed, names in steps.items() if names}
    if len(set(texts.values())) < 2 and len(texts) == len(steps):
        return next(iter(texts.values()), "")
    return "; ".join(f"seed {seed}: {text}" for seed, text in texts.items())


def failures(failed: Mapping[str, str]) -> str:
    """Return which runs failed and why, as one text."""
    from espalier.executing import causes  # noqa: PLC0415

    return f"{len(failed)} run{'s' * (len(failed) > 1)} failed, the others are kept: {causes(failed)}"


def layout_grid(name: str, form: "PrintedGrid") -> Iterator[RenderableType]:
    """Yield a table in the form its paper prints, one line a row of it, and what holds for all its figures."""
    yield Fitted(
        [form.corner, *(f"{title}\n{part}" for title, part in form.heads)], ([row, *texts] for row, texts in form.rows), title=name
    )
    yield from map(escape, form.said)


def runs_grid(found: Iterable["RunSummary"]) -> Grid:
    """Return one line a run; below a variant's name stands what it was asked for with."""
    grid = Grid("run", "started", "seconds", "rate", "top1_pct", "")
    grid.columns[0].overflow = "fold"
    for run in found:
        remark = " ".join(word for word, true in (("variant", run.variant), ("stale", run.stale)) if true)
        figures = (_spread(figure, None) for figure in (run.rate, run.top1_pct))
        grid.add_row(escape("\n  ".join([run.run, *run.changed])), run.started, f"{run.duration_s:.0f}", *figures, remark)
    return grid


def no_runs() -> str:
    """Return what stands in place of an empty list of runs."""
    from espalier.record import store_root  # noqa: PLC0415

    return escape(f"no runs in {store_root()} (ESPALIER_STORE moves it)")


def record_grid(record: "Record") -> Grid:
    """Return one line a fact and metric of a run, its config and series aside."""
    grid = Grid("fact", "value", title=record.name)
    grid.columns[1].overflow = "fold"
    facts = record.model_dump(mode="json", exclude={"series", "config", "metrics", "paper", "table", "row", "scale", "seed"})
    for key, value in facts.items():
        grid.add_row(key, escape(", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, dict) else str(value)))
    grid.add_section()
    for key, value in record.metrics.items():
        grid.add_row(key, _spread(value, None))
    return grid


def differences_grid(found: Iterable["Difference"]) -> Grid:
    """Return one line a difference."""
    grid = Grid("key", "first", "second")
    for difference in found:
        grid.add_row(difference.key, escape(str(difference.first)), escape(str(difference.second)))
    return grid


def measurements_grid(found: Mapping[str, "Measurement"]) -> Grid:
    """Return one line a measured run: its times, and the setting that they hold for."""
    grid = Grid("run", "p10 ms", "p50 ms", "p90 ms", "threads", "batch", "device")
    grid.columns[0].overflow = "fold"
    for run, one in found.items():
        times = [_spread(one.metrics[f"latency_ms_p{percent}"], None) for percent in (10, 50, 90)]
        grid.add_row(run, *times, str(one.num_threads), str(one.batch_size), one.device)
    return grid


BUSY_CPUS = 0.05  # of other processes, from which on a benchmark warns


def bench_lines(found: "Bench") -> Iterator[RenderableType]:
    """Yield a benchmark: one line an engine, then what was run where, what was gained, and why no more."""
    from espalier.bench_result import OURS  # noqa: PLC0415

    subject, best = found.subject, found.best_dense_peer
    grid = Grid("engine", "p10 ms", "p50 ms", "p90 ms", "over sparse", "kept", "dropped", "error")
    for column in grid.columns:
        column.no_wrap = True
    for entry in found.engines:
        gain = found.gain(entry.engine)
        times = ["" if time is None else f"{time:.3g}" for time in (entry.latency_ms_p10, entry.latency_ms_p50, entry.latency_ms_p90)]
        error = "" if entry.max_rel_error is None else f"{entry.max_rel_error:.0e}"
        passes = ["", ""] if entry.latency_ms_p50 is None else [str(entry.num_runs), str(entry.num_dropped)]
        grid.add_row(entry.title, *times, "" if gain is None else f"{gain:.2f}x", *passes, error)
    yield grid
    if found.layers is not None:
        yield found.layers
    yield from (escape(f"{entry.engine} {entry.status}: {entry.reason}.") for entry in found.engines if entry.reason)
    yield escape(f"Versions: {', '.join(f'{entry.engine} {entry.version}' for entry in found.engines if entry.version)}.")
    shape, what = "x".join(map(str, subject.inputs[0].shape)), ", ".join(subject.constraint) or "no structure"
    yield escape(f"{subject.name}, input {shape}, {what}, {subject.weights} weights, rates of layers: {subject.split}.")
    yield escape(f"{found.threads} of {found.device}, {found.started}.")
    if any(entry.engine in OURS for entry in found.timed):
        yield "A search chose kernels of our code." if found.tuned else "A rule chose the kernels of our code; none was searched for."
    yield f"MAC rate {subject.rate_macs:.3g}x: {subject.macs / 1e9:.4g} -> {subject.macs_effective / 1e9:.4g} GMAC."
    if (ratio := found.ratio_to_best_dense_peer) is not None:
        what = "Sparse code, a hybrid with PyTorch," if found.hybrid else "Sparse code"
        yield f"{what} is {ratio:.2f}x as fast as the best dense peer, {best}."
    if (share := found.realised_share) is not None:
        bound = found.memory_bound_share
        why = "" if bound is None else f"; layers bound by memory take {100 * bound:.0f} % of the least possible time"
        yield f"{100 * share:.0f} % of the MAC rate became speed over our own dense code{why}."
    if found.fork_join_ns is not None:
        yield f"Fork-join {found.fork_join_ns[0]:.0f} ns before, {found.fork_join_ns[1]:.0f} ns after."
    if found.moved:
        yield "[yellow]The CPUs changed places meanwhile: run it again.[/]"
    if (others := found.others_cpus) is not None and others > BUSY_CPUS:
        yield f"[yellow]Other processes used {others:.2f} CPUs meanwhile: times are too high, and ratios may be wrong.[/]"


def packed_lines(found: "Packed") -> Iterator[str]:
    """Yield what an archive holds, and what a reader must know."""
    what = f"{len(found.runs)} runs, {found.checkpoints} checkpoints, {len(found.shipped)} reference records"
    yield escape(f"wrote {found.path}: {what}, {found.num_bytes:,} bytes")
    yield from map(escape, found.remarks)


def unpacked_lines(found: "Unpacked", *, checked_only: bool) -> Iterator[str]:
    """Yield what came of an archive, and what a reader must know."""
    yield escape(f"{found.path}: all {found.checked} digests are right")
    added = f"{len(found.added)} runs {'would be ' * checked_only}added"
    yield f"{added}, {len(found.present)} {'are' if checked_only else 'were'} there already"
    yield from map(escape, (*(f"there already, the same: {name}" for name in found.present), *found.remarks))


MOST_ROWS = 3  # of a table, before a count stands for the others; --json has all


def knob_lines(name: str, found: Iterable["Knob"]) -> Iterator[str]:
    """Yield what is known of the keys that a name means: all of those that bear it, a line each of those below."""
    from espalier.knobs import canonical  # noqa: PLC0415

    every = list(found)
    whole = [knob for knob in every if knob.key in (name, canonical(name), name.partition("=")[0])] or every
    for knob in whole:
        reader = f"  [dim]{escape(' of '.join(filter(None, [knob.type, knob.reader])))}[/]" if knob.reader else ""
        yield f"[bold]{escape(knob.key)}[/]{reader}"
        facts = [("", knob.meaning), *(("default", text) for text in values_text(knob.defaults, but=knob.meaning))]
        facts += [("changed", text) for text in values_text(knob.changed, but=knob.meaning)]
        facts += [("refused", knob.refused), ("source", knob.source)]
        yield from (f"    [dim]{word:<8}[/]{escape(text)}" for word, text in facts if text)
        yield from (f"    [cyan]{escape(option)}[/]  {escape(text)}" for option, text in knob.options.items())
    yield from (f"[bold]{escape(knob.key)}[/]  {escape(knob.meaning)}" for knob in every if knob not in whole)


def values_text(settings: Iterable["Setting"], *, but: str) -> Iterator[str]:
    """Yield each value once, with where it holds and what is said of it beyond ``but``."""
    values: dict[tuple[str, str], dict[str, list[str]]] = {}
    for setting in settings:
        place, _, row = setting.where.partition(" row=")
        rows = values.setdefault((setting.value, setting.note.removeprefix(but)), {}).setdefault(place, [])
        rows += [row] if row else []
    for (value, note), places in values.items():
        named = [f"{place}: {_some(rows)}" if rows else place for place, rows in places.items()]
        yield f"{value}  ({'; '.join(named)})" + (f"  {note}" if note else "")


def _some(rows: list[str]) -> str:
    return ", ".join(rows[:MOST_ROWS]) + (f" and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else "")


def _spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    text = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.4g}"
    return text if std is None else f"{text} ± {std:.2g}"
