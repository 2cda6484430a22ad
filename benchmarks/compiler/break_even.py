"""From which rate sparse code beats the best dense engine: structure x layer x threads.

    python benchmarks/compiler/break_even.py                         # 13 layers, 1 and 2 threads, 15 minutes; goes on where it stood
    python benchmarks/compiler/break_even.py --only '256-256*_2t' --again

Our code of each structure is measured at rates 2 to 16, and dense; the break-even is where its time, a straight line between measured rates
on logarithmic axes, meets that of the best dense engine and stays below. The report shows the result as a page.
"""

import argparse
import math
from collections.abc import Mapping, Sequence

from suite_layers import LAYERS, PEERS, contest
from suite_results import Entry, arguments, cell, facts, measure_all, origin, table

from espalier.constraints import STRUCTURES, Structure
from espalier.devices import num_cores

RATES = (2.0, 4.0, 8.0, 16.0)
THREADS = (1, 2)
TRIED: dict[str, Structure] = {  # on a 3-D layer the block-punched ones are KGS
    "block_punched 16x4": STRUCTURES["block_punched"].sized((16, 4)),
    "block_punched 32x4": STRUCTURES["block_punched"].sized((32, 4)),
    "block_column 16": STRUCTURES["block_column"].sized((16,)),
    "filter": STRUCTURES["filter"],
    "unstructured": STRUCTURES["unstructured"],
}


def break_even(points: Sequence[tuple[float, float]], dense_ms: float) -> float | None:
    """Return the rate from which on times stay at or below ``dense_ms``; None where they do not at the highest rate.

    Args:
        points: Rate and time, one at least.
        dense_ms: Time of the best dense engine.
    """
    ordered = sorted(points)
    slow = [place for place, (_, ms) in enumerate(ordered) if ms > dense_ms]
    if not slow:
        return ordered[0][0]
    if slow[-1] == len(ordered) - 1:
        return None
    (rate, ms), (next_rate, next_ms) = ordered[slow[-1]], ordered[slow[-1] + 1]
    share = math.log(ms / dense_ms) / math.log(ms / next_ms)
    return float(rate * (next_rate / rate) ** share)


def measured(name: str, asked: argparse.Namespace) -> Entry:
    """Return one layer's entry at one number of threads."""
    layer, _, threads = name.rpartition("_")
    masked = {f"{structure} {rate:g}x": (TRIED[structure], rate) for structure in TRIED for rate in asked.rates}
    settings = {"peers": asked.engines, "num_runs": asked.runs, "budget_s": asked.budget_s}
    found = contest(LAYERS[layer], masked, num_threads=int(threads.removesuffix("t")), **settings)
    peer_ms = found["peers_ms"].get(found["best_peer"])
    return {**facts(), "layer": layer, **found, "structures": {one: _of(one, found["ours"], peer_ms) for one in TRIED}}


def _of(structure: str, ours: Mapping[str, Entry], peer_ms: float | None) -> Entry:
    """Return the points of one structure, the dense one first, and where they break even; the key is missing where nothing was timed."""
    names = ["dense", *(name for name in ours if name.rpartition(" ")[0] == structure)]
    points = [(ours[name]["rate"], ours[name]["ms"]) for name in names if ours[name]["ms"] is not None]
    found: Entry = {"points": points}
    return found if peer_ms is None or not points else {**found, "break_even": break_even(points, peer_ms)}


def page(entries: Mapping[str, Entry]) -> list[str]:
    """Return the page."""
    told = dict.fromkeys(f"- {peer}: {reason}" for entry in entries.values() for peer, reason in entry["reasons"].items())
    lines = [
        "# Break-even",
        "",
        *origin(entries),
        "Written by benchmarks/compiler/break_even.py.",
        "",
        "Measured: the rate from which on our sparse code is faster than the best dense engine, between measured rates by a straight line",
        "on logarithmic axes. 1: our code is as fast without pruning; *never*: not up to the highest rate; -: not measured. Unstructured",
        "masks run as groups filled with zeros, filter masks as smaller dense layers.",
    ]
    for threads in dict.fromkeys(entry["num_threads"] for entry in entries.values()):
        rows = [_row(entry) for entry in entries.values() if entry["num_threads"] == threads]
        title = f"## {threads} thread{'s' if threads > 1 else ''}"
        lines += ["", title, "", *table(["layer", "best dense engine", "ms", "ours dense", *TRIED], rows)]
    return [*lines, *(["", "Who took no part:", "", *told] if told else [])]


def _row(entry: Entry) -> list[str]:
    peer = entry["peers_ms"].get(entry["best_peer"])
    rates = [entry["structures"].get(structure, {}).get("break_even", math.nan) for structure in TRIED]
    return [entry["layer"], entry["best_peer"] or "-", cell(peer), cell(entry["ours"]["dense"]["ms"]), *map(_rate, rates)]


def _rate(rate: float | None) -> str:
    return "never" if rate is None else "-" if math.isnan(rate) else f"{rate:.2g}"


def main() -> None:
    """Measure the entries that are asked."""
    parser = arguments(__doc__, "break_even")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--engines", nargs="+", default=PEERS, help="Peers.")
    parser.add_argument("--runs", type=int, default=20, help="Rounds of each entry, at least 10.")
    parser.add_argument("--budget-s", type=float, default=15.0, help="Seconds of an entry after which no further round begins.")
    asked = parser.parse_args()
    names = [f"{layer}_{threads}t" for layer in LAYERS for threads in THREADS if threads <= num_cores()]
    measure_all(names, lambda name: measured(name, asked), page, asked)


if __name__ == "__main__":
    main()
