"""What a comparison would do, before it does it: who takes part, for how many epochs, what is trained and what reused. Writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console

from espalier.asking import Asked, Grid, composed_for
from espalier.comparing import Way, content_of, own_name, there_already, trials_of, tuning_seed
from espalier.composing import resolved
from espalier.contest import Contest, Entry, planned, tuned
from espalier.expectation import expectation
from espalier.progress import late_sign
from espalier.record import Store
from espalier.runner import Job, job_of, step_folders
from espalier.tables.published import COMPARISONS, paper


@dataclass(frozen=True)
class PlannedRow:
    """One row, over all its seeds.

    Args:
        row: Its name.
        recipe: File of ``conf/recipe``.
        epochs: Of a run of it, in all; 0 where it cannot be.
        done: Seeds whose run has a record.
        trains: What is trained for it, ``step epochs`` each, by seed; what a row above trains is not told again.
        reuses: Steps that are taken from the store, or from a row above, by seed.
        reason: Why it cannot be; empty where it can.
    """

    row: str
    recipe: str
    epochs: int
    done: tuple[int, ...] = ()
    trains: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    reuses: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Outline:
    """What a comparison would do.

    Args:
        name: Its table, ``compare/NAME``.
        scale: Scale of the runs.
        seeds: Seeds of every row.
        note: What makes it fair, in words.
        rows: Its rows; of a tuned one the trials, whose best settings the rows then have.
        epochs: Epochs that are trained in all.
        expected: How long that takes on this machine, in words.
        trials: Trials of each contestant; 0 where nothing is tuned.
    """

    name: str
    scale: str
    seeds: tuple[int, ...]
    note: str
    rows: list[PlannedRow]
    epochs: int
    expected: str
    trials: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def outlined(found: Asked, *, store: Store | None = None, console: Console | None = None) -> Outline:
    """Return what is asked for, planned and looked up in the store; nothing is trained or written.

    Args:
        found: What is asked for.
        store: Where runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        console: Where a sign shows that it takes long; None shows none.

    Raises:
        ValueError: As for ``comparing.compare``.
    """
    place = store or Store()
    with late_sign(console, "trying every pairing on the untrained network"):
        contest = planned(found.grid, scale=found.scale, chosen=found.chosen)
        title = found.name or own_name(contest, found.tune)
        tuned_at = tuning_seed(place, title, found)
        way = Way(place, found.scale, found.jobs, found.beside, console)
        content = content_of(contest, title, way, tuned=trials_of(found, tuned_at), trials=False)
        if tuned_at is None:
            there_already(content, place)  # the settings of a tuned one are not known yet
        looked = _Looked(found.grid, found.scale, title if tuned_at is None else f"{title}-trials", found.beside, place)
        asked_rows = _rows(contest, found.tune) if tuned_at is not None else [_dense(contest), *contest.entries]
        seeds = list(found.seeds) if tuned_at is None else [tuned_at]
        rows = [looked.row(entry, seeds) for entry in asked_rows]
        known = [*place.records(), *paper(COMPARISONS, store=place.root).shipped_records()]
        expected = expectation(looked.left, known, found.jobs) if looked.left else "nothing to run"
    trials = found.tune if tuned_at is not None else 0
    return Outline(f"{COMPARISONS}/{title}", found.scale, tuple(found.seeds), content["note"], rows, looked.epochs, expected, trials)


def _dense(contest: Contest) -> Entry:
    return Entry("dense", "", "", None, contest.dense, "dense")


def _rows(contest: Contest, tune: int) -> list[Entry]:
    """Return the trials of every entry that can be, and the others as they are."""
    found = []
    for entry in contest.entries:
        trials = [tuned(entry, index) for index in range(1, tune + 1)]
        found += [entry] if entry.reason else [replace(one, row=f"{entry.row}-t{index}") for index, one in enumerate(trials, start=1)]
    return found


class _Looked:
    """Looks rows up in the store, one after another.

    Args:
        grid: What is asked for.
        scale: smoke, desk or paper.
        table: Name of their table.
        beside: Words that no training depends on.
        store: The store.
    """

    def __init__(self, grid: Grid, scale: str, table: str, beside: Sequence[str], store: Store) -> None:
        self.grid, self.scale, self.table, self.beside, self.store = grid, scale, table, beside, store
        self.left: list[Job] = []
        self.epochs = 0
        self.trained: set[str] = set()  # folders of steps that rows before train

    def row(self, entry: Entry, seeds: Sequence[int]) -> PlannedRow:
        """Return one row over its seeds."""
        recipe = next(word.partition("=")[2] for word in entry.overrides if word.startswith("recipe="))
        if entry.reason:
            return PlannedRow(entry.row, recipe, 0, reason=entry.reason)
        done, trains, reuses, epochs = [], {}, {}, 0
        for seed in seeds:
            job = self._job(entry, seed)
            steps = job.config["recipe"]["steps"]
            epochs = sum(step.get("epochs", 0) for step in steps.values())
            if self.store.find(job.name) is not None:
                done.append(seed)
                continue
            self.left.append(job)
            folders = step_folders(job.identity)
            old = {name for name, folder in folders.items() if folder in self.trained or self._kept(folder)}
            self.trained |= set(folders.values())
            self.epochs += sum(step.get("epochs", 0) for name, step in steps.items() if name not in old)
            trains[seed] = tuple(f"{name} {step.get('epochs', 0)}" for name, step in steps.items() if name not in old)
            reuses[seed] = tuple(name for name in steps if name in old)
        return PlannedRow(entry.row, recipe, epochs, tuple(done), trains, reuses)

    def _kept(self, folder: str) -> bool:
        return (self.store.root / ".steps" / folder / "state.json").exists()

    def _job(self, entry: Entry, seed: int) -> Job:
        config = resolved(composed_for(self.grid, [*entry.overrides, *self.beside, f"seed={seed}"], self.scale))
        return job_of(config | {"paper": COMPARISONS, "table": self.table, "row": entry.row}, plain=True)
