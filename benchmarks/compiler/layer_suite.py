"""Single layers: GFLOP/s of our code at rates 1, 4, 8 and 16, the share of the rate that becomes speed, and the best of other engines.

    python benchmarks/compiler/layer_suite.py                        # 13 layers, under 8 minutes; goes on where it stood
    python benchmarks/compiler/layer_suite.py --only '256-256*' --again

2-D layers are block-punched, 3-D layers KGS, in the groups that this machine's kernels like. The layers are those of the kernel study.
"""

import argparse
from collections.abc import Mapping

from suite_layers import LAYERS, PEERS, contest
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
    return {**facts(), "structure": structure.label, **contest(layer, masked, **settings)}


def page(entries: Mapping[str, Entry]) -> list[str]:
    """Return the page."""
    rates = list(dict.fromkeys(name for entry in entries.values() for name in entry["ours"] if name != "dense"))
    head = ("layer", "structure", "GFLOP", "best peer", "ms", "ours dense", *rates, "GFLOP/s dense", *rates, *(f"share {r}" for r in rates))
    told = dict.fromkeys(f"- {peer}: {reason}" for entry in entries.values() for peer, reason in entry["reasons"].items())
    threads = ", ".join(dict.fromkeys(str(entry["num_threads"]) for entry in entries.values()))
    return [
        "# Single layers",
        "",
        *origin(entries),
        f"{threads} threads, batch 1, fp32; written by benchmarks/compiler/layer_suite.py.",
        "",
        "Median ms, and behind our times how many times as fast as the best peer. GFLOP/s count what is kept; the share is our dense time",
        "over our sparse time, over the counted rate. Fork-join is the time to hand work to all threads and wait for them; a layer whose",
        "CPUs changed places meanwhile is marked *moved*.",
        "",
        *table([*head, "fork-join ns"], [_row(name, entry, rates) for name, entry in entries.items()]),
        *(["", "Who took no part:", "", *told] if told else []),
    ]


def _row(name: str, entry: Entry, rates: list[str]) -> list[str]:
    peer, ours = entry["peers_ms"].get(entry["best_peer"]), entry["ours"]
    dense = ours["dense"]["ms"]
    shown = ["dense", *rates]
    found = {rate: ours.get(rate, {"ms": None, "rate": 1.0}) for rate in shown}
    return [
        name,
        entry["structure"],
        cell(entry["gflop"]),
        entry["best_peer"] or "-",
        cell(peer),
        *(_faster(one["ms"], peer) for one in found.values()),
        *(cell(None if one["ms"] is None else 1e3 * entry["gflop"] / one["rate"] / one["ms"], ".0f") for one in found.values()),
        *(cell(None if one["ms"] is None or dense is None else dense / one["ms"] / one["rate"], ".2f") for one in list(found.values())[1:]),
        f"{entry['fork_join_ns'][0]:.0f} / {entry['fork_join_ns'][1]:.0f}{' moved' if entry['moved'] else ''}",
    ]


def _faster(ms: float | None, peer: float | None) -> str:
    return cell(ms) + (f" ({peer / ms:.2f}x)" if ms is not None and peer is not None else "")


def main() -> None:
    """Measure the layers that are asked."""
    parser = arguments(__doc__, "layer_suite")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--threads", type=int, default=min(2, num_cores()))
    parser.add_argument("--engines", nargs="+", default=PEERS, help="Peers.")
    parser.add_argument("--runs", type=int, default=30, help="Rounds of each layer, at least 10.")
    parser.add_argument("--budget-s", type=float, default=15.0, help="Seconds of a layer after which no further round begins.")
    asked = parser.parse_args()
    measure_all(list(LAYERS), lambda name: measured(name, asked), page, asked)


if __name__ == "__main__":
    main()
