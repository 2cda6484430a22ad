"""Run what a command names: one row or many, in one process, with a progress bar; or hand over to Hydra for its launchers."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from espalier.composing import config_dir, own_config_dir, register_rows, resolved, rewrite
from espalier.executing import Ask, carry_out
from espalier.files import write_over
from espalier.printing import errors
from espalier.record import Record, Store
from espalier.refusals import refuse_idle_rates
from espalier.runner import Rerun, command_of, execute, job_of, plan
from espalier.tables.names import did_you_mean
from espalier.tables.schema import SCALES
from espalier.words import choices, seeds_in, truth, value_of, whole

HYDRA_FLAGS = ("-m", "--multirun", "--cfg", "-c", "--info", "-i", "--hydra-help", "--resolve", "--package", "-p")

OWN_WORDS = ("row", "scale", "seed", "rerun", "dry_run", "jobs")  # what a command names; the other words change the config


def run(
    name: str,
    *,
    rows: Sequence[str] | None = None,
    scale: str = "smoke",
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    rerun: Rerun = None,
    jobs: int = 1,
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
        rerun: ``stale`` also does those finished runs anew whose code has changed since; what they left moves to ``.stale`` in the store.
        jobs: Runs at a time, each in a process of its own; one runs in this process. See ``espalier.executing.carry_out``.
        store: Where runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: A name or key does not exist, data is missing, or a step's settings don't fit.
    """
    place, rerun = store or Store(), checked_rerun(rerun)
    _check_lists(rows, seeds, overrides)
    published = register_rows(name, scale, store=place.root)
    for given, what in ((rows, "rows"), (seeds, "seeds")):
        if given is not None and not given:
            raise ValueError(f"{what}=[] names nothing to run of {name}; leave it out for all, or name some.")
    chosen = published.runnable if rows is None else rows
    wanted = [(row, seed) for row in chosen for seed in (published.seeds_of(row, scale) if seeds is None else seeds)]
    asks = [Ask(name, row, scale, seed, tuple(overrides)) for row, seed in wanted]
    outcome = carry_out(asks, title=f"{name} at scale={scale}", store=place, rerun=rerun, jobs=jobs, console=console)
    outcome.refuse()
    return outcome.records


def _check_lists(rows: object, seeds: object, overrides: object) -> None:
    """Raise ``ValueError`` where a list that Python gave is none, or holds what does not belong there."""
    for what, given, kind, example in (
        ("rows", rows, str, '["dense"]'),
        ("seeds", seeds, int, "[0, 1]"),
        ("overrides", overrides, str, '["rate=2"]'),
    ):
        if given is None:
            continue
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ValueError(f"{what}={given!r} is no list; write one, such as {what}={example}.")
        if wrong := [one for one in given if not isinstance(one, kind) or isinstance(one, bool)]:
            raise ValueError(f"{what} holds {wrong[0]!r}, which is no {kind.__name__}; write them so: {what}={example}.")


def checked_rerun(word: str | None) -> Rerun:
    """Return ``word`` if it is one that ``rerun`` takes.

    Raises:
        ValueError: It is not; the message has the nearest.
    """
    if word in (None, "null"):
        return None
    if word == "stale":
        return "stale"
    raise ValueError(f"rerun={word} is not known; {did_you_mean(str(word), ['stale', 'null'])}")


def run_overrides(name: str, overrides: Sequence[str], *, states: Path | None = None, console: Console | None = None) -> list[Record]:
    """Run what the words of a command line name: ``row=a,b``, ``seed=0,1``, ``scale=smoke,desk``, any Hydra override.

    ``rerun=stale`` does stale runs anew, ``jobs=2`` runs two at a time. Scales run one after another. Where a flag of Hydra's is among the
    words, Hydra takes over, and its launchers run the jobs.

    Args:
        name: ``PAPER/TABLE``.
        overrides: The words.
        states: File that gets the names of the runs and that they are done, as JSON.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: As for ``run``.
    """
    scales = choices(overrides, "scale", SCALES) or ["smoke"]
    tables = {scale: register_rows(name, scale) for scale in scales}
    rerun, jobs = checked_rerun(value_of(overrides, "rerun")), whole(overrides, "jobs", 1)
    records: list[Record] = []
    by_hydra = any(word in HYDRA_FLAGS for word in overrides)
    if by_hydra and states is not None:
        raise ValueError("--states lists the runs of this process; Hydra's flags hand them to its launchers. Leave one of both out.")
    if by_hydra and jobs > 1:
        raise ValueError(f"jobs={jobs} is of this process; Hydra's launchers have their own number of jobs. Leave one of both out.")
    if by_hydra and truth(overrides, "dry_run"):
        raise ValueError("dry_run=true shows rows one by one and takes no flag of Hydra's; leave out -m, and give every key one value.")
    for scale, published in tables.items():
        if by_hydra:
            register_rows(name, scale)  # each scale has its own data
            _hand_over(name, [word for word in overrides if not word.startswith(("scale=", "jobs="))] + [f"scale={scale}"])
            continue
        rest = [word for word in overrides if word.partition("=")[0] not in OWN_WORDS]
        rows, seeds = choices(overrides, "row", list(published.runnable)), seeds_in(overrides)
        for row in rows or []:
            published.row(row)
        if truth(overrides, "dry_run"):
            for row in rows or list(published.runnable):
                for seed in seeds or [0]:
                    _dry_run(name, row, scale, seed, rest, console or Console())
            continue
        records += run(name, rows=rows, scale=scale, seeds=seeds, overrides=rest, rerun=rerun, jobs=jobs, console=console)
    if states is not None:
        write_over(states, json.dumps({record.name: "done" for record in records}, indent=1) + "\n")
    return records


def _dry_run(name: str, row: str, scale: str, seed: int, overrides: Sequence[str], console: Console) -> None:
    from espalier.dry_run import outline  # noqa: PLC0415

    console.print(outline(plan(name, row=row, scale=scale, seed=seed, overrides=overrides)))


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
    words = [word for word in HydraConfig.get().overrides.task if not word.startswith(("+experiment=", "+row/"))]
    changed = [word for word in words if word.partition("=")[0] not in OWN_WORDS]
    refuse_idle_rates(config, changed)
    command = command_of(f"{config.paper}/{config.table}", config.row, config.scale, config.seed, changed)
    record = execute(job, store=Store(), command=command, rerun=checked_rerun(config.rerun))
    top1 = record.metrics.get("top1_pct")
    errors.print(record.name + ("" if top1 is None else f": top1_pct {top1:.4g}"), highlight=False, markup=False, soft_wrap=True)
