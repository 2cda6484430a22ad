"""The shell: a thin layer over the public Python interface, without torch until a verb needs it."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import espalier
from espalier import printing
from espalier.completion import (
    complete_bench,
    complete_comparison,
    complete_key,
    complete_override,
    complete_packable,
    complete_run,
    complete_table,
)
from espalier.printing import answer, answered_errors, console, errors, readable_errors, stoppable


class Verbs(TyperGroup):
    """The verbs; ``--config-dir`` may stand before a verb or anywhere behind it, and with ``--json`` an error is answered in JSON too."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        with answered_errors(as_json="--json" in args):
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: Any) -> Any:
        with answered_errors(as_json="--json" in ctx.args):
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first: list[str] = []
        rest: list[str] = []
        words = iter(args)
        for word in words:
            if word == "--config-dir":
                first += [word, *[value for value in [next(words, None)] if value is not None]]
            else:
                (first if word.startswith("--config-dir=") else rest).append(word)
        return super().parse_args(ctx, [*first, *rest])


app = typer.Typer(cls=Verbs, no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Scale = Annotated[str | None, typer.Option("--scale", "-s", help="Default: the highest scale that has records.")]
TableName = Annotated[str, typer.Argument(help="PAPER/TABLE, such as progressive-admm/lenet5.", autocompletion=complete_table)]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run as `espalier runs` lists it; its beginning is enough.", autocompletion=complete_run)
]


def main() -> None:
    """Run the command line; errors a user can mend come as one line."""
    with readable_errors():
        app()


