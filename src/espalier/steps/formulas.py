"""Checks of formulas that need no training: the break-even gap of storage, and totals that follow from published layers."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from espalier.steps.context import Context
from espalier.steps.state import State
from espalier.steps.training import restored, weights_of
from espalier.storage import best_gap

Cells = Mapping[str, Mapping[str, float]]


def storage_gap(state: State, context: Context, *, rates: Sequence[float], bits: Sequence[int]) -> State:
    """Take the break-even gap of storage, with the best index width, over rates and widths of a weight.

    Source: admm-nn-s, A2 (claim 3): it rises as weights have fewer bits and as the rate grows.

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings.
        rates: Non-structured rates, rising.
        bits: Bits of a weight, falling.
    """
    gaps = [[best_gap(rate, width)[0] for width in bits] for rate in rates]
    lines = [*gaps, *map(list, zip(*gaps, strict=True))]
    steps = [after - before for line in lines for before, after in itertools.pairwise(line)]
    figures = {"storage/gap_steps_min": min(steps), "storage/gap_min": min(map(min, gaps)), "storage/gap_max": max(map(max, gaps))}
    return _with_figures(state, context, figures)


def harmonic_totals(
    state: State,
    context: Context,
    *,
    macs: Cells,
    dense: str,
    speedups: Cells,
    models: Sequence[str],
    layers: Sequence[str],
    joint: Cells,
    joint_layers: Sequence[str],
) -> State:
    """Compute a network's speed-up and its bits from those of its layers, and compare with the printed totals.

    Source: admm-nn-s, A2 (claim 9): the speed-up of a network is the harmonic mean of its layers', weighted by their multiply-adds.

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings.
        macs: Models -> layer -> multiply-adds.
        dense: The unpruned model among them.
        speedups: ``MODEL-LAYER`` and ``MODEL-total`` -> cells with ``speedup``.
        models: Models whose totals are checked.
        layers: Layers that a total spans.
        joint: Layers of a pruned and quantized network -> cells with ``kept`` and ``bits``.
        joint_layers: Those whose bits are summed.
    """
    errors = []
    for model in models:
        time = sum(macs[dense][layer] / speedups[f"{model}-{layer}"]["speedup"] for layer in layers)
        errors.append(abs(sum(macs[dense][layer] for layer in layers) / time - speedups[f"{model}-total"]["speedup"]))
    weight_bits = sum(joint[layer]["kept"] * joint[layer]["bits"] for layer in joint_layers)
    return _with_figures(state, context, {"totals/error_max": max(errors), "totals/weight_bits": float(weight_bits)})


def _with_figures(state: State, context: Context, figures: Mapping[str, float]) -> State:
    return replace(state, weights=weights_of(restored(state, context)), metrics={**state.metrics, **figures})
