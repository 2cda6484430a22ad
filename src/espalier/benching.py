"""``espalier bench``: one network on our engines and on the best of others', with the same threads and precision, on this machine.

Every engine runs the same network, zeros included; the outputs of all are checked against PyTorch before any is timed, and an engine that
cannot take part is listed with the reason.
"""

import difflib
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from rich.console import Console
from torch import Tensor, nn

from espalier import compiler
from espalier.bench_result import OURS, SPARSE, Bench, Entry
from espalier.compiler import Explanation
from espalier.compiler.compiling import FALLBACKS
from espalier.devices import cpu, num_cores
from espalier.frames.contending import Contestant, contend, explained
from espalier.frames.engines import TOLERANCES, Engine, Ours, Run, Unable, named
from espalier.frames.engines.engine import affinity_kept, stdout_held
from espalier.frames.machine import machine_lock
from espalier.frames.roofline import Roof, placed
from espalier.progress import progress_bar
from espalier.record import Store
from espalier.subjects import Subject, own_subject, random_subject, run_subject
from espalier.words import sizes, truth, value_of, whole

PRECISION, CONSTRAINT = "fp32", "block_punched"
EXPLAINED_RUNS = 20  # over which each kernel is timed
WORDS = (
    *("model", "constraint", "rate", "group", "input", "threads", "precision"),
    *("engines", "tune", "explain", "fallback", "seed", "runs", "budget_s"),
)


def bench(
    model: str | nn.Module,
    *,
    example: Tensor | None = None,
    rate: float | None = None,
    constraint: str | None = None,
    group: Sequence[int] | None = None,
    input_shape: Sequence[int] | None = None,
    num_threads: int = 1,
    precision: str = PRECISION,
    engines: Sequence[str] | None = None,
    tune: bool = False,
    explain: bool = False,
    fallback: str | None = None,
    seed: int = 0,
    num_runs: int = 100,
    budget_s: float = 60.0,
    roof: Roof | None = None,
    store: Store | None = None,
    console: Console | None = None,
) -> Bench:
    """Time one network on our engines and others', by turns.

    Args:
        model: With a ``rate``, a network's name: ``vgg16_cifar``, ``resnet50``, ``mobilenetv2``, ``c3d``, ``r2plus1d_18``, any of timm; it
            gets seeded random weights and masks. Without, a finished run or a packed checkpoint, or a network of one's own.
        example: A batch of one that a network of one's own takes.
        rate: Multiply-adds of the whole network / those kept, at least 1.
        constraint: Structure of the random masks; None takes block_punched.
        group: Filters and channels of a group; None takes those that this machine's kernels like.
        input_shape: Of one sample; None takes the network's own.
        num_threads: Threads of every engine, at most the cores of this machine.
        precision: fp32.
        engines: Who takes part; None takes all.
        tune: Search for the fastest code of ours.
        explain: Also time every kernel of our sparse code, and say what holds it back.
        fallback: ``torch`` leaves operators that our compiler lacks to PyTorch; our lines are then marked as a hybrid. None refuses these.
        seed: Of random weights, masks and inputs.
        num_runs: Passes of each engine, at least 10.
        budget_s: Seconds after which no further round of passes begins, once there have been ten.
        roof: What this machine was measured to reach; None asks the compiler.
        store: Where runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: A name is unknown, a rate out of reach, threads exceed the cores, or arguments do not go together.
    """
    _check(num_threads, precision)
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback={fallback} is not known; there is {FALLBACKS[1]}, and none, which refuses what cannot be compiled.")
    chosen = [Ours(dense=one.dense, tune=tune, fallback=fallback) if isinstance(one, Ours) else one for one in named(engines)]
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(model, nn.Module) or rate is None:
        if given := [word for word, value in (("constraint", constraint), ("group", group), ("rate", rate)) if value is not None]:
            raise ValueError(f"{' and '.join(given)} {_ONLY_RANDOM}")
        subject = own_subject(model, example) if isinstance(model, nn.Module) else _trained(model, input_shape, store)
    else:
        subject = random_subject(model, rate=rate, constraint=constraint or CONSTRAINT, group=group, shape=input_shape, seed=seed)
    ready, absent = _prepared(chosen, subject, num_threads, console)
    with torch.inference_mode():
        wanted = [subject.model(x).clone() for x in subject.inputs]
    found = contend(
        {engine.name: Contestant(run, TOLERANCES[engine.precision]) for engine, run in ready.items()},
        subject.inputs,
        wanted,
        num_threads=num_threads,
        num_runs=num_runs,
        budget_s=budget_s,
        fork_join=_fork_join(ready),
        console=console,
    )
    took_part = {
        engine: Entry.of(engine.name, engine.version(), engine.precision, found.outcomes[engine.name], hybrid=getattr(run, "hybrid", ""))
        for engine, run in ready.items()
    }
    entries = took_part | absent
    with machine_lock():
        roof = roof or _measured_roof(num_threads)
        layers = _explained(ready) if explain else None
    return Bench(
        subject=subject,
        rate=rate,
        num_threads=num_threads,
        precision=precision,
        tuned=any(getattr(run, "tuned", False) for engine, run in ready.items() if engine.name in OURS),
        seed=seed,
        engines=tuple(entries[engine] for engine in chosen),
        fork_join_ns=found.fork_join_ns,
        moved=found.moved,
        others_cpus=found.others_cpus,
        layers=layers,
        roofline=None if roof is None else placed(subject.model, subject.inputs[0], roof),
        device=str(cpu()),
        versions={"espalier": version("espalier"), "python": platform.python_version(), "torch": version("torch")},
        started=started,
    )


