"""``espalier bench``: one network on our engines and on the best of others', with the same threads and precision, on this machine.

Every engine runs the same network, zeros included; the outputs of all are checked against PyTorch before any is timed, and an engine that
cannot take part is listed with the reason.
"""

import difflib
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from espalier import compiler
from espalier.bench_keys import EXAMPLES
from espalier.bench_result import OURS, Bench, Entry
from espalier.compiler.compiling import FALLBACKS
from espalier.compiler.runtime.exporting import SPARSE
from espalier.compiler.runtime.toolchain import compiler as c_compiler
from espalier.devices import check_threads, cpu
from espalier.frames.contending import Contestant, check_effort, contend, explained
from espalier.frames.engines import TOLERANCES, Engine, Native, Ours, Run, Unable, named
from espalier.frames.engines.engine import affinity_kept, stdout_held
from espalier.frames.machine import machine_lock
from espalier.frames.roofline import Roof, placed
from espalier.interface import frozen
from espalier.progress import progress_bar
from espalier.record import Store
from espalier.subjects import Subject, own_subject, random_subject, run_subject
from espalier.words import seed_in, sizes, truth, value_of, whole

PRECISION, CONSTRAINT = "fp32", "block_punched"
EXPLAINED_RUNS = 20  # over which each kernel is timed


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
        example: A batch of one that a network of one's own takes; no other network gets one.
        rate: Multiply-adds of the whole network / those kept, at least 1.
        constraint: Structure of the random masks; None takes block_punched.
        group: Filters and channels of a group; None takes those that this machine's kernels like.
        input_shape: Of one sample; None takes the network's own. A network of one's own has its ``example``.
        num_threads: Threads of every engine, at most the cores of this machine.
        precision: fp32.
        engines: Who takes part; None takes all.
        tune: Search for the fastest code of ours, which must be among ``engines``, as for ``explain`` and ``fallback``.
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
    check_effort(num_runs, budget_s)
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback={fallback} is not known; there is {FALLBACKS[1]}, and none, which refuses what cannot be compiled.")
    chosen = named(engines)
    _check_ours([one.name for one in chosen], tune=tune, explain=explain, fallback=fallback)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(model, nn.Module):
        _refuse_random_masks(constraint=constraint, group=group, rate=rate)
        if input_shape is not None:
            raise ValueError(f"input_shape={tuple(input_shape)}: a network of your own takes what its example shows; leave it out.")
        subject = own_subject(model, example, seed=seed)
    elif example is not None:
        raise ValueError(f"example goes with a network of your own; {model} takes input_shape={tuple(example.shape[1:])}.")
    elif rate is None or Path(model).is_file():
        _refuse_random_masks(constraint=constraint, group=group, rate=rate)
        subject = _trained(model, input_shape, store, seed)
    else:
        structure = CONSTRAINT if constraint is None else constraint
        subject = random_subject(model, rate=rate, constraint=structure, group=group, shape=input_shape, seed=seed)
    sets = frozen(subject.model)
    chosen = [Ours(dense=one.dense, tune=tune, fallback=fallback, frozen=sets) if isinstance(one, Ours) else one for one in chosen]
    ready, absent = _prepared(chosen, subject, num_threads, console)
    native = {engine.name: run for engine, run in ready.items() if engine.name in OURS and isinstance(run, Native)}
    with torch.inference_mode():
        wanted = [subject.model(x).clone() for x in subject.inputs]
    found = contend(
        {engine.name: Contestant(run, TOLERANCES[engine.precision]) for engine, run in ready.items()},
        subject.inputs,
        wanted,
        num_threads=num_threads,
        num_runs=num_runs,
        budget_s=budget_s,
        fork_join=next((run.fork_join_ns for run in native.values()), None),
        console=console,
    )
    took_part = {
        engine: Entry.of(
            engine.name,
            engine.version(),
            engine.precision,
            found.outcomes[engine.name],
            hybrid=native[engine.name].hybrid if engine.name in native else "",
        )
        for engine in ready
    }
    entries = took_part | absent
    with machine_lock():
        roof = roof or _measured_roof(num_threads)
        layers = native[SPARSE].explain(num_runs=EXPLAINED_RUNS) if explain and SPARSE in native else None
    return Bench(
        subject=subject,
        rate=rate,
        num_threads=num_threads,
        precision=precision,
        tuned=any(run.tuned for run in native.values()),
        seed=seed,
        engines=tuple(entries[engine] for engine in chosen),
        fork_join_ns=found.fork_join_ns,
        moved=found.moved,
        others_cpus=found.others_cpus,
        layers=layers,
        roofline=None if roof is None else placed(subject.model, subject.inputs[0], roof),
        device=str(cpu()),
        versions={
            "espalier": version("espalier"),
            "python": platform.python_version(),
            "torch": version("torch"),
            **({"cc": c_compiler().version} if native else {}),
        },
        started=started,
    )


