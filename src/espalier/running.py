"""Run what a command names: one row or many, in one process, with a progress bar; or hand over to Hydra for its launchers."""

import re
import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from espalier.composing import config_dir, own_config_dir, register_rows, resolved, rewrite
from espalier.record import Record, Store
from espalier.runner import Job, command_of, execute, job_of, plan

HYDRA_FLAGS = ("-m", "--multirun", "--cfg", "-c", "--info", "-i", "--hydra-help", "--resolve", "--package", "-p")


def run(
    name: str,
    *,
    rows: Sequence[str] | None = None,
    scale: str = "smoke",
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    store: Store | None = None,
    console: Console | None = None,
) -> list[Record]:
    """Run every asked row and seed that has no record yet; return the records of all of them.

    Args:
        name: ``PAPER/TABLE``.
        rows: Rows; None takes all of the table.
        scale: smoke, desk or paper.
        seeds: Seeds; None takes those the table asks for at that scale.
        overrides: Further Hydra overrides; runs that differ from their row are filed as variants.
        store: Where runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: A name or key does not exist, data is missing, or a step's settings don't fit.
    """
    place = store or Store()
    published = register_rows(name, scale)
    wanted = [
        (row, seed) for row in rows or published.runnable for seed in (seeds if seeds is not None else published.seeds_of(row, scale))
    ]
    jobs = [plan(name, row=row, scale=scale, seed=seed, overrides=overrides) for row, seed in wanted]
    done = [place.find(job.name) for job in jobs]
    if console is not None:
        console.print(f"{name} at scale={scale}: {len(jobs)} runs, {sum(record is not None for record in done)} done")
    records = []
    with _progress(console) as progress:
        bar = progress.add_task("", total=sum(_epochs(job) for job, record in zip(jobs, done, strict=True) if record is None))
        for (row, seed), job in zip(wanted, jobs, strict=True):
            progress.update(bar, description=f"{row} seed {seed}")
            command = command_of(name, row, scale, seed, overrides)
            records.append(execute(job, store=place, command=command, on_epoch=lambda *_: progress.advance(bar)))
    return records


def _epochs(job: Job) -> int:
    return sum(step.get("epochs", 0) for step in job.config["recipe"]["steps"].values())


def _progress(console: Console | None) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console or Console(quiet=True), disable=console is None)


def run_overrides(name: str, overrides: Sequence[str], *, console: Console) -> list[Record]:
    """Run what the words of a command line name; hand over to Hydra where one of its own flags is among them."""
    scale = _value(overrides, "scale") or "smoke"
    published = register_rows(name, scale)
    if any(word in HYDRA_FLAGS for word in overrides):
        _hand_over(name, overrides)
        return []
    rest = [word for word in overrides if word.partition("=")[0] not in ("row", "scale", "seed", "dry_run")]
    rows, seeds = _choices(overrides, "row", list(published.runnable)), _choices(overrides, "seed", [])
    for row in rows or []:
        published.row(row)
    if (_value(overrides, "dry_run") or "false").lower() == "true":
        for row in rows or list(published.runnable):
            _dry_run(name, row, scale, rest, console)
        return []
    return run(name, rows=rows, scale=scale, seeds=None if seeds is None else list(map(int, seeds)), overrides=rest, console=console)


def _value(overrides: Sequence[str], key: str) -> str | None:
    return next((word.partition("=")[2] for word in overrides if word.partition("=")[0] == key), None)


def _choices(overrides: Sequence[str], key: str, options: Sequence[str]) -> list[str] | None:
    """Return what ``key=a,b`` or ``key=glob(*)`` names; None where the key is not given."""
    words = [word for word in overrides if word.partition("=")[0] == key]
    if not words:
        return None
    parsed = OverridesParser.create().parse_override(words[0])
    if not parsed.is_sweep_override():
        return [str(parsed.value())]
    value: Any = parsed.value()
    if hasattr(value, "filter"):
        return list(value.filter(list(options)))
    return [str(choice) for choice in parsed.sweep_iterator()]


def _dry_run(name: str, row: str, scale: str, overrides: Sequence[str], console: Console) -> None:
    from espalier.dry_run import outline  # noqa: PLC0415

    console.print(outline(plan(name, row=row, scale=scale, seed=0, overrides=overrides)))


def _hand_over(name: str, overrides: Sequence[str]) -> None:
    """Let Hydra parse the command line: multirun, launchers, ``--cfg``."""
    flags = [word for word in overrides if word in HYDRA_FLAGS or (word.startswith("-") and not re.match(r"-?\d", word))]
    values = [word for word in overrides if word not in flags]
    plain = [word for word in values if "=" not in word and not word.startswith("~")]  # a flag's argument, such as `job` after --cfg
    own = own_config_dir()
    search = [] if own is None else [f"hydra.searchpath=[file://{own}]"]
    arguments = [*flags, *plain, *rewrite(name, [word for word in values if word not in plain]), *search]
    before = sys.argv
    sys.argv = ["espalier run", *arguments]
    try:
        hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")(hydra_job)()
    finally:
        sys.argv = before


def hydra_job(config: DictConfig) -> None:
    """Run one job that Hydra composed; launchers call this in processes of their own."""
    register_rows(f"{config.paper}/{config.table}", config.scale)
    if config.row is None:
        raise ValueError("Hydra's multirun takes one row a job; add row=NAME, row=a,b or row=glob(*).")
    job = job_of(resolved(config))
    execute(job, store=Store(), command=command_of(f"{config.paper}/{config.table}", config.row, config.scale, config.seed, []))