@app.callback()
def shared(
    config_dir: Annotated[
        Path | None,
        typer.Option(
            help="Your own folder: configs in constraint/, method/, model/, ..., papers in experiments/, Python in code/. "
            "Any verb takes it; ESPALIER_CONFIG says the same.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Rerun, sweep, compare and measure papers on fitting neural networks to hardware."""
    if config_dir is not None:
        os.environ["ESPALIER_CONFIG"] = str(config_dir.resolve())


@app.command()
def papers(as_json: AsJson = False) -> None:
    """List the papers: their tables, the rows that can be rerun, and how many claims hold.

    \b
    espalier papers
    """
    found = espalier.papers()
    answer(found, lambda: [printing.papers_grid(found)], as_json=as_json)


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="A key, the beginning of keys, a glob, or GROUP=OPTION.", autocompletion=complete_key)],
    as_json: AsJson = False,
) -> None:
    """Say what a key of the config means: unit, range, default, source, and which papers change it.

    \b
    espalier explain method.tau
    espalier explain constraint      # its options, and the keys below it
    espalier explain method=admm     # the keys of one option
    espalier explain 'recipe.steps.*.freeze' --json
    """
    found = espalier.explain(key)
    answer(found, lambda: printing.knob_lines(key, found), as_json=as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    name: TableName,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides: row=, scale=, seed=, any key.", autocompletion=complete_override)
    ] = None,
    states: Annotated[Path | None, typer.Option(help="Write the names of the runs and that they are done to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the rows of a table that have no record yet.

    \b
    # every missing row at smoke, then on real data as well
    espalier run progressive-admm/lenet5
    espalier run progressive-admm/lenet5 scale=smoke,desk

    \b
    # one row, with any further override; several, with lists and globs
    espalier run progressive-admm/lenet5 row=admm-70x seed=1
    espalier run progressive-admm/lenet5 'row=glob(*-70x)' seed=0,1

    \b
    # a sweep over a setting, one run a value
    espalier run progressive-admm/lenet5 row=admm-70x \\
        method.rho.start=1e-4,1e-2 -m

    \b
    # two runs at a time, each in a process of its own
    espalier run progressive-admm/lenet5 seed=0,1,2 jobs=2

    \b
    # also those whose code has changed since
    espalier run progressive-admm/lenet5 rerun=stale

    \b
    # your own network and photographs: a folder of class folders
    espalier run own/model model=timm model.name=resnet18.a1_in1k \\
        model.pretrained=true data=imagefolder data.root=FOLDER rate=4
    espalier run own/model model=python model.target=my_code:net \\
        data=python data.target=my_code:data constraint=channel

    \b
    # print the config; print layers, sets, rates and epochs
    espalier run progressive-admm/lenet5 row=dense --cfg job
    espalier run progressive-admm/lenet5 row=dense dry_run=true
    """
    with stoppable():
        records = espalier.run_overrides(name, overrides or [], states=states, console=errors)
    answer(records, list, as_json=as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def compare(
    words: Annotated[
        list[str],
        typer.Argument(help="model=, data=, method=, constraint=, rate=, any key=value.", autocompletion=complete_comparison),
    ],
    to: Annotated[str | None, typer.Option(help="Print the table as csv, md or latex.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods, constraints and rates on one network and one data set, for the same epochs; the same command again goes on.

    \b
    # the embedded digits, in seconds
    espalier compare model=lenet5 data=digits method=admm,mest_em \\
        constraint=unstructured rate=4,8

    \b
    # three seeds on real data, two runs at a time
    espalier compare model=resnet8_cifar data=cifar10_5k_16 \\
        method=admm,magnitude,mest_ems constraint=filter,block_punched \\
        rate=4,8 scale=desk seed=0,1,2 jobs=2 name=mine

    \b
    # each with the best of 8 trials by validation accuracy, longer
    espalier compare model=lenet5 data=digits method=admm,magnitude \\
        constraint=filter rate=2 tune=8 epochs=20

    \b
    # what it would train, reuse and refuse
    espalier compare model=lenet5 data=digits method=admm,mest_em \\
        constraint=unstructured rate=4,8 dry_run=true

    \b
    # look on
    espalier table compare/mine
    espalier plot compare/mine --to mine.pdf
    """
    if "dry_run=true" in (word.lower() for word in words):
        if to is not None:
            raise ValueError("dry_run=true makes no table; leave --to out.")
        outline = espalier.outline_words(words, console=errors)
        answer(outline, lambda: printing.outline_lines(outline), as_json=as_json)
        return
    with stoppable():
        found = espalier.compare_words(words, console=errors)
    if to is not None and not as_json:
        typer.echo(espalier.export(found.name, to, scale=found.scale).rstrip())
    else:
        answer(found, lambda: printing.standings_grid(found), as_json=as_json)
    if found.failed:
        printing.tell_error(printing.failures(found.failed))
        raise typer.Exit(2)  # no error: what could be compared has been answered, which runs failed included


@app.command()
def table(
    name: TableName,
    scale: Scale = None,
    to: Annotated[str | None, typer.Option(help="csv, md or latex; md and latex take the form the paper prints.")] = None,
    layout: Annotated[bool, typer.Option("--layout", help="Show the form the paper prints, one line a row of it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a table: published | shipped | yours.

    \b
    espalier table progressive-admm/lenet5 --scale desk --to md
    espalier table progressive-admm/admm_vs_heuristics --layout
    """
    if layout and (as_json or to in ("csv", "json")):
        raise ValueError("csv and json hold one line a cell, whatever the paper's form; leave --layout out, or take --to md or latex.")
    if to is not None and not as_json:
        typer.echo(espalier.export(name, to, scale=scale).rstrip())
        return
    if layout:
        answer(None, lambda: printing.layout_grid(name, espalier.layout(name, scale=scale)), as_json=False)
        return
    found = espalier.cells(name, scale=scale)
    answer(found, lambda: printing.cells_grid(name, found), as_json=as_json)


@app.command()
def claims(paper: Annotated[str, typer.Argument(help="A paper, such as progressive-admm.")], as_json: AsJson = False) -> None:
    """Judge each claim of a paper: holds, fails, inconclusive or not run, with the figures behind it.

    \b
    espalier claims progressive-admm
    """
    found = espalier.claims(paper)
    answer(found, lambda: printing.claim_lines(found), as_json=as_json)


@app.command()
def runs(as_json: AsJson = False) -> None:
    """List finished runs: what variants changed, rate and accuracy, and whose code has changed since (stale).

    \b
    espalier runs
    """
    found = espalier.runs()
    answer(found, lambda: [printing.runs_grid(found) if found else printing.no_runs()], as_json=as_json)


@app.command()
def show(run_name: Run, as_json: AsJson = False) -> None:
    """Show one run's record; --json has its config and series as well.

    \b
    espalier show progressive-admm/lenet5/dense/smoke/seed0
    """
    found = espalier.find(run_name)
    answer(found, lambda: [printing.record_grid(found)], as_json=as_json)


@app.command()
def diff(first: Run, second: Run, as_json: AsJson = False) -> None:
    """Show in which settings and figures two runs differ.

    \b
    espalier diff progressive-admm/lenet5/dense/smoke/seed{0,1}
    """
    found = espalier.diff(first, second)
    answer(found, lambda: [printing.differences_grid(found)], as_json=as_json)


@app.command()
def measure(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, beginnings of names, or globs.", autocompletion=complete_run)],
    frame: Annotated[str, typer.Option(help="A file of conf/frame.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads PyTorch may use; default: the frame's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a pass; default: the frame's.")] = None,
    taken: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="A record that an exported network printed: file it, time nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time finished runs again, here and now, from their packed checkpoints; each gets a measurement of its own.

    \b
    espalier measure 'progressive-admm/lenet5/*/desk/*' --threads 2

    \b
    # what the program of `espalier export` printed, on any machine
    espalier measure --import record.json progressive-admm/lenet5/dense
    """
    if taken is not None:
        if len(names) != 1 or threads is not None or batch_size is not None or frame != "cpu":
            raise ValueError("--import files one record beside one run, and times nothing: name that run, and no other option.")
        found = espalier.import_measurement(taken, names[0])
        answer(found, lambda: [printing.measurements_grid(found)], as_json=as_json)
        return
    found = espalier.measure_runs(names, frame=frame, num_threads=threads, batch_size=batch_size, console=errors)
    answer(found, lambda: [printing.measurements_grid(found)], as_json=as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD...",
            help="model=, rate=, constraint=, group=, threads=, engines=, tune=, explain=, fallback=, runs=, budget_s=, seed=, precision=, "
            "input=; a run; a file.",
            autocompletion=complete_bench,
        ),
    ],
    to: Annotated[Path | None, typer.Option(help="Draw the times to this file: .pdf, .svg or .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time a pruned network on our compiled code and on the best of other engines, by turns, outputs checked first.

    \b
    # random weights and masks: no checkpoint needed. rate counts the
    # multiply-adds of the whole network
    espalier bench model=resnet50 constraint=block_punched rate=6 \\
        threads=2 precision=fp32 --json
    espalier bench model=c3d constraint=kgs rate=3.57 threads=2

    \b
    # a finished run; a packed checkpoint
    espalier bench own/model/dense/desk/seed0 threads=2
    espalier bench pruned.safetensors input=3x32x32

    \b
    # some engines, 16x4 groups, 200 passes, within two minutes
    espalier bench model=vgg16_cifar rate=8 group=16x4 threads=2 \\
        engines=espalier-sparse,onnxruntime runs=200 budget_s=120

    \b
    # search for the fastest kernels of ours first, and say what each one
    # reaches, and why not more
    espalier bench model=resnet50 rate=6 threads=2 tune=true explain=true
    """
    with stoppable():
        found = espalier.bench_words(words, chart=to, console=errors)
    answer(found, lambda: printing.bench_lines(found), as_json=as_json)
    if to is not None and found.timed:
        found.plot(to)
    if found.failure is not None:
        printing.tell_error(found.failure)
        raise typer.Exit(1)


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A run, a packed file, or a folder of emitted C.", autocompletion=complete_run)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; new, or empty.")],
    to: Annotated[Literal["c"], typer.Option(help="c: sources, weights, Makefile and a program that times the network.")] = "c",
    shape: Annotated[str | None, typer.Option("--input", help="Shape of one sample, for a packed file: 3x32x32.")] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Take the fastest kernels, found earlier or now, in two minutes.")] = False,
    threads: Annotated[int | None, typer.Option(help="Threads that --tune searches for; default: 1.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a network as a folder of C that builds with make, runs without Python and prints a measurement's record.

    \b
    espalier export own/model/dense/desk/seed0 --out standalone/
    espalier export pruned.safetensors --input 3x32x32 --out standalone/
    cd standalone && make && ./network 2 > record.json

    \b
    # with the kernels that are the fastest on two threads of this machine
    espalier export own/model/dense/desk/seed0 --tune --threads 2 \\
        --out standalone/
    """
    folder = {"c": espalier.export_c}[to](source, out, shape=shape, tune=tune, num_threads=threads, console=errors)
    answer({"path": folder}, lambda: [f"build it: make -C {folder}, then {folder}/network THREADS"], as_json=as_json)


@app.command()
def keep(run_name: Run, as_json: AsJson = False) -> None:
    """Copy a run's record and measurements to the paper's results/: a shipped reference.

    \b
    espalier keep progressive-admm/lenet5/dense/desk/seed0
    """
    folder = espalier.keep(run_name)
    answer({"path": folder}, lambda: [f"kept as {folder}"], as_json=as_json)


@app.command()
def pack(
    name: Annotated[
        str, typer.Argument(metavar="RUN|TABLE", help="A run or PAPER/TABLE; a beginning or glob.", autocompletion=complete_packable)
    ],
    to: Annotated[Path, typer.Option(help="File to write: .tar.gz.")],
    scale: Annotated[str | None, typer.Option("--scale", "-s", help="Default: all scales.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one archive of runs: records, checkpoints with model cards, configs, commands, environment.

    \b
    espalier pack progressive-admm/lenet5 --to lenet5.tar.gz --scale desk
    espalier pack 'mest/cifar/ems-*/desk' --to ems.tar.gz
    """
    found = espalier.pack(name, to, scale=scale)
    answer(found, lambda: printing.packed_lines(found), as_json=as_json)


@app.command()
def unpack(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What `espalier pack` wrote.")],
    check: Annotated[bool, typer.Option("--check", help="Say what that would add or refuse; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Merge an archive into the store, all of it or nothing, after verifying every digest.

    \b
    espalier unpack lenet5.tar.gz --check
    espalier unpack lenet5.tar.gz
    """
    found = espalier.unpack(path, check=check)
    answer(found, lambda: printing.unpacked_lines(found, checked_only=check), as_json=as_json)


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    steps_only: Annotated[bool, typer.Option(help="Delete only the kept states of steps, not runs.")] = True,
    as_json: AsJson = False,
) -> None:
    """Delete the kept states of steps (and with --no-steps-only all runs), after saying how many bytes that frees.

    \b
    espalier clean          # what there is; asks before it deletes
    espalier clean --json   # what there is; deletes nothing without --yes
    espalier clean --yes
    """
    found = espalier.clean(steps_only=steps_only, dry_run=True)
    if not as_json:
        console.print(f"{len(found.folders)} folders, {found.num_bytes:,} bytes", highlight=False)
    if found.folders and (yes or (not as_json and typer.confirm("Delete them?"))):
        found = espalier.clean(steps_only=steps_only)
    answer(found, list, as_json=as_json)


@app.command()
def report(out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("report"), as_json: AsJson = False) -> None:
    """Write the site: all papers (published, shipped, yours, claims, curves), comparisons and runs. It opens from disk.

    \b
    espalier report --out report
    """
    path = espalier.report(out, console=errors)
    answer({"path": path}, lambda: [f"open {path}"], as_json=as_json)


@app.command()
def publish(name: TableName, scale: Scale = None, as_json: AsJson = False) -> None:
    """Log a table and the report to W&B as artifacts; offline unless you have logged in, like every run.

    \b
    espalier publish progressive-admm/lenet5
    """
    found = espalier.publish(name, scale=scale)
    answer(found, lambda: [found.url or f"kept offline; upload it with: wandb sync {found.folder}"], as_json=as_json)


@app.command()
def plot(
    name: TableName,
    to: Annotated[Path, typer.Option(help="File: .pdf, .svg, .png or .csv.")],
    scale: Scale = None,
    x: Annotated[str, typer.Option(help="Column: rate, macs_rate, stored_bytes, latency_ms_p50, ...")] = "rate",
    y: Annotated[str, typer.Option(help="Column: top1_pct, loss_pct, ...")] = "top1_pct",
    width: Annotated[float | None, typer.Option(help="Inches; default: a paper's column, 3.33.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a table: accuracy against rate, bytes or latency, with spreads and the Pareto front.

    \b
    espalier plot progressive-admm/lenet5 --to lenet5.pdf
    espalier plot mest/cifar --to mest.svg --x stored_bytes --width 7
    espalier plot progressive-admm/lenet5 --to points.csv
    """
    path = espalier.plot(name, to, scale=scale, x=x, y=y, width_in=width)
    answer({"path": path}, lambda: [f"wrote {path}"], as_json=as_json)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A data set: mnist, cifar10 or cifar100.")],
    root: Annotated[Path | None, typer.Option(help="Folder to put it in; default ESPALIER_DATA, else ./data.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a data set from its official source and check it.

    \b
    espalier fetch mnist
    """
    folder = espalier.fetch(name, root)
    answer({"path": folder}, lambda: [f"complete: {folder}"], as_json=as_json)


if __name__ == "__main__":
    main()
