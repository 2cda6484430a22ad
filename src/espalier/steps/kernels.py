"""The check that times pruned layers: pruning-to-performance ratios and the rate at which a sparse product first beats the dense one."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from espalier.frames.products import Timing, time_products
from espalier.steps.context import Context
from espalier.steps.measuring import measures
from espalier.steps.state import State
from espalier.steps.training import restored, weights_of


@measures
def pruning_to_performance(
    state: State,
    context: Context,
    *,
    shapes: Sequence[Sequence[int]],
    rates: Sequence[float],
    low_rate: float,
    high_rate: float,
    num_warmup: int,
    num_runs: int,
) -> State:
    """Time the products of some layers, dense, shrunk and sparse, and record rate over speed-up of all of them together.

    Source: admm-nn-s, A2 and A4 (claims 5 and 6).

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws the matrices.
        shapes: Filters, inner length and outputs of each layer's product.
        rates: All / kept weights, rising.
        low_rate: One of them: what the first layer is pruned by in a network whose other layers are pruned by ``high_rate``.
        high_rate: Another of ``rates``.
        num_warmup: Rounds before the clock runs.
        num_runs: Rounds timed.

    Raises:
        ValueError: ``rates`` lacks one of the two rates, or this PyTorch has no sparse product to measure.
    """
    if not {low_rate, high_rate} <= set(rates):
        raise ValueError(f"low_rate={low_rate:g} and high_rate={high_rate:g} are to be among rates={list(rates)}.")
    generator = torch.Generator().manual_seed(context.seed)
    timings = [
        time_products((shape[0], shape[1], shape[2]), rates, num_warmup=num_warmup, num_runs=num_runs, generator=generator)
        for shape in shapes
    ]
    figures = ratios(timings, [filters * inner for filters, inner, _ in shapes], rates)
    first, *others = timings
    rest_ms = sum(other.sparse[high_rate][1] for other in others)
    figures["ppr/restored_speedup"] = (first.sparse[low_rate][1] + rest_ms) / (first.dense_ms + rest_ms)
    return replace(state, weights=weights_of(restored(state, context)), metrics={**state.metrics, **figures})


def ratios(timings: Sequence[Timing], sizes: Sequence[int], rates: Sequence[float]) -> dict[str, float]:
    """Return ``ppr/structured/RATEx``, ``ppr/nonstructured/RATEx`` and, where the sparse product ever wins, ``ppr/breakeven_rate``.

    Args:
        timings: One a layer.
        sizes: Weights of each layer.
        rates: The rates timed, rising.
    """
    dense_ms = sum(timing.dense_ms for timing in timings)
    figures: dict[str, float] = {}
    curve: list[tuple[float, float]] = []  # rate kept, speed-up of the sparse product
    for rate in rates:
        for name, found in (("structured", [t.structured[rate] for t in timings]), ("nonstructured", [t.sparse[rate] for t in timings])):
            kept = sum(size / layer_rate for size, (layer_rate, _) in zip(sizes, found, strict=True))
            speedup = dense_ms / sum(time_ms for _, time_ms in found)
            figures[f"ppr/{name}/{rate:g}x"] = sum(sizes) / kept / speedup
            if name == "nonstructured":
                curve.append((sum(sizes) / kept, speedup))
    breakeven = breakeven_rate(curve)
    return figures if breakeven is None else {**figures, "ppr/breakeven_rate": breakeven}


def breakeven_rate(curve: Sequence[tuple[float, float]]) -> float | None:
    """Return the rate at which a speed-up first reaches 1, interpolated in both logarithms; None where it never does.

    Args:
        curve: (rate, speed-up), rates rising.
    """
    if curve[0][1] >= 1:
        return curve[0][0]
    for (rate, speedup), (next_rate, next_speedup) in itertools.pairwise(curve):
        if next_speedup >= 1:
            share = math.log(speedup) / (math.log(speedup) - math.log(next_speedup))
            return math.exp((1 - share) * math.log(rate) + share * math.log(next_rate))
    return None
