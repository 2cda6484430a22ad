"""The shell: a thin layer over the Python interface, without torch until a verb needs it."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as Grid

app = typer.Typer(help="Rerun, sweep, compare and measure papers on fitting neural networks to hardware.", no_args_is_help=True)
console = Console()
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Scale = Annotated[
    str, typer.Option("--scale", "-s", help="smoke (embedded data, seconds), desk (minutes) or paper (the published recipe).")
]
ScaleOrHighest = Annotated[str | None, typer.Option("--scale", "-s", help="Default: the highest scale that has records.")]
MARKS = {"holds": "[green]holds[/]", "fails": "[red]fails[/]", "inconclusive": "[yellow]inconclusive[/]", "not run": "[dim]not run[/]"}


def main() -> None:
    """Run the command line; errors a user can mend come as one line."""
    with readable_errors():
        app()


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn errors that name their cause and way out into one line and exit code 2; ``ESPALIER_DEBUG=1`` shows where they came from."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("ESPALIER_DEBUG"):
            raise
        errors.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped; finished runs are kept, and the same command goes on from the last epoch.")
        sys.exit(130)


def complete_table(incomplete: str) -> list[str]:
    """Return the names of runnable tables that begin so."""
    from espalier.tables.published import papers  # noqa: PLC0415

    names = [f"{paper.name}/{name}" for paper in papers().values() for name in paper.rows]
    return [name for name in names if name.startswith(incomplete)]


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Return the overrides that begin so: the rows of the table, the scales, the config groups and their options."""
    from espalier.composing import SCALES, config_dir  # noqa: PLC0415
    from espalier.tables.published import table  # noqa: PLC0415

    key, separator, _ = incomplete.partition("=")
    if not separator:
        groups = [path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "experiment"]
        return [f"{name}=" for name in ["row", "scale", "seed", "rate", *groups] if name.startswith(incomplete)]
    if key == "row":
        options = list(table(context.params["name"]).runnable)
    elif key == "scale":
        options = list(SCALES)
    else:
        options = [path.stem for path in (config_dir() / key).glob("*.yaml")]
    return [choice for choice in (f"{key}={option}" for option in sorted(options)) if choice.startswith(incomplete)]


TableName = Annotated[str, typer.Argument(help="PAPER/TABLE, such as progressive-admm/lenet5.", autocompletion=complete_table)]


@app.command()
def papers(as_json: AsJson = False) -> None:
    """List the papers: their tables, the rows that can be rerun, and how many claims hold."""
    from espalier.inventory import own_records  # noqa: PLC0415
    from espalier.tables.claims import judge  # noqa: PLC0415
    from espalier.tables.published import papers as known  # noqa: PLC0415

    listing: list[dict[str, Any]] = []
    for paper in known().values():
        verdicts: list[str] = [verdict.verdict for verdict in judge(paper, own_records())]
        rows = sum(len(rows) for rows in paper.rows.values())
        listing.append(
            {"paper": paper.name, "tables": paper.table_names, "rows": rows, "claims": {word: verdicts.count(word) for word in MARKS}}
        )
    if as_json:
        console.print_json(json.dumps(listing))
        return
    grid = Grid("paper", "tables", "rows", *MARKS)
    grid.columns[0].no_wrap = True
    for entry in listing:
        grid.add_row(entry["paper"], str(len(entry["tables"])), str(entry["rows"]), *(str(entry["claims"][word]) for word in MARKS))
    console.print(grid)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    name: TableName,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides: row=, scale=, seed=, any key.", autocompletion=complete_override)
    ] = None,
    states: Annotated[Path | None, typer.Option(help="Write the names of the runs and that they are done to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    r"""Run the rows of a table that have no record yet.

    \b

    espalier run progressive-admm/lenet5                              every missing row at smoke
    espalier run progressive-admm/lenet5 scale=desk                   the same on real data
    espalier run progressive-admm/lenet5 row=admm-70x seed=1          one row; any further override works
    espalier run progressive-admm/lenet5 'row=glob(*-70x)' seed=0,1   several; lists and globs as in Hydra
    espalier run progressive-admm/lenet5 row=dense --cfg job          print the config
    espalier run progressive-admm/lenet5 row=dense dry_run=true       print layers, sets, rates and epochs
    """
    from espalier.files import write_over  # noqa: PLC0415
    from espalier.running import run_overrides  # noqa: PLC0415

    records = run_overrides(name, overrides or [], console=errors)
    if states is not None:
        write_over(states, json.dumps({record.name: "done" for record in records}, indent=1) + "\n")
    if as_json:
        console.print_json(json.dumps([json.loads(record.model_dump_json()) for record in records]))


@app.command()
def table(
    name: TableName,
    scale: ScaleOrHighest = None,
    to: Annotated[str | None, typer.Option(help="csv, md or latex.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a table: published | shipped | yours."""
    from espalier.inventory import cells, highest_scale  # noqa: PLC0415
    from espalier.tables.export import export  # noqa: PLC0415
    from espalier.tables.published import table as published  # noqa: PLC0415

    chosen = scale or highest_scale(name)
    found = cells(name, chosen)
    if as_json or to:
        sys.stdout.write(export(published(name), found, "json" if as_json else str(to)).rstrip() + "\n")
        return
    grid = Grid("row", "column", "published", "provenance", "shipped", "yours", "seeds", title=f"{name} at scale={chosen}")
    for column in grid.columns:
        column.overflow = "fold"
    for cell in found:
        shipped, ours = (_spread(mean, std) for mean, std in ((cell.shipped_mean, cell.shipped_std), (cell.ours_mean, cell.ours_std)))
        grid.add_row(
            cell.row,
            cell.column,
            "" if cell.published is None else str(cell.published),
            cell.provenance or "",
            shipped,
            ours,
            ",".join(map(str, cell.seeds)),
        )
    console.print(grid)


def _spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    text = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.4g}"
    return text if std is None else f"{text} ± {std:.2g}"


@app.command()
def claims(paper: Annotated[str, typer.Argument(help="A paper, such as progressive-admm.")], as_json: AsJson = False) -> None:
    """Judge each claim of a paper: holds, fails, inconclusive or not run, with the figures behind it."""
    from espalier.inventory import own_records  # noqa: PLC0415
    from espalier.tables.claims import judge  # noqa: PLC0415
    from espalier.tables.published import paper as named  # noqa: PLC0415

    verdicts = judge(named(paper), own_records())
    if as_json:
        sys.stdout.write(json.dumps([verdict.as_json() for verdict in verdicts], indent=1) + "\n")
        return
    for verdict in verdicts:
        console.print(f"[bold]{verdict.id}[/] {MARKS[verdict.verdict]}  {verdict.statement}", highlight=False)
        if verdict.reason:
            console.print(f"    {verdict.reason}", style="dim", highlight=False)


@app.command()
def runs(as_json: AsJson = False) -> None:
    """List finished runs."""
    from espalier.code import is_stale  # noqa: PLC0415
    from espalier.inventory import own_records  # noqa: PLC0415

    listing = [
        {
            "run": record.name,
            "started": record.started,
            "duration_s": record.duration_s,
            "variant": record.variant,
            "stale": is_stale(record),
        }
        for record in own_records()
    ]
    if as_json:
        sys.stdout.write(json.dumps(listing, indent=1) + "\n")
        return
    grid = Grid("run", "started", "seconds", "")
    grid.columns[0].overflow = "fold"
    for entry in listing:
        remark = " ".join(word for word in ("variant", "stale") if entry[word])
        grid.add_row(str(entry["run"]), str(entry["started"]), f"{entry['duration_s']:.0f}", remark)
    console.print(grid)


@app.command()
def show(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="A run as `espalier runs` lists it; its beginning is enough.")],
) -> None:
    """Print one run's record as JSON, series aside."""
    from espalier.inventory import find_run  # noqa: PLC0415

    sys.stdout.write(find_run(run_name).model_dump_json(indent=1, exclude={"series"}) + "\n")


