"""Measured on this machine's CPU: one convolution in several of our kernels, on one thread, each checked before its time counts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from espalier.compiler.alone import Alone, Kernels
from espalier.compiler.bcrc import needed_entries
from espalier.compiler.isas import Isa, detect
from espalier.compiler.layouts import Map, Plain, lines, map_of
from espalier.compiler.lowering.filters import Convolution, lowered
from espalier.compiler.lowering.filters_rule import Choice, choose
from espalier.compiler.lowering.places import access, stored
from espalier.compiler.lowering.tiles import tile_cost, tiles_of
from espalier.compiler.lowering.vectors import lowered_vector
from espalier.frames.machine import machine_lock
from espalier.frames.panels import Panel, Planes, lowered_panels
from espalier.storage import encode_bcrc

TOLERANCE = 1e-4  # largest difference of an output / largest wanted one
MARGIN = 0.02  # by which a candidate must beat the first one in the search: what rounds of one kernel differ by
WASTE = 1.25  # multiplications that a choice may have beside those of the leanest one


@dataclass(frozen=True)
class Layer:
    """A convolution of stride 1 whose output has the size of its input, batch 1, with its input.

    Args:
        weight: ``(filters, channels, kernel, kernel)``, the kernel odd.
        bias: ``(filters,)``.
        value: Input, ``(channels, height, width)``.
        mask: What pruning kept, of the weight's shape; None keeps everything.
    """

    weight: Tensor
    bias: Tensor
    value: Tensor
    mask: Tensor | None = None

    def pruned(self, mask: Tensor) -> "Layer":
        """Return the layer with what a mask drops set to zero."""
        return replace(self, weight=self.weight * mask, mask=mask)

    @property
    def planes(self) -> Planes:
        """Return its input plane by plane."""
        channels, height, width = self.value.shape
        return Planes(channels, height, width, (self.weight.shape[2], self.weight.shape[3]))

    @property
    def maps(self) -> tuple[Map, Map]:
        """Return the layouts of input and output in a compiled network."""
        channels, height, width = self.value.shape
        above, before = self.weight.shape[2] // 2, self.weight.shape[3] // 2
        border = ((0, 0), (above, above), (before, before))
        return map_of((1, channels, height, width), border), map_of((1, self.weight.shape[0], height, width))

    @property
    def convolution(self) -> Convolution:
        """Return it as template F takes it."""
        mask = None if self.mask is None else self.mask.unsqueeze(2)
        padding = (0, self.weight.shape[2] // 2, self.weight.shape[3] // 2)
        return Convolution(self.weight.unsqueeze(2), mask, self.bias, (1, 1, 1), padding, (1, 1, 1), None)

    @cached_property
    def wanted(self) -> Tensor:
        """Return its output in double precision."""
        weight, bias, value = self.weight.double(), self.bias.double(), self.value.double()
        return F.conv2d(value.unsqueeze(0), weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))[0]


def drawn(shape: Sequence[int], generator: torch.Generator) -> Layer:
    """Return a random layer.

    Args:
        shape: Filters, channels, the kernel's side, the map's side.
        generator: Draws it.

    Raises:
        ValueError: There are not four sizes, or the kernel's side is even.
    """
    if len(shape) != 4 or shape[2] % 2 == 0 or min(shape) < 1:
        raise ValueError(f"layer={list(shape)} is not filters, channels, an odd size of the kernel and the size of the map.")
    filters, channels, kernel, size = shape
    weight = torch.randn(filters, channels, kernel, kernel, generator=generator) / math.sqrt(channels * kernel * kernel)
    return Layer(weight, torch.randn(filters, generator=generator), torch.randn(channels, size, size, generator=generator))


@dataclass(frozen=True)
class Case:
    """A kernel, what it should give, and how that is read from its buffer."""

    alone: Alone
    wanted: Tensor
    taken: Callable[[np.ndarray], Tensor]


def by_filters(layer: Layer, isa: Isa, choice: Choice | None = None) -> Case:
    """Return template F of a compiled network; ``choice`` None takes its rule's."""
    source, result = layer.maps
    kernel = lowered(layer.convolution, lines(source), lines(result), None, isa, choice)
    places = access(result, (1, *layer.wanted.shape)).places()[0]
    alone = Alone(kernel, stored(layer.value.unsqueeze(0), source), result.floats)
    return Case(alone, layer.wanted, lambda buffer: torch.from_numpy(buffer[places]))


def by_vector(layer: Layer, isa: Isa) -> Case:
    """Return template V, a linear layer of one row.

    Raises:
        ValueError: The layer has more than one pixel, or its kernel has.
    """
    if layer.value[0].numel() != 1 or layer.weight[0, 0].numel() != 1:
        sizes = f"{tuple(layer.value.shape[1:])} pixels and a kernel of {tuple(layer.weight.shape[2:])}"
        raise ValueError(f"a layer of {sizes} is no matrix-vector product; take by_filters.")
    source, result = (Plain((1, channels)) for channels in (layer.weight.shape[1], layer.weight.shape[0]))
    kernel = lowered_vector(layer.convolution, lines(source), lines(result), None, isa)
    alone = Alone(kernel, layer.value.flatten().numpy(), result.floats)
    return Case(alone, layer.wanted, lambda buffer: torch.from_numpy(buffer).view(-1, 1, 1))


