"""Checks of grim that time kernels: what each optimisation brings, what blocks of each size cost, what a search finds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from espalier.compiler.isas import detect
from espalier.constraints import BlockRowsColumns, Target
from espalier.frames.layer_kernels import Case, Layer, by_filters, by_panels, choices, drawn, rule, timed
from espalier.frames.panels import Panel, loads
from espalier.steps.context import Context
from espalier.steps.measuring import measures
from espalier.steps.state import State
from espalier.steps.training import restored, weights_of
from espalier.storage import encode_bcrc

ROW_BY_ROW = Panel(1, 4)  # one row at a time over four vectors of pixels: what compressed sparse rows allow
PANELS = tuple(Panel(rows, vectors, outer) for rows, vectors in ((4, 6), (4, 4), (8, 3), (4, 2)) for outer in (True, False))
CSR_PANELS = tuple(Panel(1, vectors, outer) for vectors in (4, 8) for outer in (True, False))  # compressed sparse rows may search as well
TARGET = Target("layer.weight")


@measures
def ablation(
    state: State,
    context: Context,
    *,
    layer: Sequence[int],
    rates: Sequence[float],
    blocks: Sequence[int],
    num_choices: int,
    num_warmup: int,
    num_runs: int,
    num_search: int,
) -> State:
    """Time a pruned convolution row by row, with rows grouped, with loads shared, with searched knobs; and dense (grim, claims 6 and 7).

    Recorded by rate: the four times, the gain of each step over the one before, loads of inputs row by row over those of the format with
    loads shared (counted on the mask, not in the kernel), and the speed-up over our dense kernel, both with the knobs of the rule, over the
    rate. Weights and masks are random; every block keeps as many columns.

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws weights, input and masks.
        layer: Filters, channels, the kernel's side and the map's side.
        rates: All / kept weights.
        blocks: Rows and columns of a block; columns alone are pruned.
        num_choices: Tiles that the search tries for each kind of block.
        num_warmup: Rounds before the clock counts.
        num_runs: Rounds timed.
        num_search: Rounds of the search.
    """
    isa, (made, generator) = detect(), _drawn(layer, context)
    cases: dict[str, list[Case]] = {"dense": [by_filters(made, isa)]}
    layers = {rate: made.pruned(_mask(made, rate, blocks, generator)) for rate in rates}
    for rate, pruned in layers.items():
        at = f"{rate:g}x"
        cases[f"none/{at}"] = [by_panels(pruned, isa, ROW_BY_ROW, grouped=False)]
        cases[f"reorder/{at}"] = [by_panels(pruned, isa, ROW_BY_ROW)]
        cases[f"lre/{at}"] = [by_filters(pruned, isa)]
        cases[f"tuned/{at}"] = [by_filters(pruned, isa, choice) for choice in choices(pruned, isa, num_choices)]
    found = timed(cases, num_warmup=num_warmup, num_runs=num_runs, num_search=num_search)
    figures = {"max_rel_error": found.max_rel_error, "ablation/dense_ms": found.ms["dense"]}
    for rate, pruned in layers.items():
        at, ms = f"{rate:g}x", found.ms
        figures |= {f"ablation/{step}_ms/{at}": ms[f"{step}/{at}"] for step in ("none", "reorder", "lre", "tuned")}
        for before, step, name in (("none", "reorder", "reorder"), ("reorder", "lre", "lre"), ("lre", "tuned", "tuning")):
            figures[f"ablation/{name}_gain/{at}"] = ms[f"{before}/{at}"] / ms[f"{step}/{at}"]
        mask = _kept(pruned)
        kept, rows = int(mask.sum()), rule(pruned, isa).vectors * isa.lanes
        figures[f"ablation/load_cut/{at}"] = kept / loads(encode_bcrc(pruned.weight, mask), rows)
        figures[f"ablation/share/{at}"] = ms["dense"] / ms[f"lre/{at}"] / (mask.numel() / kept)
    return _after(state, context, figures)


@measures
def block_sizes(
    state: State,
    context: Context,
    *,
    layer: Sequence[int],
    rates: Sequence[float],
    large: Sequence[int],
    small: Sequence[int],
    num_warmup: int,
    num_runs: int,
    num_search: int,
) -> State:
    """Time one convolution at equal rate with the whole matrix for a block, large blocks, small ones, and as CSR (grim, claim 2).

    Each has the best of template F and rows by panels; CSR, on an unstructured mask, has the best of its own loops.

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws weights, input and masks.
        layer: Filters, channels, the kernel's side and the map's side.
        rates: All / kept weights.
        large: Rows and columns of a large block; columns alone are pruned, as many of every block.
        small: Rows and columns of a small block.
        num_warmup: Rounds before the clock counts.
        num_runs: Rounds timed.
        num_search: Rounds of the search.
    """
    isa, (made, generator) = detect(), _drawn(layer, context)
    panels, csr_panels = ([panel for panel in given if panel.fits(isa)] for given in (PANELS, CSR_PANELS))
    cases: dict[str, list[Case]] = {}
    for rate in rates:
        at = f"{rate:g}x"
        for name, blocks in (("whole", None), ("large", large), ("small", small)):
            pruned = made.pruned(_mask(made, rate, blocks, generator))
            cases[f"{name}/{at}"] = [by_filters(pruned, isa), *(by_panels(pruned, isa, panel) for panel in panels)]
        single = made.pruned(_mask(made, rate, (1, 1), generator))
        cases[f"csr/{at}"] = [by_panels(single, isa, panel, grouped=False) for panel in csr_panels]
    found = timed(cases, num_warmup=num_warmup, num_runs=num_runs, num_search=num_search)
    figures = {f"blocks/{name.replace('/', '_ms/')}": ms for name, ms in found.ms.items()}
    for rate in rates:
        at = f"{rate:g}x"
        figures[f"blocks/csr_over_small/{at}"] = found.ms[f"csr/{at}"] / found.ms[f"small/{at}"]
    return _after(state, context, {**figures, "max_rel_error": found.max_rel_error})


@measures
def search_gain(
    state: State,
    context: Context,
    *,
    layers: Sequence[Sequence[int]],
    rate: float,
    blocks: Sequence[int],
    num_choices: int,
    num_warmup: int,
    num_runs: int,
    num_search: int,
) -> State:
    """Time several convolutions with the knobs of the rule and with searched ones; record the median and the least gain (grim, claim 8).

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws weights, inputs and masks.
        layers: Filters, channels, the kernel's side and the map's side of each.
        rate: All / kept weights.
        blocks: Rows and columns of a block; columns alone are pruned, as many of every block.
        num_choices: Tiles that the search tries for each kind of block.
        num_warmup: Rounds before the clock counts.
        num_runs: Rounds timed.
        num_search: Rounds of the search.
    """
    isa = detect()
    gains, errors = [], []
    for shape in layers:
        made, generator = _drawn(shape, context)
        pruned = made.pruned(_mask(made, rate, blocks, generator))
        searched = [by_filters(pruned, isa, choice) for choice in choices(pruned, isa, num_choices)]
        cases = {"rule": [by_filters(pruned, isa)], "searched": searched}
        found = timed(cases, num_warmup=num_warmup, num_runs=num_runs, num_search=num_search)
        gains.append(found.ms["rule"] / found.ms["searched"])
        errors.append(found.max_rel_error)
    figures = {"search/gain_median": statistics.median(gains), "search/gain_min": min(gains), "search/gain_max": max(gains)}
    return _after(state, context, {**figures, "max_rel_error": max(errors)})


def _drawn(shape: Sequence[int], context: Context) -> tuple[Layer, torch.Generator]:
    generator = torch.Generator().manual_seed(context.seed)
    return drawn(shape, generator), generator


def _mask(layer: Layer, rate: float, blocks: Sequence[int] | None, generator: torch.Generator) -> Tensor:
    """Return a random mask of columns of blocks, as many of every block; of single weights where a block is one."""
    random = torch.randn(layer.weight.shape, generator=generator)
    single = blocks is not None and tuple(blocks) == (1, 1)
    return BlockRowsColumns(rate, blocks, columns=rate, balanced=not single).freeze({TARGET: random}).masks[TARGET]


def _kept(layer: Layer) -> Tensor:
    assert layer.mask is not None
    return layer.mask


def _after(state: State, context: Context, figures: Mapping[str, float]) -> State:
    return replace(state, weights=weights_of(restored(state, context)), metrics={**state.metrics, **figures})
