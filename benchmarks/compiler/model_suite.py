"""Whole networks: our sparse and dense code beside the best of other engines, at the rates of the targets.

    python benchmarks/compiler/model_suite.py                        # 6 networks, under 10 minutes; goes on where it stood
    python benchmarks/compiler/model_suite.py --only 'resnet50*' --again

Random weights and masks by seed. The targets come from two kinds of machine, a Zen4 whose cores do one 512-bit multiply-add a cycle and a
Xeon whose cores do two; those of the kind at hand count, by its AMX flag or, where that is hidden, by the measured peak of a core. A CPU
without AVX-512 that reaches the Zen4's peak with two 256-bit multiply-adds a cycle is judged as one; ``--to`` keeps its page apart.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from suite_results import Entry, arguments, cell, facts, measure_all, origin, table

from espalier import bench
from espalier.compiler import measured_roof
from espalier.devices import cpu_flags, num_cores

XEON_GFLOPS = 140  # of a core: between one 512-bit multiply-add a cycle at 3.6 GHz (116) and two at 2.7 GHz (172)


@dataclass(frozen=True)
class Model:
    """A network at a rate, and what is aimed at: times as fast as the best dense peer.

    Args:
        name: As ``espalier bench`` knows it.
        rate: Of the multiply-adds of the whole network.
        constraint: Structure of its masks.
        xeon: What must be reached, and what is aimed at, on the Xeon.
        zen4: The same on the Zen4.
        dense: What our dense code must reach of the best dense peer, on the Xeon and on the Zen4.
    """

    name: str
    rate: float
    constraint: str
    xeon: tuple[float, float]
    zen4: tuple[float, float]
    dense: tuple[float, float]


MODELS = {
    f"{model.name}-{model.rate:g}x": model
    for model in (
        Model("vgg16_cifar", 8.0, "block_punched", (6.5, 9.5), (9.0, 14.0), (0.9, 0.9)),
        Model("resnet50", 6.0, "block_punched", (4.0, 5.5), (4.3, 5.3), (0.9, 0.9)),
        Model("mobilenetv2", 2.0, "block_punched", (1.4, 2.0), (1.6, 2.1), (0.9, 0.9)),
        Model("mobilenetv2", 4.0, "block_punched", (1.8, 2.8), (2.1, 3.0), (0.9, 0.9)),
        Model("c3d", 3.57, "kgs", (2.3, 3.1), (2.1, 2.8), (0.8, 0.7)),
        Model("r2plus1d_18", 3.2, "kgs", (2.3, 3.1), (2.4, 3.1), (0.9, 0.9)),
    )
}


def measured(name: str, asked: argparse.Namespace) -> Entry:
    """Return one network's entry: what ``espalier bench`` gives, and the targets."""
    model = MODELS[name]
    found = bench(
        model.name,
        rate=model.rate,
        constraint=model.constraint,
        num_threads=asked.threads,
        engines=asked.engines,
        num_runs=asked.runs,
        budget_s=asked.budget_s,
        console=Console(stderr=True),
    )
    entry = {key: value for key, value in found.as_json().items() if key != "roofline"}
    core_gflops = measured_roof(asked.threads)[0] / asked.threads  # kept from the bench
    return {**entry, **facts(), "amx": "amx_tile" in cpu_flags(), "core_gflops": core_gflops}


def targets(name: str, entry: Entry) -> tuple[str, float, float, float]:
    """Return the kind of machine an entry was measured on; what must be reached there, what is aimed at, and what dense code must reach."""
    model, xeon = MODELS[name], entry["amx"] or entry["core_gflops"] > XEON_GFLOPS
    return ("Xeon", *model.xeon, model.dense[0]) if xeon else ("Zen4", *model.zen4, model.dense[1])