@app.command()
def diff(first: str, second: str, as_json: AsJson = False) -> None:
    """Show in which settings and figures two runs differ."""
    from espalier.inventory import differences, find_run  # noqa: PLC0415

    found = differences(find_run(first), find_run(second))
    if as_json:
        sys.stdout.write(json.dumps([{"key": key, "first": a, "second": b} for key, a, b in found], indent=1) + "\n")
        return
    grid = Grid("key", "first", "second")
    for key, left, right in found:
        grid.add_row(key, str(left), str(right))
    console.print(grid)


@app.command()
def keep(run_name: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Copy a run's record and measurements to the paper's results/: a shipped reference."""
    from espalier.inventory import find_run, keep_record  # noqa: PLC0415

    console.print(f"kept as {keep_record(find_run(run_name))}")


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    steps_only: Annotated[bool, typer.Option(help="Delete only the kept states of steps, not runs.")] = True,
) -> None:
    """Delete the kept states of steps (and with --no-steps-only all runs), after saying how many bytes that frees."""
    from espalier.inventory import deletable, delete  # noqa: PLC0415

    folders, num_bytes = deletable(steps_only=steps_only)
    console.print(f"{len(folders)} folders, {num_bytes:,} bytes")
    if folders and (yes or typer.confirm("Delete them?")):
        delete(folders)


@app.command()
def report(out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("report")) -> None:
    """Write the page of all papers: published, shipped and yours, claims and curves. It opens from disk."""
    from espalier.inventory import own_measurements, own_records  # noqa: PLC0415
    from espalier.tables.published import papers as known  # noqa: PLC0415
    from espalier.tables.report import write_report  # noqa: PLC0415

    console.print(f"open {write_report(known().values(), own_records(), own_measurements(), out)}")


@app.command()
def plot(
    name: TableName,
    to: Annotated[Path, typer.Option(help="File: .pdf, .svg, .png or .csv.")],
    scale: ScaleOrHighest = None,
) -> None:
    """Draw a table's accuracy against rate, with the paper's points."""
    from espalier.inventory import cells, highest_scale  # noqa: PLC0415
    from espalier.tables.plots import plot as draw  # noqa: PLC0415
    from espalier.tables.published import table as published  # noqa: PLC0415

    console.print(f"wrote {draw(published(name), cells(name, scale or highest_scale(name)), to)}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A data set: mnist.")],
    root: Annotated[Path | None, typer.Option(help="Folder to put it in; default ESPALIER_DATA, else ./data.")] = None,
) -> None:
    """Fetch a data set from its official source and check it."""
    from espalier.data.fetch import fetch as download  # noqa: PLC0415

    console.print(f"complete: {download(name, root)}")


if __name__ == "__main__":
    main()
