"""What a search tries for a layer of template F (compiler spec, 4.4): blocks and tiles first, then how the best of them is scheduled.

``SCHEDULE`` lists the knobs of ``Choice`` that leave blocks and tile as they are; another one is another line there.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from espalier.compiler.bcrc import needed_entries
from espalier.compiler.layouts import lines
from espalier.compiler.lowering.convolutions import conv_layer, linear_layer, lower_conv, lower_linear
from espalier.compiler.lowering.depthwise import is_depthwise
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.filters_planes import planes_of
from espalier.compiler.lowering.filters_rule import WEIGHT_LOADS, Choice, block_shapes
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.knobs import knobs_of
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.tiles import Tile, tile_cost, tiles_of

SCHEDULE: Mapping[str, Sequence[Any]] = {
    "by_filters": (False, True),
    "resident_bytes": (96 << 10, 192 << 10, 384 << 10, 768 << 10, 1536 << 10),
}
MOST_FIRST = 32  # blocks and tiles tried for a layer
MOST_OF_BLOCKS = 10  # tiles tried for blocks of one shape
FAR = 1.6  # estimated times beyond the best estimate from which nothing is tried


def takes_choice(site: Site) -> bool:
    """Return whether template F computes a layer."""
    if site.node.op == "conv":
        return not is_depthwise(site.node, site.graph)
    return site.node.op == "linear" and lines(site.output).size[2] > 1


def first_choices(site: Site) -> list[dict[str, Any]]:
    """Return blocks and tiles worth trying for a layer of template F, the most promising first."""
    layer = _layer(site)
    source, size = lines(site.inputs[0]), layer.computed(lines(site.output).size)
    ranked: list[tuple[float, Choice]] = []
    for vectors, channels in block_shapes(layer, site.isa, source.line):
        filters = vectors * site.isa.lanes
        entries = int(needed_entries(tuple(layer.weight.shape), layer.mask, block_filters=filters, group_channels=channels).sum())
        speed, least = site.isa.efficiency[vectors, channels], site.isa.least_pixels(vectors)
        costs = {
            tile: tile_cost(tile, size, overhead=WEIGHT_LOADS / vectors, least=least)
            * planes_of(layer, source.size[0], size[0], tile.planes).share
            for tile in tiles_of(size, site.isa.pixels(vectors), layer.side)
        }
        promising = sorted(costs, key=costs.__getitem__)[:MOST_OF_BLOCKS]
        ranked += [(entries * channels * vectors * costs[tile] / speed, Choice(vectors, channels, tile)) for tile in promising]
    ranked.sort(key=lambda one: one[0])
    return [asdict(choice) for cost, choice in ranked[:MOST_FIRST] if cost <= FAR * ranked[0][0]]


def near_choices(site: Site, best: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the same blocks and tile with every other combination of what ``SCHEDULE`` lists."""
    del site
    start = _choice(best)
    every = (replace(start, **dict(zip(SCHEDULE, values, strict=True))) for values in itertools.product(*SCHEDULE.values()))
    return [asdict(choice) for choice in every if choice != start]


def lower_choice(site: Site, knobs: Mapping[str, Any]) -> Kernel:
    """Return the kernel of a layer with these knobs.

    Raises:
        ValueError: The layer has no such blocks or tiles.
        TypeError: They are no knobs of ``Choice``.
        KeyError: There is no tile among them.
    """
    choice, layer = _choice(knobs), _layer(site)
    source, size = lines(site.inputs[0]), layer.computed(lines(site.output).size)
    if (choice.vectors, choice.channels) not in block_shapes(layer, site.isa, source.line):
        raise ValueError(f"a layer of {site.node.shape} has no blocks of {choice.vectors} vectors and {choice.channels} channels")
    if choice.tile not in tiles_of(size, site.isa.pixels(choice.vectors), layer.side):
        raise ValueError(f"a map of {size} has no tile of {choice.tile}")
    lower = lower_conv if site.node.op == "conv" else lower_linear
    return lower(site.node, site.inputs, site.output, site.isa, site.graph, choice)


def _layer(site: Site) -> Convolution:
    return conv_layer(site.node, site.graph) if site.node.op == "conv" else linear_layer(site.node, site.graph)


def _choice(knobs: Mapping[str, Any]) -> Choice:
    choice = knobs_of(Choice, {**knobs, "tile": knobs_of(Tile, knobs["tile"])})
    if choice.resident_bytes < 1:
        raise ValueError(f"resident_bytes={choice.resident_bytes} holds no weights")
    return choice
