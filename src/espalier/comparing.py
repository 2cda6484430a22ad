"""``espalier compare``: methods, constraints and rates on one network and one data set, as a table like any other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import yaml
from rich.console import Console

from espalier.asking import EXPERIMENT, SEEDS, Asked, Grid, asked
from espalier.contest import Contest, Entry, planned, tuned
from espalier.contestants import contestant
from espalier.executing import Ask, Outcome, carry_out
from espalier.files import write_over
from espalier.inventory import cells
from espalier.progress import late_sign
from espalier.record import Record, Store, digest
from espalier.standing import Standing, standings_in
from espalier.tables.published import COMPARISONS, comparison_file, paper
from espalier.tables.ranking import of_one_computation
from espalier.tables.schema import SCALES, Table

CHOSEN_BY = "val/top1_pct"
COLUMNS: dict[str, dict[str, str]] = {
    "top1_pct": {},
    "loss_pct": {
        "unit": "points",
        "better": "lower",
        "kind": "accuracy",
        "computed": "dense.top1_pct - top1_pct",
        "meaning": "accuracy lost against the dense row",  # and after how many epochs of its own
    },
    "rate": {},
    "macs_rate": {
        "unit": "x",
        "better": "higher",
        "kind": "counted",
        "computed": "dense.macs / macs_effective",
        "meaning": "multiply-adds of the dense network over those left",
    },
    "stored_bytes": {},
    "latency_ms_p50": {},
    "train/epochs": {},
}


@dataclass(frozen=True)
class Comparison:
    """What a comparison gave.

    Args:
        name: Its table, ``compare/NAME``.
        scale: Scale of the runs.
        note: What makes it fair, in words.
        standings: One line a row.
        failed: Run -> why it has no record.
        remarks: What is wrong with it.
        records: Those of the asked seeds.
        notes: What a reader of the figures must know, such as which times are of one computation.
    """

    name: str
    scale: str
    note: str
    standings: list[Standing]
    failed: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; of records their names."""
        lines = [one.as_json() for one in self.standings]
        facts = {
            "name": self.name,
            "scale": self.scale,
            "note": self.note,
            "failed": self.failed,
            "remarks": self.remarks,
            "notes": self.notes,
        }
        return {**facts, "rows": lines, "runs": [record.name for record in self.records]}


def compare(
    *,
    model: str,
    data: str,
    methods: Sequence[str],
    constraints: Sequence[str],
    rates: Sequence[float] = (),
    scale: str = "smoke",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    tune: int = 0,
    jobs: int = 1,
    name: str | None = None,
    overrides: Sequence[str] = (),
    store: Store | None = None,
    console: Console | None = None,
) -> Comparison:
    """Compare methods, constraints and rates; the same call again adds what is missing.

    Every contestant trains for the same number of epochs in all, leaves the same layers dense and, where its method starts from a dense
    network, starts from the same one, trained once a seed; the dense row is that network, after its own epochs alone.
    The table is ``compare/NAME``: ``table``, ``plot``, ``report`` and ``run`` take it as any other.

    Args:
        model: A file of ``conf/model``.
        data: A file of ``conf/data``.
        methods: Files of ``conf/contestant``, or of ``conf/method``, which then go with the recipe ``one_shot``.
        constraints: Files of ``conf/constraint``.
        rates: All / kept; a set without a rate takes part once.
        scale: smoke, desk or paper: how long everything trains.
        seeds: None takes 0 at smoke, else 0, 1 and 2.
        epochs: Of the dense network and of the method each, half of it (at least 1) for the retraining; None takes the scale's.
        tune: Trials of each contestant, chosen among by validation accuracy at one seed, the first named when
            they ran; 0 and 1 take the settings as they are.
        jobs: Runs at a time, each in a process of its own.
        name: Of the table; None makes one of model, data and six digits of what is compared.
        overrides: Further Hydra overrides; each goes to the rows that know its key.
        store: Where runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: A name or key does not exist, data is missing, a single contestant is asked for, contestants would train for different
            epochs, or the name belongs to another comparison. A run that fails is no error: see ``Comparison.failed``.
    """
    found = asked(
        model=model,
        data=data,
        methods=methods,
        constraints=constraints,
        rates=rates,
        scale=scale,
        seeds=seeds,
        epochs=epochs,
        tune=tune,
        jobs=jobs,
        name=name,
        overrides=overrides,
    )
    return compared(found, store=store, console=console)