def by_panels(layer: Layer, isa: Isa, panel: Panel, *, grouped: bool = True) -> Case:
    """Return rows by panels; ``grouped`` False is compressed sparse rows."""
    planes = layer.planes
    kept = torch.ones_like(layer.weight, dtype=torch.bool) if layer.mask is None else layer.mask
    kernel = lowered_panels(encode_bcrc(layer.weight, kept, grouped=grouped), layer.bias, planes, isa, panel)
    return Case(Alone(kernel, planes.padded(layer.value), layer.weight.shape[0] * planes.floats), layer.wanted, planes.taken)


def rule(layer: Layer, isa: Isa) -> Choice:
    """Return the blocks that template F takes without a search."""
    source, result = (lines(layout) for layout in layer.maps)
    return choose(layer.convolution, isa, result.size, source)


def choices(layer: Layer, isa: Isa, count: int) -> list[Choice]:
    """Return the blocks that a search tries: the rule's, and for each number of vectors the ``count`` tiles that compute the fewest pixels.

    Left out are entries of so many channels that zeros outweigh what is saved.
    """
    source, result = (lines(layout) for layout in layer.maps)
    convolution = layer.convolution
    shape = tuple(convolution.weight.shape)
    work: dict[tuple[int, int], int] = {}
    for vectors in isa.vectors:
        for channels in (4, 2, 1):
            if shape[1] % channels == 0 and channels <= source.line:
                needed = needed_entries(shape, convolution.mask, block_filters=vectors * isa.lanes, group_channels=channels)
                work[vectors, channels] = int(needed.sum()) * channels * vectors
    found = [rule(layer, isa)]
    for vectors, channels in [knobs for knobs, slots in work.items() if slots <= WASTE * min(work.values())]:
        overhead, least = isa.tile_overhead * vectors, isa.least_pixels(vectors)
        tiles = tiles_of(result.size, isa.pixels(vectors))
        costs = {tile: (tile_cost(tile, result.size, overhead=overhead, least=least), abs(tile.rows - tile.columns)) for tile in tiles}
        found += [Choice(vectors, channels, tile) for tile in sorted(costs, key=costs.__getitem__)[:count]]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Timed:
    """Times of some kernels.

    Args:
        ms: Name -> median milliseconds.
        chosen: Name -> which of its candidates.
        max_rel_error: The largest over all candidates.
    """

    ms: Mapping[str, float]
    chosen: Mapping[str, int]
    max_rel_error: float


def timed(cases: Mapping[str, Sequence[Case]], *, num_warmup: int, num_runs: int, num_search: int, isa: Isa | None = None) -> Timed:
    """Time some kernels by turns; of several candidates under a name the first counts, unless a search finds one faster by ``MARGIN``.

    The search and the timing are apart, so that the luck of a candidate in the search is no part of its time.

    Args:
        cases: Name -> candidates, at least one.
        num_warmup: Rounds before the clock counts.
        num_runs: Rounds timed.
        num_search: Rounds of the search.
        isa: Instruction set; None takes this machine's.

    Raises:
        ValueError: An output is wrong; there is no time of such a kernel.
    """
    flat = [(name, case) for name, candidates in cases.items() for case in candidates]
    numbers = {name: [number for number, (other, _) in enumerate(flat) if other == name] for name in cases}
    with Kernels([case.alone for _, case in flat], isa or detect()) as kernels:
        errors = [error_of(kernels, number, case) for number, (_, case) in enumerate(flat)]
        if max(errors) >= TOLERANCE:
            worst = errors.index(max(errors))
            detail = flat[worst][1].alone.kernel.detail
            raise ValueError(f"kernel {flat[worst][0]} ({detail}) is off by {max(errors):.2g} of its largest output; it has no time.")
        with machine_lock():
            several = [number for found in numbers.values() if len(found) > 1 for number in found]
            searched = dict(zip(several, kernels.medians_ms(several, num_warmup=1, num_runs=num_search), strict=True))
            best = {name: _fastest(found, searched) for name, found in numbers.items()}
            times = kernels.medians_ms([*best.values()], num_warmup=num_warmup, num_runs=num_runs)
    chosen = {name: numbers[name].index(number) for name, number in best.items()}
    return Timed(dict(zip(best, times, strict=True)), chosen, max(errors))


def _fastest(numbers: Sequence[int], ms: Mapping[int, float]) -> int:
    first, *others = numbers
    best = min(others, key=ms.__getitem__, default=first)
    return best if others and ms[best] < (1 - MARGIN) * ms[first] else first


def errors_of(cases: Sequence[Case], isa: Isa) -> list[float]:
    """Return the largest difference of an output from the wanted one / the largest wanted one, kernel by kernel."""
    with Kernels([case.alone for case in cases], isa) as kernels:
        return [error_of(kernels, number, case) for number, case in enumerate(cases)]


def error_of(kernels: Kernels, number: int, case: Case) -> float:
    """Return the largest difference of a kernel's output from the wanted one / the largest wanted one."""
    given = case.taken(kernels.result(number)).double()
    difference = float((given - case.wanted).abs().max())
    return difference / max(float(case.wanted.abs().max()), 1e-30) if math.isfinite(difference) else math.inf
