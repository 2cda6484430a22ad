"""What holds back kernels that load nearly as much as they multiply: depthwise convolutions, and products of two activations."""

import math

from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.matmul import Product, Strip, tiles
from espalier.compiler.lowering.site import Site
from espalier.compiler.reasons.layers import in_flight, moved, on_threads, stored_sums
from espalier.compiler.reasons.machine import Machine, Reason

TAP_SHARE = 0.5  # of the peak that depthwise kernels can reach: an input is loaded for every row of taps


def depthwise(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """A depthwise kernel reads an input for few multiply-adds."""
    num_bytes = moved(site)
    level = machine.level(num_bytes)
    share = min(TAP_SHARE, 2 * kernel.macs / machine.flop(num_bytes, level))
    what = "activations" if share < TAP_SHARE else "loads"
    return Reason(f"depthwise: bound by {what}, {2 * kernel.macs / num_bytes:.1f} FLOP for each byte through {level}", share)


def thin_tiles(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """A tile loads its vectors of columns and its rows' numbers for a multiply-add of each with each; two are loaded in the time of two."""
    del kernel, machine
    _, across, heights = _tiles(site)
    height, vectors = heights[0], len(across[0].vectors)
    share = min(1.0, height * vectors / (height + vectors))
    text = f"a tile of {height} rows by {vectors} vectors loads {height + vectors} times for {height * vectors} multiply-adds"
    return Reason(text, share)


def few_sums(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Too few sums are under way to hide how long one multiply-add takes."""
    del kernel, machine
    _, across, heights = _tiles(site)
    return in_flight(heights[0] * len(across[0].vectors))


def last_columns(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Columns that are no whole vectors are computed twice, or beside nothing."""
    del kernel, machine
    product, across, _ = _tiles(site)
    times = sum(strip.count * len(strip.vectors) for strip in across) * product.lanes / product.columns
    return Reason(f"vectors of {product.lanes} compute {times:.2f}x the {product.columns} columns", 1 / times)


def short_rows(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Beginning and storing sums weighs where they are of few products."""
    del kernel, machine
    product, _, _ = _tiles(site)
    share = stored_sums(product.inner)
    return Reason(f"sums of {product.inner} products: beginning and storing them takes {1 - share:.0%} of the time", share)


def uneven_tiles(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Threads have unequally many rows of tiles."""
    del kernel
    _, _, heights = _tiles(site)
    return on_threads(math.prod(site.node.shape[:-2]) * len(heights), "rows of tiles", machine.num_threads)


def _tiles(site: Site) -> tuple[Product, list[Strip], list[int]]:
    left, right = (site.graph[name].shape for name in site.node.inputs)
    product = Product(left[-2], left[-1], right[-1], site.isa.lanes)
    return product, *tiles(product, site.isa)