def compared(found: Asked, *, store: Store | None = None, console: Console | None = None) -> Comparison:
    """Compare what is asked for; see ``compare``."""
    place = store or Store()
    way = Way(place, found.scale, found.jobs, found.beside, console)
    with late_sign(console, "trying every pairing on the untrained network"):
        contest = planned(found.grid, scale=found.scale, chosen=found.chosen)
    title = found.name or own_name(contest, found.tune)
    remarks: list[str] = []
    tuned_at = tuning_seed(place, title, found)
    if tuned_at is not None:
        contest, remarks = _tuned(contest, found.tune, f"{title}-trials", way, tuned_at)
    table = _filed(contest, title, way, seeds=found.seeds, tuned=trials_of(found, tuned_at))
    outcome = _run(table, way, found.seeds)
    with late_sign(console, "reading the records"):
        every = cells(table.name, scale=found.scale, store=place)
    remarks += _remarks(table, outcome.records)
    notes = of_one_computation(table, every)
    return Comparison(table.name, found.scale, table.note, standings_in(table, every), outcome.failed, remarks, outcome.records, notes)


def own_name(contest: Contest, tune: int) -> str:
    """Return the name of a comparison that was given none: model, data and six digits of what is compared."""
    grid = contest.grid
    called = next((word.partition("=")[2] for word in grid.overrides if word.startswith("model.name=")), grid.model)
    content = [contest.dense, [[entry.row, entry.overrides, bool(entry.reason)] for entry in contest.entries], grid.model, grid.data, tune]
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", f"{called}").strip("_") or "model"
    return f"{plain if plain[0].isalpha() else f'm{plain}'}-{grid.data}-{digest(content)[:6]}"


@dataclass(frozen=True)
class Way:
    """How the runs of a comparison are done."""

    store: Store
    scale: str
    jobs: int
    words: tuple[str, ...]
    console: Console | None


def _tuned(contest: Contest, tune: int, name: str, way: Way, seed: int) -> tuple[Contest, list[str]]:
    """Run the trials of every entry at one seed; return the contest with the best of each, and a remark on each trial that failed."""
    trials = {entry.row: [tuned(entry, index) for index in range(1, tune + 1)] for entry in contest.entries if not entry.reason}
    rows = [replace(one, row=f"{row}-t{index}") for row, several in trials.items() for index, one in enumerate(several, start=1)]
    table = _filed(replace(contest, entries=rows), name, way, seeds=[seed], tuned={"trials": tune, "seed": seed}, trials=True)
    outcome = _run(table, way, [seed], dense=False)
    reached = {record.row: record.metrics[CHOSEN_BY] for record in outcome.records if record.metrics.get(CHOSEN_BY) is not None}
    entries = []
    for entry in contest.entries:
        several = trials.get(entry.row, [])
        known = [(reached[f"{entry.row}-t{index}"], -index) for index in range(1, tune + 1) if f"{entry.row}-t{index}" in reached]
        if not several or not known:
            entries.append(entry if not several else replace(entry, reason=f"none of its {tune} trials has a record"))
            continue
        best = several[-max(known)[1] - 1]
        entries.append(replace(best, row=entry.row))
    return replace(contest, entries=entries), [
        f"trial {run} counts as the worst of its contestant: {why}" for run, why in outcome.failed.items()
    ]


def tuning_seed(store: Store, title: str, found: Asked) -> int | None:
    """Return the seed that the trials of a comparison run at, or ran at, so that a lower one added later does not choose again.

    None where nothing is tuned.
    """
    if found.tune < 2:
        return None
    home = paper(COMPARISONS, store=store.root)
    seeds = [home.table(name).tuned.get("seed") for name in (title, f"{title}-trials") if name in home.table_names]
    return next((seed for seed in seeds if seed is not None), found.seeds[0])


