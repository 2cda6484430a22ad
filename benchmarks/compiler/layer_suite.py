"""Single layers: GFLOP/s of our code at rates 1, 4, 8 and 16, the share of the rate that becomes speed, and the best of other engines.

    python benchmarks/compiler/layer_suite.py                        # 13 layers, about 8 minutes; goes on where it stood
    python benchmarks/compiler/layer_suite.py --only '256-256*' --again

2-D layers are block-punched, 3-D layers KGS, in the groups that this machine's kernels like. The layers are those of the kernel study.
"""

import argparse
from collections.abc import Mapping, Sequence

from suite_layers import AS_COMPILED, LAYERS, LEFT_OUT, PEERS, RATE_ONE, RUNS_A_TURN, contest, machine_state, median_ms
from suite_results import Entry, arguments, cell, facts, measure_all, origin, table

from espalier.constraints import STRUCTURES
from espalier.devices import cpu, num_cores
from espalier.frames.groups import preferred_group

RATES = (4.0, 8.0, 16.0)


def measured(name: str, asked: argparse.Namespace) -> Entry:
    """Return one layer's entry."""
    layer = LAYERS[name]
    structure = STRUCTURES["kgs" if len(layer.kernel) == 3 else "block_punched"].sized(preferred_group(cpu().flags))
    masked = {f"{rate:g}x": (structure, rate) for rate in asked.rates}
    settings = {"num_threads": asked.threads, "peers": asked.engines, "num_runs": asked.runs, "budget_s": asked.budget_s}
    settings["turns"] = asked.turns
    return {**facts(), "structure": structure.label, **contest(layer, masked, **settings)}


def page(entries: Mapping[str, Entry]) -> list[str]:
    """Return the page."""
    rates = list(dict.fromkeys(name for entry in entries.values() for name in entry["ours"] if name not in (RATE_ONE, AS_COMPILED)))
    timed = [RATE_ONE, AS_COMPILED, *rates]
    head = ["layer", "structure", "GFLOP", "best peer", "ms", *timed, *(f"GFLOP/s {name}" for name in (RATE_ONE, *rates))]
    head += [*(f"share {rate}" for rate in rates), *(f"over own dense {rate}" for rate in rates), "fork-join ns", "moved", "others' CPUs"]
    told = [f"- {peer}, {name}: {reason}" for name, entry in entries.items() for peer, reason in entry["reasons"].items()]
    lengths = ", ".join(dict.fromkeys(str(entry["chain"]) for entry in entries.values()))
    threads = ", ".join(dict.fromkeys(str(entry["num_threads"]) for entry in entries.values()))
    return [
        "# Single layers",
        "",
        *origin(entries),
        f"{threads} threads, batch 1, fp32; written by benchmarks/compiler/layer_suite.py.",
        "",
        f"Each network is a chain of {lengths} such layers with ReLU, there and back where channels and filters differ; times are those of",
        "a call over that number. What remains of bringing the input to blocks of channels and the output back is in them, ours and the",
        "peers' alike.",
        "",
        "Median ms, and behind our times how many times as fast as the best peer; the JSON file has the 10th and 90th percentiles and how",
        f"many passes count. Our dense code runs twice: *{RATE_ONE}* is template F at rate 1, *{AS_COMPILED}* what the compiler makes of a",
        "dense layer, its template named behind. Rates and GFLOP/s count what the passes keep, less than was asked where channels lose all",
        "their readers, and products with the border's zeros, which some engines leave out in part, ours among them. *share* is the time",
        "of F at rate 1 over the sparse time, over the counted rate: how much of the rate this kernel turns into speed. *over own dense*",
        "is the speed-up over the faster of our two dense codes. Fork-join is the time to hand work to all threads and wait for them,",
        "before and after; *moved*: the CPUs changed places meanwhile. Others' CPUs: what other processes used.",
        "",
        LEFT_OUT,
        "",
        *table(head, [_row(name, entry, rates) for name, entry in entries.items()]),
        *kernels_told(entries, rates),
        *(["", "Who took no part:", "", *told] if told else []),
    ]


