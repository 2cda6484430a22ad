"""One list of jobs, one way to do it: what is done is taken, the rest runs, here or in several processes at once.

A process that dies takes its own run with it and no other. Jobs that would train the same step are not given out at once: the second waits
until the first has it, and meanwhile another runs.
"""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from espalier.code import stale_runs
from espalier.devices import num_cores
from espalier.expectation import expectation
from espalier.progress import count, late_sign, progress_bar
from espalier.record import Record, Store
from espalier.runner import Job, Rerun, command_of, execute, plan, step_folders
from espalier.tables.published import paper
from espalier.words import check_jobs

FAILURES = (ValueError, OSError, ModuleNotFoundError)  # what a run says of itself; anything else is a fault of ours and comes as it is


@dataclass(frozen=True)
class Ask:
    """What names a run, in any process: row ``row`` of ``name`` at a scale and seed, under further overrides."""

    name: str
    row: str
    scale: str
    seed: int
    overrides: tuple[str, ...] = ()

    def planned(self, store: Store) -> Job:
        """Return the job, of a table that ``store`` may hold; raises as ``plan`` does."""
        return plan(self.name, row=self.row, scale=self.scale, seed=self.seed, overrides=self.overrides, store=store.root)

    @property
    def command(self) -> str:
        """Return the command that repeats it."""
        return command_of(self.name, self.row, self.scale, self.seed, self.overrides)


@dataclass
class Outcome:
    """What became of a list of jobs.

    Args:
        records: One for each job that has ended, in the order of the list.
        failed: Run -> why it has no record.
    """

    records: list[Record] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def refuse(self) -> None:
        """Raise ``ValueError`` with every run that failed and why, if any did."""
        if self.failed:
            raise ValueError(
                f"{len(self.failed)} of {len(self.failed) + len(self.records)} runs failed, the others are kept: {causes(self.failed)}"
            )


def causes(failed: Mapping[str, str]) -> str:
    """Return which runs failed and why, as one text; a cause that several share is told once."""
    runs: dict[str, list[str]] = {}
    for run, why in failed.items():
        runs.setdefault(why, []).append(run)
    return "; ".join(f"{', '.join(several)}: {why}" for why, several in runs.items())