def trials_of(found: Asked, seed: int | None) -> dict[Literal["trials", "seed"], int]:
    """Return how a table says that it is tuned; nothing where it is not."""
    return {} if seed is None else {"trials": found.tune, "seed": seed}


def _run(table: Table, way: Way, seeds: Sequence[int], *, dense: bool = True) -> Outcome:
    rows = [row for row in table.runnable if dense or row != "dense"]
    asks = [Ask(table.name, row, way.scale, seed, way.words) for row in rows for seed in seeds]
    title = f"{table.name} at scale={way.scale}"
    return carry_out(asks, title=title, store=way.store, jobs=way.jobs, keep_going=True, console=way.console)


def _filed(
    contest: Contest, name: str, way: Way, *, seeds: Sequence[int], tuned: Mapping[Literal["trials", "seed"], int], trials: bool = False
) -> Table:
    """Write the comparison's table, or add seeds and frames to the one that is there; return it.

    Raises:
        ValueError: Another comparison bears the name; the message says in what they differ.
    """
    store, scale = way.store, way.scale
    content = content_of(contest, name, way, tuned=tuned, trials=trials)
    content["seeds"] = SEEDS | {scale: list(seeds)}
    if (there := there_already(content, store)) is not None:
        if not comparison_file(store.root, name).is_file():
            return there
        old = {str(key): values for key, values in there.seeds.items()}
        content["seeds"] = old | {scale: sorted({*old.get(scale, []), *seeds})} if set(seeds) - set(old.get(scale, [])) else old
        content["note"] = " ".join([there.note, *(text for text in _timed(way) if text not in there.note)])
        if (content["seeds"], content["note"]) == (old, there.note):
            return there
    text = f"# Written by espalier compare. Runs: espalier run {COMPARISONS}/{name} scale={scale}\n"
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=140, default_flow_style=None)
    write_over(comparison_file(store.root, name), text + body)
    return paper(COMPARISONS, store=store.root).table(name)


def there_already(content: Mapping[str, Any], store: Store) -> Table | None:
    """Return the table of the store that has the name of a comparison's content, if there is one.

    Raises:
        ValueError: It is another comparison; the message says in what they differ.
    """
    name, home = content["table"], paper(COMPARISONS, store=store.root)
    if name not in home.table_names:
        return None
    there = home.table(name)
    if differences := _differences(there, Table.model_validate(content)):
        raise ValueError(
            f"name={name} belongs to another comparison: {'; '.join(differences)}. Give another name=; what both have in common is "
            "trained once."
        )
    return there


def content_of(contest: Contest, name: str, way: Way, *, tuned: Mapping[Literal["trials", "seed"], int], trials: bool) -> dict[str, Any]:
    """Return a comparison's table as its file has it, its seeds left out."""
    grid = contest.grid
    rows: dict[str, Any] = {"dense": {"overrides": contest.dense, "labels": {"method": "dense"}}}
    rows |= {entry.row: _row(entry) for entry in contest.entries}
    what = "trials of " if trials else ""
    columns = {title: dict(column) for title, column in ({CHOSEN_BY: {}, **COLUMNS} if trials else COLUMNS).items()}
    columns["loss_pct"]["meaning"] += f", after {_counted(contest.dense_epochs)} of its own"
    return {
        "paper": COMPARISONS,
        "table": name,
        "title": f"{grid.model} on {grid.data}: {what}{', '.join(grid.methods)} with {', '.join(grid.constraints)}",
        "source": {"where": "no paper: a comparison of one's own", "provenance": "proposal"},
        "note": _note(contest, way, tuned),
        "experiment": EXPERIMENT,
        "contestants": ["method", "constraint"],
        **({"tuned": dict(tuned)} if tuned else {}),
        "data": dict.fromkeys(SCALES, grid.data),
        "model": dict.fromkeys(SCALES, grid.model),
        "seeds": {},
        "columns": columns,
        "rows": rows,
    }


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {} if entry.reason else {"overrides": entry.overrides}
    notes = [f"Not applicable: {entry.reason}" if entry.reason else "", f"Tuned: {entry.choice}" if entry.choice else ""]
    note = " ".join(text for text in notes if text)
    return {**row, "labels": entry.labels, **({"note": note} if note else {})}


