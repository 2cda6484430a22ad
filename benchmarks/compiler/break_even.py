"""From which rate sparse code beats the best dense engine: structure x layer x threads.

    python benchmarks/compiler/break_even.py                         # 7 layers, 1 and 2 threads, under 9 minutes; goes on where it stood
    python benchmarks/compiler/break_even.py --only '*' --rates 2 4 8 16        # all 13 layers, up to 16x
    python benchmarks/compiler/break_even.py --only '256-256*_2t' --again

Our code of each structure is measured at several rates, and template F dense; the break-even is where its time, a straight line between
measured rates on logarithmic axes, meets that of the best dense engine and stays below. The best dense engine is the fastest of the peers
and of our own dense code as compiled. The report shows the result as a page.
"""

import argparse
import math
from collections.abc import Mapping, Sequence

from suite_layers import AS_COMPILED, CHAIN, LAYERS, LEFT_OUT, PEERS, RATE_ONE, contest, machine_state, median_ms
from suite_results import Entry, arguments, cell, facts, measure_all, origin, table

from espalier.constraints import STRUCTURES, Structure
from espalier.devices import num_cores

RATES = (2.0, 4.0, 8.0)
THREADS = (1, 2)
TRIED: dict[str, Structure] = {  # on a 3-D layer the block-punched ones are KGS
    "block_punched 32x4": STRUCTURES["block_punched"].sized((32, 4)),
    "block_column 16": STRUCTURES["block_column"].sized((16,)),
    "filter": STRUCTURES["filter"],
    "unstructured": STRUCTURES["unstructured"],
}
TAKEN = (  # by default, one of each kind: large and small maps, many and few filters, 1x1 and 3-D
    "64-64_3x3_56x56",
    "256-256_3x3_14x14",
    "512-512_3x3_4x4",
    "256-64_1x1_56x56",
    "512-2048_1x1_7x7",
    "96-576_1x1_14x14",
    "512-512_3x3x3_4x14x14",
)


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
    best_ms = None if found["best_dense"] is None else found["best_dense"]["ms"]
    return {**facts(), "layer": layer, **found, "structures": {one: _of(one, found["ours"], best_ms) for one in TRIED}}


def _of(structure: str, ours: Mapping[str, Entry], best_ms: float | None) -> Entry:
    """Return the points of one structure, F at rate 1 first, and where they break even; the key is missing where nothing was timed."""
    names = [RATE_ONE, *(name for name in ours if name.rpartition(" ")[0] == structure)]
    points = [(ours[name]["rate"], ms) for name in names if (ms := median_ms(ours[name])) is not None]
    found: Entry = {"points": points}
    return found if best_ms is None or not points else {**found, "break_even": break_even(points, best_ms)}


def page(entries: Mapping[str, Entry]) -> list[str]:
    """Return the page."""
    told = [f"- {peer}, {name}: {reason}" for name, entry in entries.items() for peer, reason in entry["reasons"].items()]
    missing = [layer for layer in LAYERS if layer not in {entry["layer"] for entry in entries.values()}]
    lines = [
        "# Break-even",
        "",
        *origin(entries),
        f"Batch 1, fp32, chains of {CHAIN} layers with ReLU, times those of one; written by benchmarks/compiler/break_even.py.",
        "",
        "Measured: the rate from which on our sparse code is faster than the best dense engine, the fastest of the peers and of our own",
        f"dense code as compiled (*espalier, {AS_COMPILED}*); between measured rates by a straight line on logarithmic axes. 1: our",
        "template F is as fast without pruning; *not up to*: slower at the highest rate measured of this structure; -: not measured.",
        "Unstructured masks run as groups filled with zeros, filter masks as smaller dense layers. *moved*: the CPUs changed places",
        "meanwhile.",
        "",
        LEFT_OUT,
        *([f"Layers of the suite that are not measured here: {', '.join(missing)}; `--only` takes them."] if missing else []),
    ]
    head = ["layer", "best dense engine", "ms", "own F at rate 1", "own as compiled", *TRIED, "fork-join ns", "moved", "others' CPUs"]
    for threads in dict.fromkeys(entry["num_threads"] for entry in entries.values()):
        rows = [_row(entry) for entry in entries.values() if entry["num_threads"] == threads]
        title = f"## {threads} thread{'s' if threads > 1 else ''}"
        lines += ["", title, "", *table(head, rows)]
    return [*lines, *(["", "Who took no part:", "", *told] if told else [])]


def _row(entry: Entry) -> list[str]:
    best = entry["best_dense"]
    own = [cell(_layer_ms(median_ms(entry["ours"][name]), entry)) for name in (RATE_ONE, AS_COMPILED)]
    rates = [_rate(entry["structures"].get(structure, {})) for structure in TRIED]
    name, ms = ("-", None) if best is None else (best["name"], best["ms"])
    return [entry["layer"], name, cell(_layer_ms(ms, entry)), *own, *rates, *machine_state(entry)]


def _layer_ms(ms: float | None, entry: Entry) -> float | None:
    return None if ms is None else ms / entry["chain"]


def _rate(found: Entry) -> str:
    """Return a structure's break-even, or up to which of its own rates there is none."""
    if "break_even" not in found:
        return "-"
    highest = max(rate for rate, _ in found["points"])
    return f"not up to {highest:.2g}" if found["break_even"] is None else f"{found['break_even']:.3g}"


def main() -> None:
    """Measure the entries that are asked."""
    parser = arguments(__doc__, "break_even")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--engines", nargs="+", default=PEERS, help="Peers.")
    parser.add_argument("--runs", type=int, default=12, help="Rounds of each entry, at least 10.")
    parser.add_argument("--budget-s", type=float, default=8.0, help="Seconds of an entry after which no further round begins.")
    parser.set_defaults(only=[f"{layer}_*" for layer in TAKEN])
    asked = parser.parse_args()
    names = [f"{layer}_{threads}t" for layer in LAYERS for threads in THREADS if threads <= num_cores()]
    measure_all(names, lambda name: measured(name, asked), page, asked)


if __name__ == "__main__":
    main()
