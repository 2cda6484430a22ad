"""What a search tries for a layer of template S: the blocks that cost least by the rule, then bands of other heights."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from espalier.compiler.layouts import lines
from espalier.compiler.lowering.convolutions import conv_layer
from espalier.compiler.lowering.depthwise import is_depthwise
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.spatial import lowered_spatial
from espalier.compiler.lowering.spatial_rule import candidates, filters_cost
from espalier.compiler.lowering.spatial_shape import Blocks

HEIGHTS = (0.25, 0.5, 2)  # times the rows that the rule's bands have
MOST_FIRST = 2  # blocks tried for a layer
FAR = 1.6  # times template F's estimated cost from which nothing is tried


def takes_bands(site: Site) -> bool:
    """Return whether template S computes a layer, and may be the faster one."""
    return site.node.op == "conv" and not is_depthwise(site.node, site.graph) and bool(first_bands(site))


def first_bands(site: Site) -> list[dict[str, Any]]:
    """Return blocks worth trying, the most promising first."""
    layer, source, result = conv_layer(site.node, site.graph), lines(site.inputs[0]), lines(site.output)
    costs = candidates(layer, source, result, site.isa)
    most = FAR * filters_cost(layer, source, result, site.isa) if costs else 0.0
    return [asdict(blocks) for blocks in sorted(costs, key=lambda blocks: costs[blocks])[:MOST_FIRST] if costs[blocks] <= most]


def near_bands(site: Site, best: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the same blocks with bands of other heights."""
    start, height = Blocks(**best), lines(site.output).size[1]
    rows = {min(height, max(1, round(start.rows * times))) for times in HEIGHTS}
    return [asdict(replace(start, rows=number)) for number in sorted(rows - {start.rows})]


def lower_bands(site: Site, knobs: Mapping[str, Any]) -> Kernel:
    """Return the kernel of a layer with these knobs.

    Raises:
        ValueError: The layer has no such blocks.
        TypeError: They are no knobs of ``Blocks``.
    """
    blocks, layer, result = Blocks(**knobs), conv_layer(site.node, site.graph), lines(site.output)
    source = lines(site.inputs[0])
    if blocks.rows < 1 or replace(blocks, rows=1) not in {replace(one, rows=1) for one in candidates(layer, source, result, site.isa)}:
        raise ValueError(f"a layer of {site.node.shape} has no {blocks}")
    residual = lines(site.inputs[1]) if site.node.attributes.get("residual") else None
    return lowered_spatial(site.node, layer, source, result, residual, site.isa, blocks)