def _note(contest: Contest, way: Way, tuned: Mapping[Literal["trials", "seed"], int]) -> str:
    parts = [
        f"Every contestant trains for {_counted(contest.epochs)}, those of the dense network it starts from included.",
        f"The dense row, which loss_pct is against, trains for {_counted(contest.dense_epochs)} of its own.",
    ]
    settings = _settings(contest.grid)
    parts.append(
        f"Each has the best of {tuned['trials']} trials by {CHOSEN_BY} at seed {tuned['seed']}; the first: {settings}."
        if tuned
        else f"Settings: {settings}."
    )
    if contest.start == "finetune":
        parts.append("The network's weights are trained already: its learning rates are ours, not tuned, those named before too.")
    if contest.skipped:
        parts.append(f"Dense in every row: {', '.join(rule.replace('_', ' ') for rule in contest.skipped)}.")
    if contest.grid.overrides:
        parts.append(f"Set for all that know the key: {', '.join(contest.grid.overrides)}.")
    return " ".join([*parts, *_timed(way)])


def _counted(epochs: Mapping[str, int]) -> str:
    """Return epochs by scale in words, in one figure where all scales have the same."""
    counts = sorted(set(epochs.values()))
    if len(counts) == 1:
        return f"{counts[0]} epoch{'s' * (counts[0] > 1)}"
    return ", ".join(f"{count} epochs at {scale}" for scale, count in epochs.items())


def _settings(grid: Grid) -> str:
    """Return whose settings the contestants have, and what was chosen by a search that the others had not."""
    every = [contestant(name) for name in grid.methods]
    chosen = [f"{one.title} ({one.chosen})" for one in every if one.chosen]
    if not chosen:
        return "paper defaults"
    rest = "" if len(chosen) == len(every) else "; the others had no such search"
    return f"paper defaults, except: {', '.join(chosen)}{rest}"


def _timed(way: Way) -> list[str]:
    """Return a sentence on each frame that the runs are timed in, beside those of the config."""
    return [f"Timed with {word}." for word in way.words if not word.startswith("logger")]


def _differences(there: Table, here: Table) -> list[str]:
    """Return in what two comparisons differ, in words."""
    found = [
        f"{key} is {getattr(there, key)[SCALES[0]]} there, {getattr(here, key)[SCALES[0]]} here"
        for key in ("model", "data")
        if getattr(there, key) != getattr(here, key)
    ]
    for names, where in ((there.rows.keys() - here.rows.keys(), "there"), (here.rows.keys() - there.rows.keys(), "here")):
        if names:
            found.append(f"only {where}: {', '.join(sorted(names))}")
    if there.tuned.get("trials", 0) != here.tuned.get("trials", 0):
        found.append(f"tune is {there.tuned.get('trials', 0)} there, {here.tuned.get('trials', 0)} here")
    changed = [row for row in there.rows if row in here.rows and there.rows[row].overrides != here.rows[row].overrides]
    if changed:
        before, after = (set(table.rows[changed[0]].overrides or []) for table in (there, here))
        found.append(
            f"{changed[0]} has {' '.join(sorted(before - after)) or 'nothing'} there, {' '.join(sorted(after - before)) or 'nothing'} here"
        )
    return found


def _remarks(table: Table, records: Sequence[Record]) -> list[str]:
    """Return what the records say against the comparison: contestants that trained for different epochs."""
    epochs: Mapping[tuple[str, int], float | None] = {
        (record.row, record.seed): record.metrics.get("train/epochs") for record in records if record.row != "dense"
    }
    if len(set(epochs.values())) < 2:
        return []
    counts = ", ".join(f"{row} seed {seed} {'unknown' if count is None else f'{count:g}'}" for (row, seed), count in epochs.items())
    return [f"{table.name} is not fair: its contestants trained for different epochs ({counts})."]
