"""What holds template W back: transforms, larger weights, and tiles and groups that the map does not fill.

Its multiply-adds are those of the products in the transform domain, (m + 2)^2 / 9 m^2 of the direct convolution's, and so are its GFLOP/s:
they stay below the peak. Transforms take the time that the rule was fitted with (``winograd_rule.COSTS``).
"""

import math

from espalier.compiler.layouts import LINE, lines
from espalier.compiler.lowering.convolutions import conv_layer
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.winograd_rule import COSTS
from espalier.compiler.lowering.winograd_shape import Blocks, Shape
from espalier.compiler.lowering.winograd_transforms import KERNEL
from espalier.compiler.reasons.filters import slower_blocks
from espalier.compiler.reasons.layers import in_flight, map_text, megabytes, num_filters, on_threads, stored_sums
from espalier.compiler.reasons.machine import BEST_SHARE, Machine, Reason


def transforms(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Additions and copies into the transform domain and back take time beside the products."""
    shape = _shape(site, kernel)
    planes = (shape.blocks.planes + shape.depth - 1) / shape.blocks.planes
    into = shape.lines * planes * (machine.num_threads if shape.by_filters else 1)  # threads that share out filters each transform all
    number = math.prod(shape.grid) * shape.size[0] * (into + -(-shape.filters // LINE)) * shape.transform.positions
    share = kernel.macs / (kernel.macs + COSTS[site.isa.name].transform * number)
    m, times = shape.blocks.size, KERNEL**2 * shape.blocks.size**2 / shape.transform.positions
    return Reason(f"tiles of {m}x{m} need {times:.3g}x fewer products; their transforms take {1 - share:.0%} of the time", share)


def larger_weights(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Weights are larger in the transform domain, and each thread reads them for every few groups of tiles."""
    shape, num_bytes = _shape(site, kernel), kernel.arrays["w"].nbytes
    level = machine.level(machine.network_bytes)
    first = num_bytes * (1 if shape.by_filters else min(machine.num_threads, shape.num_groups))
    passes = 1 if shape.by_filters else max(machine.num_threads, math.ceil(shape.num_groups / shape.blocks.groups))
    again = num_bytes * passes - first if num_bytes > machine.l2_bytes else 0  # what a core's L2 holds is read in passing
    flop = (0.0 if level == "L2" else machine.flop(first, level)) + machine.flop(max(0, again), "L3")
    times = shape.transform.positions / KERNEL**2
    text = f"{megabytes(num_bytes)} of weights from {level}, {times:.3g}x as many as untransformed, serve a map of {map_text(shape.size)}"
    return Reason(text, 2 * kernel.macs / (2 * kernel.macs + BEST_SHARE * flop))


def winograd_blocks(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Blocks of other sizes run faster."""
    del machine
    shape = _shape(site, kernel)
    return slower_blocks(site.isa, shape.blocks.vectors, next(size for size in (4, 2, 1) if shape.channels % size == 0))


def winograd_latency(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Too few sums are under way to hide how long one multiply-add takes."""
    del machine
    blocks = _shape(site, kernel).blocks
    return in_flight(blocks.tiles * blocks.vectors)


def short_sums(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Storing products weighs where they are sums over few channels."""
    del machine
    shape = _shape(site, kernel)
    products = shape.depth * shape.channels
    share = stored_sums(products)
    return Reason(f"sums of {products} products: beginning and storing them takes {1 - share:.0%} of the time", share)


def uneven_groups(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Threads have unequally many groups of tiles, or blocks of filters."""
    shape = _shape(site, kernel)
    if shape.by_filters:
        return on_threads(len(shape.used), "blocks of filters", machine.num_threads)
    return on_threads(shape.num_groups, "groups of tiles", machine.num_threads)


def overhang(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Tiles that do not divide the map, and those that only fill a group, are multiplied."""
    del machine
    shape = _shape(site, kernel)
    m = shape.blocks.size
    times = shape.num_groups * shape.blocks.planes * shape.blocks.tiles * m * m / math.prod(shape.size)
    text = f"groups of {shape.blocks.tiles} tiles of {m}x{m} multiply for {times:.2f}x the pixels of a map of {map_text(shape.size)}"
    return Reason(text, 1 / times, wastes=True)


def unfilled_lines(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Vectors of filters that only fill the result's last line are multiplied."""
    del machine
    filled = sum(_shape(site, kernel).used) * site.isa.lanes
    return Reason(f"M={num_filters(site)} is computed as {filled}", num_filters(site) / filled, wastes=True)


def _shape(site: Site, kernel: Kernel) -> Shape:
    assert isinstance(kernel.choice, Blocks), f"template {kernel.template} has no blocks of template W"
    filters, channels, depth = conv_layer(site.node, site.graph).weight.shape[:3]
    return Shape(kernel.choice, lines(site.output).size, depth, channels, filters, site.isa.lanes)