def page(entries: Mapping[str, Entry]) -> list[str]:
    """Return the page."""
    head = ("network", "group", "best dense peer", "ms", "ours dense", "of the peer", "must", "ours sparse", "over the peer", "must", "aim")
    told = dict.fromkeys(
        f"- {one['engine']}, {name}: {one['status']}, {one['reason']}"
        for name, entry in entries.items()
        for one in entry["engines"]
        if one["reason"]
    )
    threads = ", ".join(dict.fromkeys(str(entry["num_threads"]) for entry in entries.values()))
    return [
        "# Whole networks",
        "",
        *origin(entries),
        f"{threads} threads, batch 1, fp32, random weights and masks; written by benchmarks/compiler/model_suite.py.",
        "",
        "Median ms of engines that took turns, each checked against PyTorch first. *must* and *aim*: targets, times as fast as the best",
        "dense peer, of the kind of machine in the last column. The share is our dense time over our sparse time, over the counted rate of",
        "multiply-adds. CPUs that changed places during a network are marked *moved*; others: CPUs that other processes used meanwhile.",
        "",
        *table([*head, "MAC rate", "share", "fork-join ns", "others", "targets"], [_row(name, entry) for name, entry in entries.items()]),
        "",
        *table(["network", *_engines(entries)], [_times(name, entry, _engines(entries)) for name, entry in entries.items()]),
        *(["", "Remarks:", "", *told] if told else []),
    ]


def _row(name: str, entry: Entry) -> list[str]:
    times = {one["engine"]: one["latency_ms_p50"] for one in entry["engines"]}
    peer, dense, sparse = (times.get(engine) for engine in (entry["best_dense_peer"], "espalier-dense", "espalier-sparse"))
    kind, must, aim, must_dense = targets(name, entry)
    ratio, moved = entry["ratio_to_best_dense_peer"], " moved" if entry["moved"] else ""
    return [
        name,
        entry["group"] or "-",
        entry["best_dense_peer"] or "-",
        cell(peer),
        cell(dense),
        _against(None if peer is None or dense is None else peer / dense, must_dense),
        f"{must_dense:g}x",
        cell(sparse),
        _against(ratio, must),
        f"{must:g}x",
        f"{aim:g}x",
        cell(entry["rate_macs"], ".2f"),
        cell(entry["realised_share"], ".2f"),
        "-" if entry["fork_join_ns"] is None else f"{entry['fork_join_ns'][0]:.0f} / {entry['fork_join_ns'][1]:.0f}{moved}",
        cell(entry["others_cpus"], ".2f"),
        f"{kind} ({entry['core_gflops']:.0f} GFLOP/s a core)",
    ]


def _against(ratio: float | None, must: float) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x {'reached' if ratio >= must else 'missed'}"


def _engines(entries: Mapping[str, Entry]) -> list[str]:
    return list(dict.fromkeys(one["engine"] for entry in entries.values() for one in entry["engines"]))


def _times(name: str, entry: Entry, engines: list[str]) -> list[str]:
    found = {one["engine"]: one for one in entry["engines"]}
    return [name, *(_time(found.get(engine)) for engine in engines)]


def _time(one: Entry | None) -> str:
    if one is None or one["latency_ms_p50"] is None:
        return "-" if one is None else str(one["status"])
    return f"{one['latency_ms_p50']:.3g} ({one['latency_ms_p10']:.3g} to {one['latency_ms_p90']:.3g})"


def main() -> None:
    """Measure the networks that are asked."""
    parser = arguments(__doc__, "model_suite")
    parser.add_argument("--threads", type=int, default=min(2, num_cores()))
    parser.add_argument("--engines", nargs="+", help="Who takes part; all by default.")
    parser.add_argument("--runs", type=int, default=60, help="Rounds of each network, at least 10.")
    parser.add_argument("--budget-s", type=float, default=30.0, help="Seconds of a network after which no further round begins.")
    asked = parser.parse_args()
    measure_all(list(MODELS), lambda name: measured(name, asked), page, asked)


if __name__ == "__main__":
    main()