_ONLY_RANDOM = "speak of random masks, which a network that is given or trained does not get; leave them out, or give a name and a rate."


def bench_words(words: Sequence[str], *, console: Console | None = None) -> Bench:
    """Bench what the words of a command line name: ``model=``, ``constraint=``, ``rate=``, ...; a word without = is a run or a file.

    Raises:
        ValueError: As for ``bench``, or a word is unknown, given twice or no number where one is needed.
    """
    places = [word for word in words if "=" not in word]
    for key in dict.fromkeys(word.partition("=")[0] for word in words if "=" in word):
        if key not in WORDS:
            near = difflib.get_close_matches(key, WORDS, n=2, cutoff=0.3) or list(WORDS)
            raise ValueError(f"{key}= is no word of bench; nearest: {', '.join(f'{word}=' for word in near)}.")
    given = {key: value_of(words, key) for key in WORDS}
    if len(places) + (given["model"] is not None) != 1:
        raise ValueError("name one network: model=resnet50, or a run, or a packed checkpoint's file; `espalier bench --help` has more.")
    if given["model"] is not None and given["rate"] is None:
        raise ValueError(f"model={given['model']} gets random masks, which need rate=, such as rate=4; rate=1 prunes nothing.")
    return bench(
        given["model"] or places[0],
        rate=_number(given["rate"], "rate"),
        constraint=given["constraint"],
        group=sizes(given["group"], "group", "32x4"),
        input_shape=sizes(given["input"], "input", "3x224x224"),
        num_threads=whole(words, "threads", 1),
        precision=given["precision"] or PRECISION,
        engines=None if given["engines"] is None else given["engines"].split(","),
        tune=truth(words, "tune"),
        explain=truth(words, "explain"),
        fallback=given["fallback"],
        seed=whole(words, "seed", 0),
        num_runs=whole(words, "runs", 100),
        budget_s=_number(given["budget_s"], "budget_s") or 60.0,
        console=console,
    )


def _check(num_threads: int, precision: str) -> None:
    if not 1 <= num_threads <= num_cores():
        raise ValueError(f"threads={num_threads}: this process may use {num_cores()} cores; give 1 to {num_cores()}.")
    if precision != PRECISION:
        raise ValueError(
            f"precision={precision}: engines are compared at {PRECISION}; what OpenVINO would take by itself is shown beside them as "
            "openvino-default-precision."
        )


def _trained(name: str, input_shape: Sequence[int] | None, store: Store | None) -> Subject:
    try:
        return run_subject(name, shape=input_shape, store=store)
    except ValueError as error:
        raise ValueError(f"{error} A network without a checkpoint is model=NAME rate=R.") from error


def _prepared(
    chosen: Sequence[Engine], subject: Subject, num_threads: int, console: Console | None
) -> tuple[dict[Engine, Run], dict[Engine, Entry]]:
    """Return the engines that compiled the network, and the lines of those that did not."""
    ready: dict[Engine, Run] = {}
    absent: dict[Engine, Entry] = {}
    with progress_bar(console, "engines", transient=True) as progress:
        bar = progress.add_task("", total=len(chosen))
        for engine in chosen:
            progress.update(bar, description=f"compiling with {engine.name}")
            status, reason = "unavailable", engine.missing()
            if reason is None:
                try:
                    with affinity_kept(), stdout_held():
                        ready[engine] = engine.prepare(subject.model, subject.inputs[0], num_threads=num_threads)
                except Unable as unable:
                    reason = str(unable)
                except Exception as failure:  # noqa: BLE001  whatever a peer raises is shown as its reason
                    status, reason = "failed", explained(failure)
            if reason is not None:
                absent[engine] = Entry(engine.name, engine.version(), engine.precision, status=status, reason=reason)  # type: ignore[arg-type]
            progress.advance(bar)
    return ready, absent


def _fork_join(ready: Mapping[Engine, Run]) -> Callable[[], float] | None:
    """Return what measures the fork-join time of our code's threads, where our code took part and can."""
    ours = (run for engine, run in ready.items() if engine.name in OURS)
    return next((run.fork_join_ns for run in ours if callable(getattr(run, "fork_join_ns", None))), None)  # type: ignore[attr-defined]


def _explained(ready: Mapping[Engine, Run]) -> Explanation | None:
    """Return what our sparse code says of its kernels; None where it took no part."""
    own = (run for engine, run in ready.items() if engine.name == SPARSE and callable(getattr(run, "explain", None)))
    return next((run.explain(num_runs=EXPLAINED_RUNS) for run in own), None)  # type: ignore[attr-defined]


def _measured_roof(num_threads: int) -> Roof | None:
    """Return what the compiler's probes measure of this machine; None where no C compiler builds them, which our engines' lines say."""
    try:
        return Roof(*compiler.measured_roof(num_threads))
    except ValueError:
        return None


def _number(text: str | None, key: str) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise ValueError(f"{key}={text} is no number; write {key}=4.") from error
