"""The check that rows and columns pay off in time: convolutions as matrix products, cut to smaller dense matrices and as irregular CSR."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from espalier.constraints.selection import CONVS
from espalier.frames.products import time_products
from espalier.steps.context import Context
from espalier.steps.measuring import measures
from espalier.steps.state import State
from espalier.steps.training import restored


@measures
def product_latency(state: State, context: Context, *, rates: Sequence[float], num_warmup: int, num_runs: int) -> State:
    """Time one image's convolutions as matrix products, cut to fewer rows and columns at several rates (ss-auto, What must hold 7).

    Recorded: R^2 of a line through latency over multiply-adds, the whole products included, and the smallest ratio of CSR to dense time at
    equal multiply-adds. The products alone are timed, not the copies that lay an image out for them; weights are random, supports seeded.

    Args:
        state: A network.
        context: The step's surroundings.
        rates: Multiply-adds of the whole / of the cut products, above 1.
        num_warmup: Rounds before the clock runs.
        num_runs: Rounds whose medians count.

    Raises:
        ValueError: There are fewer than two rates, or the network has no convolution.
    """
    if len(set(rates)) < 2 or min(rates) <= 1:
        raise ValueError(f"rates={list(rates)}: the line takes the whole product and two cuts or more; give at least two rates above 1.")
    shapes = products_of(restored(state, context), torch.zeros(1, *context.data.input_shape))
    generator = torch.Generator().manual_seed(context.seed)
    timings = [time_products(shape, rates, num_warmup=num_warmup, num_runs=num_runs, generator=generator) for shape in shapes]
    whole = [rows * columns * positions for rows, columns, positions in shapes]
    macs, times_ms, ratios = [float(sum(whole))], [sum(timing.dense_ms for timing in timings)], []
    for rate in rates:
        macs.append(sum(size / timing.structured[rate][0] for size, timing in zip(whole, timings, strict=True)))
        times_ms.append(sum(timing.structured[rate][1] for timing in timings))
        ratios.append(sum(timing.sparse[rate][1] for timing in timings) / times_ms[-1])
    r2 = statistics.correlation(macs, times_ms) ** 2
    return replace(state, metrics={**state.metrics, "check/latency_macs_r2": r2, "check/structured_over_csr": min(ratios)})


def products_of(model: nn.Module, example: Tensor) -> list[tuple[int, int, int]]:
    """Return the product of every ungrouped convolution of one pass, ``(rows, columns) x (columns, positions)``.

    Raises:
        ValueError: There is none.
    """
    found: list[tuple[int, int, int]] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, CONVS)
        rows, columns = module.weight.flatten(1).shape
        found.append((rows, columns, output[0, 0].numel()))

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, CONVS) and module.groups == 1]
    with torch.no_grad():
        model.eval()(example)
    for hook in hooks:
        hook.remove()
    if not found:
        raise ValueError("the network has no convolution whose product could be timed; take one that has.")
    return found