def kernels_told(entries: Mapping[str, Entry], rates: Sequence[str]) -> list[str]:
    """Return the part of the page on kernels by themselves; nothing where none were timed."""
    timed = {name: entry["ours"] for name, entry in entries.items() if "kernels" in entry["ours"][RATE_ONE]}
    if not timed:
        return []
    head = ["layer", "GFLOP/s dense", *(f"{what} {rate}" for what in ("columns", "GFLOP/s", "share") for rate in rates)]
    return [
        "",
        "## Kernels by themselves",
        "",
        f"Template F's kernels within these chains: medians over turns of {RUNS_A_TURN} runs of a build that reads the clock around each,",
        "barrier included. *columns* is how many a block of filters keeps, there and back; *share* the dense time over the sparse one,",
        "over the rate that is counted here: how much of the rate this template turns into speed.",
        "",
        *table(head, [_kernel_row(name, ours, rates) for name, ours in timed.items()]),
    ]


def _kernel_row(name: str, ours: Mapping[str, Entry], rates: Sequence[str]) -> list[str]:
    timed = {code: one["kernels"] for code, one in ours.items() if "kernels" in one}
    speeds = {code: 2e-3 * sum(one["macs"] for one in ones) / sum(one["microseconds"] for one in ones) for code, ones in timed.items()}

    def columns(code: str) -> str:
        kept = [[one["columns"] for one in timed.get(code, [])[way::2]] for way in (0, 1)]
        known = [sum(ones) / len(ones) for ones in kept if ones and None not in ones]
        return " / ".join(dict.fromkeys(f"{mean:.0f}" for mean in known)) or "-"

    return [
        name,
        cell(speeds[RATE_ONE], ".0f"),
        *(columns(rate) for rate in rates),
        *(cell(speeds.get(rate), ".0f") for rate in rates),
        *(cell(speeds[rate] / speeds[RATE_ONE] if rate in speeds else None, ".2f") for rate in rates),
    ]


def _row(name: str, entry: Entry, rates: list[str]) -> list[str]:
    def layer_ms(one: Entry | None) -> float | None:
        ms = median_ms(one)
        return None if ms is None else ms / entry["chain"]

    ours = entry["ours"]
    peer = layer_ms(entry["peers"].get(entry["best_peer"]))
    rate_one, compiled = (layer_ms(ours[dense]) for dense in (RATE_ONE, AS_COMPILED))
    own = min((ms for ms in (rate_one, compiled) if ms is not None), default=None)
    found = {rate: (layer_ms(ours.get(rate)), ours[rate]["rate"] if rate in ours else 1.0) for rate in rates}
    return [
        name,
        entry["structure"],
        cell(entry["gflop"]),
        entry["best_peer"] or "-",
        cell(peer),
        _faster(rate_one, peer),
        f"{_faster(compiled, peer)} {ours[AS_COMPILED]['template'].split()[0]}",
        *(_faster(ms, peer) for ms, _ in found.values()),
        *(cell(None if ms is None else 1e3 * entry["gflop"] / rate / ms, ".0f") for ms, rate in [(rate_one, 1.0), *found.values()]),
        *(cell(None if ms is None or rate_one is None else rate_one / ms / rate, ".2f") for ms, rate in found.values()),
        *(cell(None if ms is None or own is None else own / ms, ".2f") for ms, _ in found.values()),
        *machine_state(entry),
    ]


def _faster(ms: float | None, peer: float | None) -> str:
    return cell(ms) + (f" ({peer / ms:.2f}x)" if ms is not None and peer is not None else "")


def main() -> None:
    """Measure the layers that are asked."""
    parser = arguments(__doc__, "layer_suite")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--threads", type=int, default=min(2, num_cores()))
    parser.add_argument("--engines", nargs="+", default=PEERS, help="Peers.")
    parser.add_argument("--runs", type=int, default=20, help="Rounds of each layer, at least 10.")
    parser.add_argument(
        "--turns", type=int, default=25, help=f"Turns of {RUNS_A_TURN} runs over which kernels are timed by themselves; 0: none."
    )
    parser.add_argument("--budget-s", type=float, default=8.0, help="Seconds of a layer after which no further round begins, nor turn.")
    asked = parser.parse_args()
    measure_all(list(LAYERS), lambda name: measured(name, asked), page, asked)


if __name__ == "__main__":
    main()