def bench_words(words: Sequence[str], *, chart: Path | None = None, console: Console | None = None) -> Bench:
    """Bench what the words of a command line name: ``model=``, ``constraint=``, ``rate=``, ...; a word without = is a run or a file.

    Args:
        words: The words.
        chart: File that the result will be drawn to, which is checked before anything is timed; None draws none.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: As for ``bench``; a word is unknown, given twice or no number where one is needed; or the chart cannot be written there.
    """
    if chart is not None:
        from espalier.bench_chart import check_chart  # noqa: PLC0415  which loads what draws

        check_chart(chart)
    places = [word for word in words if "=" not in word]
    for key in dict.fromkeys(word.partition("=")[0] for word in words if "=" in word):
        if key not in EXAMPLES:
            near = difflib.get_close_matches(key, EXAMPLES, n=2, cutoff=0.3) or list(EXAMPLES)
            raise ValueError(f"{key}= is no word of bench; nearest: {', '.join(f'{word}=' for word in near)}.")
        values = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
        if len(values) > 1:
            raise ValueError(f"{key}= is given {len(values)} times ({', '.join(values)}); bench takes one value of it at a time.")
        if not values[0]:
            raise ValueError(f"{key}= is empty; write one value, such as {key}={EXAMPLES[key]}, or leave it out.")
    given = {key: value_of(words, key) for key in EXAMPLES}
    if len(places) + (given["model"] is not None) != 1:
        raise ValueError("name one network: model=resnet50, or a run, or a packed checkpoint's file; `espalier bench --help` has more.")
    if given["model"] is not None and given["rate"] is None:
        raise ValueError(f"model={given['model']} gets random masks, which need rate=, such as rate=4; rate=1 prunes nothing.")
    if places:
        _refuse_random_masks(constraint=given["constraint"], group=given["group"], rate=given["rate"])
    budget_s = _number(given["budget_s"], "budget_s")
    if budget_s is not None and not budget_s > 0:
        raise ValueError(f"budget_s={given['budget_s']} leaves no time to measure in; write budget_s=60, or leave it out.")
    return bench(
        places[0] if given["model"] is None else given["model"],
        rate=_number(given["rate"], "rate"),
        constraint=given["constraint"],
        group=sizes(given["group"], "group", "32x4"),
        input_shape=sizes(given["input"], "input", "3x224x224"),
        num_threads=whole(words, "threads", 1),
        precision=PRECISION if given["precision"] is None else given["precision"],
        engines=None if given["engines"] is None else given["engines"].split(","),
        tune=truth(words, "tune"),
        explain=truth(words, "explain"),
        fallback=given["fallback"],
        seed=seed_in(words),
        num_runs=whole(words, "runs", 100),
        budget_s=60.0 if budget_s is None else budget_s,
        console=console,
    )


def _check(num_threads: int, precision: str) -> None:
    check_threads(num_threads, "threads")
    if precision != PRECISION:
        raise ValueError(
            f"precision={precision}: engines are compared at {PRECISION}; what OpenVINO would take by itself is shown beside them as "
            "openvino-default-precision."
        )


def _check_ours(names: Sequence[str], *, tune: bool, explain: bool, fallback: str | None) -> None:
    """Refuse what would do nothing because our engines do not take part."""
    if not set(names) & set(OURS) and (idle := [word for word, given in (("tune", tune), ("fallback", fallback)) if given]):
        raise ValueError(f"{' and '.join(idle)} change our own code alone, and engines={','.join(names)} has none; add {SPARSE}.")
    if explain and SPARSE not in names:
        raise ValueError(f"explain speaks of our sparse code, and engines={','.join(names)} has none; add {SPARSE}.")


def _refuse_random_masks(**given: object) -> None:
    if idle := [word for word, value in given.items() if value is not None]:
        raise ValueError(
            f"{' and '.join(idle)} speak of random masks, which a network that is given or trained does not get; leave them out, or name a "
            "network, model=NAME rate=R."
        )


def _trained(name: str, input_shape: Sequence[int] | None, store: Store | None, seed: int) -> Subject:
    try:
        return run_subject(name, shape=input_shape, store=store, seed=seed)
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
                except Exception as failure:  # noqa: BLE001  whatever an engine raises is shown as its reason
                    status, reason = "failed", explained(failure)
            if reason is not None:
                absent[engine] = Entry(engine.name, engine.version(), engine.precision, status=status, reason=reason)  # type: ignore[arg-type]
            progress.advance(bar)
    return ready, absent


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
