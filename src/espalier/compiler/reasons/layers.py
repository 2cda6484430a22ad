"""What may hold any template back: the threads' meeting, activations through memory, short sums, and multiply-adds with zeros."""

import math

import numpy as np

from espalier.compiler.layouts import Lines, lines
from espalier.compiler.lowering.convolutions import conv_layer, linear_layer
from espalier.compiler.lowering.filters_planes import planes_of
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.reasons.machine import BEST_SHARE, Machine, Reason

STORES = 2.0  # multiply-adds that beginning and storing a sum is worth
IN_FLIGHT = 8  # sums that hide the latency of a multiply-add: two units, four cycles
SMALL_MAP = 8  # pixels a side, up to which the border is told of


def barrier(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """The barrier behind a small kernel takes a good part of its time."""
    del site
    if machine.ceilings is None or machine.num_threads == 1:
        return None
    own_us, barrier_us = 2e-3 * kernel.macs / (BEST_SHARE * machine.ceilings.fma_gflops), 1e-3 * machine.ceilings.fork_join_ns
    share = own_us / (own_us + barrier_us)
    return Reason(f"so small ({own_us:.1f} us at best) that the threads' meeting behind it ({barrier_us:.1f} us) weighs", share)


def activations(site: Site, kernel: Kernel, machine: Machine) -> Reason:
    """Memory cannot keep up with what the kernel reads and writes beside its weights."""
    num_bytes = moved(site)
    level = machine.level(num_bytes)
    share = min(1.0, 2 * kernel.macs / BEST_SHARE / machine.flop(num_bytes, level))
    return Reason(f"bound by activations: {2 * kernel.macs / num_bytes:.1f} FLOP for each byte through {level}", share)


def ragged_filters(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """The last vector of filters is not full."""
    del kernel, machine
    filters, lanes = num_filters(site), site.isa.lanes
    whole = -(-filters // lanes)
    return Reason(f"M={filters} fills {filters / lanes:.3g} of {whole} vectors of {lanes}", filters / (whole * lanes), wastes=True)


def stored_zeros(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Blocks hold weights that the mask dropped: they are zeros, and multiplied."""
    del machine
    layer = (conv_layer if site.node.op == "conv" else linear_layer)(site.node, site.graph)
    kept = layer.weight.numel() if layer.mask is None else int(layer.mask.count_nonzero())
    blocks = len(kernel.arrays["start"]) - 1
    stored = kernel.arrays["w"].size * num_filters(site) / (blocks * kernel.arrays["w"].shape[-1])  # those that fill the last block aside
    share = kept / max(kept, stored)
    if kept == 0:
        return None
    groups = site.node.attributes.get("groups", 1)
    why = f"its {groups} groups" if groups > 1 and site.graph.mask(site.node) is None else "the mask"
    size = " ".join(kernel.detail.split()[:2])  # gM and gN
    return Reason(f"blocks of {size} hold {1 / share:.2f}x the weights that {why} kept", share, wastes=True)


def border_zeros(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Pixels at the edge of a small map see much of the border, whose zeros are multiplied, but for planes that template F leaves out."""
    del machine
    size = computed(site)
    if site.node.op != "conv" or max(size[1:]) > SMALL_MAP:
        return None
    layer, source = conv_layer(site.node, site.graph), lines(site.inputs[0]).size
    seen = [_seen(*axis) for axis in zip(source, size, layer.weight.shape[2:], layer.stride, layer.padding, layer.dilation, strict=True)]
    inside = np.einsum("i,j,k->ijk", *seen)  # of the pixels that each position of the kernel meets, the share inside the map
    kept = np.ones(inside.shape) if layer.mask is None else layer.mask.sum((0, 1)).numpy()
    met = np.ones(len(kept))
    if isinstance(kernel.choice, Choice):
        met = planes_of(layer, source[0], size[0], kernel.choice.tile.planes).met.mean(0)
    products = float((met[:, None, None] * kept).sum())
    share = float((inside * kept).sum()) / products if products else 1.0
    return Reason(f"a map of {map_text(size)}: {1 - share:.0%} of the products are with the border's zeros", share, wastes=True)


def _seen(source: int, result: int, taps: int, stride: int, before: int, dilation: int) -> np.ndarray:
    """Return, for each tap along an axis, the share of the results for which it lies on the map."""
    places = np.arange(result)[None] * stride - before + np.arange(taps)[:, None] * dilation
    share: np.ndarray = ((places >= 0) & (places < source)).mean(1)
    return share


def stored_sums(products: float) -> float:
    """Return the share of the time that sums of so many products are added to, not begun or stored."""
    return products / (products + STORES)


def in_flight(sums: int) -> Reason:
    """Return the reason of too few sums under way to hide how long one multiply-add takes."""
    return Reason(f"{sums} sums at a time, where two units with a latency of 4 cycles want {IN_FLIGHT}", min(1.0, sums / IN_FLIGHT))


def on_threads(number: int, what: str, num_threads: int) -> Reason:
    """Return the reason of so many equal tasks that threads share out."""
    return Reason(f"{number} {what} on {num_threads} threads", number / (num_threads * math.ceil(number / num_threads)))


def num_filters(site: Site) -> int:
    """Return M."""
    return site.node.shape[1 if site.node.op == "conv" else -1]


def computed(site: Site) -> tuple[int, int, int]:
    """Return D, H and W of what is convolved, before any pool."""
    depth, height, width = lines(site.output).size
    side = 2 if site.node.attributes.get("pool") else 1
    return depth, height * side, width * side


def moved(site: Site) -> int:
    """Return the bytes of what a layer reads and writes, its weights aside."""
    sides: list[Lines] = [lines(layout) for layout in (*site.inputs, site.output)]
    return 4 * sum(side.channels * math.prod(side.size) for side in sides)


def map_text(size: tuple[int, int, int]) -> str:
    """Return H x W, or D x H x W where there are several planes."""
    return "x".join(map(str, size if size[0] > 1 else size[1:]))


def megabytes(num_bytes: int) -> str:
    """Return a size in MB, two digits of it."""
    return f"{num_bytes / 1e6:.2g} MB"