def carry_out(
    asks: Sequence[Ask],
    *,
    title: str,
    store: Store,
    rerun: Rerun = None,
    jobs: int = 1,
    keep_going: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Return the records of all that is asked, running what has none.

    Args:
        asks: The runs, in order.
        title: What they are, for the announcement.
        store: Where they live.
        rerun: As for ``execute``.
        jobs: Processes; more than there are cores for are lowered, with a word. Above 1, a script that calls this needs the usual
            ``if __name__ == "__main__":``.
        keep_going: With one process: note a run that fails and go on; else its error ends the list. Several processes always go on.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: ``jobs`` is below 1, a job cannot be planned, or, as said above, a run failed.
    """
    check_jobs(jobs)
    with late_sign(console, f"composing {len(asks)} runs"):
        planned = [ask.planned(store) for ask in asks]
        found = [store.find(job.name) for job in planned]
        known_stale = stale_runs(record for record in found if record is not None)
    stale = [record is not None and record.name in known_stale for record in found]
    left = [index for index, (record, old) in enumerate(zip(found, stale, strict=True)) if record is None or (old and rerun == "stale")]
    at_once = _at_once(jobs, [planned[index] for index in left], console)
    if console is not None:
        console.print(_announcement(title, planned, [planned[index] for index in left], sum(stale), rerun, store, at_once), soft_wrap=True)
    outcome = Outcome()
    records = {index: record for index, record in enumerate(found) if record is not None and index not in left}
    with progress_bar(console, "epochs") as progress:
        bar = progress.add_task("", total=sum(epochs_of(planned[index].config) for index in left))
        told = Told(lambda text: progress.update(bar, description=text), lambda: count(progress, bar))
        todo = [(index, asks[index], planned[index]) for index in left]
        if at_once == 1:
            _here(todo, records, outcome, store=store, rerun=rerun, keep_going=keep_going, told=told)
        else:
            _Crew(store, rerun, at_once, told).work(todo, records, outcome)
    outcome.records = [records[index] for index in sorted(records)]
    return outcome


@dataclass(frozen=True)
class Told:
    """Whom to tell what is under way, and of each epoch."""

    at_work: Callable[[str], None]
    epoch: Callable[[], None]


def epochs_of(config: Mapping[str, Any]) -> int:
    """Return the epochs that a resolved config's steps name; a step that trains several parts in turn trains so many of each."""
    return sum(step.get("epochs", 0) for step in config["recipe"]["steps"].values())


def _at_once(jobs: int, left: Sequence[Job], console: Console | None) -> int:
    threads = max([job.config["num_threads"] for job in left], default=1)
    most = max(1, num_cores() // threads)
    if jobs > most and console is not None:
        console.print(f"jobs={jobs} is lowered to {most}: {num_cores()} cores, {threads} thread{'s' * (threads > 1)} a run", soft_wrap=True)
    return max(1, min(jobs, most, len(left)))


def _announcement(title: str, jobs: Sequence[Job], left: Sequence[Job], num_stale: int, rerun: Rerun, store: Store, at_once: int) -> str:
    stale = "" if not num_stale else f" ({num_stale} stale, {'done anew' if rerun else 'rerun=stale does them anew'})"
    counts = f"{title}: {len(jobs)} runs, {len(jobs) - len(left)} done{stale}"
    if not left:
        return f"{counts}; nothing to run"
    known = [*store.records(), *paper(left[0].config["paper"]).shipped_records()]
    together = f", {at_once} at a time" if at_once > 1 else ""
    return f"{counts}{together}; {expectation(left, known, at_once)}"


Todo = tuple[int, Ask, Job]


def _here(
    todo: Sequence[Todo], records: dict[int, Record], outcome: Outcome, *, store: Store, rerun: Rerun, keep_going: bool, told: Told
) -> None:
    for index, ask, job in todo:
        told.at_work(f"{ask.row} seed {ask.seed}")
        try:
            records[index] = execute(job, store=store, command=ask.command, on_epoch=lambda *_: told.epoch(), rerun=rerun)
        except FAILURES as error:
            if not keep_going:
                raise
            outcome.failed[job.name] = str(error)


@dataclass
class _Hand:
    """A process that runs one job at a time, and what it is at."""

    process: BaseProcess
    pipe: Connection
    todo: Todo | None = None


class _Crew:
    """Several processes over one list.

    Args:
        store: Where the runs live.
        rerun: As for ``execute``.
        size: Processes.
        told: Who wants to know.
    """

    def __init__(self, store: Store, rerun: Rerun, size: int, told: Told) -> None:
        self.store, self.rerun, self.size, self.told = store, rerun, size, told
        self.context = multiprocessing.get_context("spawn")
        self.hands: list[_Hand] = []
        self.folders: dict[int, list[Path]] = {}  # of each job's steps: naming them reads all their code

    def work(self, todo: Sequence[Todo], records: dict[int, Record], outcome: Outcome) -> None:
        """Do the list; on Ctrl-C, or any error of ours, end the processes first."""
        waiting = list(todo)
        try:
            while waiting or any(hand.todo for hand in self.hands):
                self._give_out(waiting)
                self._listen(records, outcome)
        finally:
            for hand in self.hands:
                hand.process.terminate()
            for hand in self.hands:
                hand.process.join()
                hand.pipe.close()

    def _give_out(self, waiting: list[Todo]) -> None:
        """Give each idle hand the first job that trains nothing which another is at."""
        while waiting:
            idle = next((hand for hand in self.hands if hand.todo is None), None)
            if idle is None and len(self.hands) == self.size:
                return
            busy = {folder for hand in self.hands if hand.todo is not None for folder in self._undone(hand.todo)}
            if (ready := next((one for one in waiting if not busy & set(self._undone(one))), None)) is None:
                return
            hand = idle or self._hired()
            waiting.remove(ready)
            hand.todo = ready
            with suppress(BrokenPipeError):  # it has died: _listen will see
                hand.pipe.send(ready[1])
            self.told.at_work(", ".join(f"{one.todo[1].row} seed {one.todo[1].seed}" for one in self.hands if one.todo))

    def _hired(self) -> _Hand:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.store.root, self.rerun), daemon=True)
        process.start()
        theirs.close()
        self.hands.append(_Hand(process, ours))
        return self.hands[-1]

    def _undone(self, todo: Todo) -> list[Path]:
        index, _, job = todo
        if index not in self.folders:
            self.folders[index] = [self.store.root / ".steps" / name for name in step_folders(job.identity).values()]
        return [folder for folder in self.folders[index] if not (folder / "state.json").exists()]

    def _listen(self, records: dict[int, Record], outcome: Outcome) -> None:
        """Take what the hands say, once; let go of those that have died."""
        ready = wait([hand.pipe for hand in self.hands])
        for hand in [hand for hand in self.hands if hand.pipe in ready]:
            try:
                word, text = hand.pipe.recv()
            except (EOFError, ConnectionResetError):
                hand.process.join()
                self.hands.remove(hand)
                hand.pipe.close()
                if hand.todo is not None:
                    outcome.failed[hand.todo[2].name] = _death(hand.process.exitcode)
                continue
            assert hand.todo is not None
            if word == "epoch":
                self.told.epoch()
            elif word == "warning":
                logging.getLogger(__name__).warning("%s", text)
            else:
                index, _, job = hand.todo
                hand.todo = None
                record = self.store.find(job.name)
                if word == "done" and record is not None:
                    records[index] = record
                else:
                    outcome.failed[job.name] = text


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return (
            f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "") + "; the same command goes on with it"
        )
    return f"its process ended with code {code}; its own words stand above"


class _Passed(logging.Handler):
    """Hands warnings to the process that shows them."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(logging.WARNING)
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(BrokenPipeError):
            self.pipe.send(("warning", record.getMessage()))


def _serve(pipe: Connection, root: Path, rerun: Rerun) -> None:
    """Run what comes through the pipe, until nobody is at its other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the first one ends the others
    logger = logging.getLogger("espalier")
    logger.addHandler(_Passed(pipe))
    logger.propagate = False
    store = Store(root)
    with suppress(EOFError, BrokenPipeError):
        while True:
            ask: Ask = pipe.recv()
            try:
                job = ask.planned(store)
                execute(job, store=store, command=ask.command, on_epoch=lambda *_: pipe.send(("epoch", "")), rerun=rerun)
            except BrokenPipeError:
                raise
            except FAILURES as error:
                pipe.send(("failed", str(error)))
            else:
                pipe.send(("done", ""))
