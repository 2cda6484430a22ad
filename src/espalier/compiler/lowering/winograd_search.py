"""What a search tries for a layer of template W: each size of tile with the rule's blocks, then other numbers of groups and of filters."""

import itertools
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from espalier.compiler.layouts import lines
from espalier.compiler.lowering.convolutions import conv_layer
from espalier.compiler.lowering.depthwise import is_depthwise
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.knobs import knobs_of
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.winograd import lowered_winograd
from espalier.compiler.lowering.winograd_shape import Blocks, Shape, blocks_of, takes
from espalier.compiler.lowering.winograd_transforms import TRANSFORMS

GROUPS = (0.5, 1, 2)  # times those that the rule takes through all phases together


def takes_blocks(site: Site) -> bool:
    """Return whether template W computes a layer, and may."""
    if not site.isa.winograd or site.node.op != "conv" or is_depthwise(site.node, site.graph):
        return False
    return takes(conv_layer(site.node, site.graph), lines(site.inputs[0]), lines(site.output))


def first_blocks(site: Site) -> list[dict[str, Any]]:
    """Return the rule's blocks for every size of tile that fits the map."""
    layer, result = conv_layer(site.node, site.graph), lines(site.output)
    return [asdict(blocks_of(layer, result, site.isa, size)) for size in TRANSFORMS if size <= min(result.size[1:])]


def near_blocks(site: Site, best: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the same tiles with other numbers of groups at once, and of vectors where the registers allow."""
    start = Blocks(**best)
    every = [
        replace(start, groups=round(start.groups * times), vectors=vectors)
        for times, vectors in itertools.product(GROUPS, site.isa.vectors)
        if start.tiles <= site.isa.pixels(vectors) and start.groups * times >= 1
    ]
    return [asdict(blocks) for blocks in dict.fromkeys(every) if blocks != start and _fits(site, blocks)]


def lower_blocks(site: Site, knobs: Mapping[str, Any]) -> Kernel:
    """Return the kernel of a layer with these knobs.

    Raises:
        ValueError: The layer has no such blocks.
        TypeError: They are no knobs of ``Blocks``.
    """
    blocks = knobs_of(Blocks, knobs)
    if not _fits(site, blocks):
        raise ValueError(f"a layer of {site.node.shape} has no {blocks}")
    residual = lines(site.inputs[1]) if site.node.attributes.get("residual") else None
    source, result = lines(site.inputs[0]), lines(site.output)
    return lowered_winograd(site.node, conv_layer(site.node, site.graph), source, result, residual, site.isa, blocks)


def _fits(site: Site, blocks: Blocks) -> bool:
    """Return whether the kernel can be written with these blocks: tiles within the map and the registers, whole groups of planes."""
    layer, result = conv_layer(site.node, site.graph), lines(site.output)
    filters, channels, depth = layer.weight.shape[:3]
    if blocks.size not in TRANSFORMS or blocks.size > min(result.size[1:]) or blocks.vectors not in site.isa.vectors:
        return False
    if not 1 <= blocks.tiles <= site.isa.pixels(blocks.vectors) or blocks.planes < 1 or result.size[0] % blocks.planes:
        return False
    shape = Shape(blocks, result.size, depth, channels, filters, site.isa.lanes)
    return blocks.tiles <= shape.grid[0] * shape.grid[1] and 1 <= blocks.groups <= shape.num_groups
