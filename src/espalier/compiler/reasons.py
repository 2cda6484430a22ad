"""Why a layer's kernel is not faster: what holds it below the machine's peak, in words, and how much of the peak is left.

Each reason is a pure function of a layer, its kernel and the machine. Shares multiply: the product of those that slow the kernel down,
times what the best blocks reach (compiler spec, 3 and 8.2), is the share of the peak that is expected of it. Reasons that waste
multiply-adds cost time as well, but no GFLOP/s, which count every multiply-add carried out.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from espalier.compiler.layouts import Lines, lines
from espalier.compiler.lowering.filters import CLAMPED
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.runtime.probing import Ceilings

BEST_SHARE = 0.9  # of the peak that F reached with the best blocks: 0.93 to 1.0 on Zen4, 0.83 to 0.90 on a Xeon (compiler spec, 3.1, 8.2)
TAP_SHARE = 0.5  # of the peak that depthwise kernels can reach: an input is loaded for every row of taps
RIDGES = {"L2": 1.0, "L3": 4.0}  # FLOP a byte at which reading keeps up with the peak, where nothing was measured
STORES = 2.0  # multiply-adds that beginning and storing a sum is worth
WORTH = 0.97  # share below which a reason is told


@dataclass(frozen=True)
class Machine:
    """What a kernel runs on.

    Args:
        num_threads: Threads that run it.
        l2_bytes: Second cache of a core.
        network_bytes: Weights of the whole network, which pass through the caches in every run.
        ceilings: What it was measured to reach; None where nobody has.
    """

    num_threads: int
    l2_bytes: int
    network_bytes: int
    ceilings: Ceilings | None = None

    def level(self, num_bytes: int) -> str:
        """Return the cache that data of that size comes from, spread over the cores."""
        return "L2" if num_bytes <= self.num_threads * self.l2_bytes else "L3"

    def flop(self, num_bytes: float, level: str) -> float:
        """Return the FLOP at peak speed in the time of reading so many bytes."""
        if self.ceilings is None:
            return num_bytes * RIDGES[level]
        return num_bytes * self.ceilings.fma_gflops / {"L2": self.ceilings.l2_gb_s, "L3": self.ceilings.l3_gb_s}[level]


@dataclass(frozen=True)
class Reason:
    """One thing that holds a kernel back.

    Args:
        text: In words.
        share: Of its speed that this leaves.
        wastes: Whether it wastes multiply-adds, which count as carried out, rather than slow them down.
    """

    text: str
    share: float
    wastes: bool = False


def block_size(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Blocks of other sizes run faster."""
    del machine
    choice, speeds = _choice(kernel), site.isa.efficiency
    best = max(speeds, key=lambda size: speeds[size])
    own = speeds[choice.vectors, choice.channels] / speeds[best]
    sizes = [f"{vectors * site.isa.lanes}x{channels}" for vectors, channels in (best, (choice.vectors, choice.channels))]
    return Reason(f"blocks of {sizes[1]} run at {own:.2f} of the speed of blocks of {sizes[0]}", own)


def overlap(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Tiles that do not divide the map overlap."""
    del machine
    tile, size = _choice(kernel).tile, _computed(site)
    times = tile.slots(size) / math.prod(size)
    return Reason(f"tiles of {tile} compute {times:.2f}x the pixels of a map of {_map(size)}", 1 / times)


def latency(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Too few sums are under way to hide how long one multiply-add takes."""
    del site, machine
    choice = _choice(kernel)
    sums, wanted = choice.tile.pixels * choice.vectors, 8  # two units, four cycles
    return Reason(f"{sums} sums at a time, where two units with a latency of 4 cycles want {wanted}", min(1.0, sums / wanted))


def short_lists(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Beginning and storing sums weighs where a block keeps few columns."""
    del site, machine
    columns = float(np.diff(kernel.arrays["start"]).mean()) * _choice(kernel).channels
    lost = STORES / (columns + STORES)
    return Reason(f"a block keeps {columns:.0f} columns: beginning and storing its sums takes {lost:.0%} of the time", 1 - lost)


def uneven(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Threads have unequally many tiles, or blocks."""
    number, what = len(kernel.arrays["start"]) - 1, "blocks of filters"
    if "_blocks(start, " not in kernel.source:
        number, what = math.prod(_choice(kernel).tile.counts(_computed(site))), "tiles"
    share = number / (machine.num_threads * math.ceil(number / machine.num_threads))
    return Reason(f"{number} {what} on {machine.num_threads} threads", share)


def barrier(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """The barrier behind a small kernel takes a good part of its time."""
    del site
    if machine.ceilings is None or machine.num_threads == 1:
        return None
    own_us, barrier_us = 2e-3 * kernel.macs / (BEST_SHARE * machine.ceilings.fma_gflops), 1e-3 * machine.ceilings.fork_join_ns
    share = own_us / (own_us + barrier_us)
    return Reason(f"so small ({own_us:.1f} us at best) that the threads' meeting behind it ({barrier_us:.1f} us) weighs", share)


def traffic(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Memory cannot keep up: weights that are used for few pixels, or activations that little is computed with."""
    weights, moved = kernel.arrays["w"].nbytes, _moved(site)
    read = weights * (1 if machine.level(machine.network_bytes) == "L2" else machine.num_threads)
    weights_flop = machine.flop(read, machine.level(machine.network_bytes))
    moved_flop = machine.flop(moved, machine.level(moved))
    share = min(1.0, 2 * kernel.macs / BEST_SHARE / (weights_flop + moved_flop))
    size = _computed(site)
    if weights_flop > moved_flop:
        level = machine.level(machine.network_bytes)
        return Reason(f"map {_map(size)}: {_megabytes(weights)} of weights from {level} serve {math.prod(size)} pixels", share)
    return Reason(f"bound by activations: {2 * kernel.macs / moved:.1f} FLOP for each byte through {machine.level(moved)}", share)


def separate_activation(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """An activation that is not applied in registers passes over the result once more."""
    del kernel, machine
    name = site.node.attributes.get("activation")
    return None if name in CLAMPED else Reason(f"{name} passes over each block again", WORTH)


def ragged_filters(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """The last vector of filters is not full."""
    del kernel, machine
    filters, lanes = _filters(site), site.isa.lanes
    whole = -(-filters // lanes)
    return Reason(f"M={filters} fills {filters / lanes:.3g} of {whole} vectors of {lanes}", filters / (whole * lanes), wastes=True)


def stored_zeros(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Blocks hold weights that the mask dropped: they are zeros, and multiplied."""
    del machine
    mask, key = site.graph.mask(site.node), site.node.constants["weight"]
    kept = site.graph.constants[key].numel() if mask is None else int(mask.count_nonzero())
    blocks = len(kernel.arrays["start"]) - 1
    stored = kernel.arrays["w"].size * _filters(site) / (blocks * _block_filters(kernel))  # those that fill the last block aside
    share = kept / max(kept, stored)
    if kept == 0:
        return None
    groups = site.node.attributes.get("groups", 1)
    why = f"its {groups} groups" if groups > 1 and mask is None else "the mask"
    return Reason(f"blocks of {kernel.detail.split(' tile')[0]} hold {1 / share:.2f}x the weights that {why} kept", share, wastes=True)


def depthwise(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """A depthwise kernel reads an input for few multiply-adds."""
    moved = _moved(site)
    share = min(TAP_SHARE, 2 * kernel.macs / machine.flop(moved, machine.level(moved)))
    what = "activations" if share < TAP_SHARE else "loads"
    return Reason(f"depthwise: bound by {what}, {2 * kernel.macs / moved:.1f} FLOP for each byte through {machine.level(moved)}", share)


def one_row(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Template V, for one row, reads each weight for one multiply-add."""
    del site
    level = machine.level(machine.network_bytes)
    share = min(1.0, 2 * kernel.macs / machine.flop(kernel.arrays["w"].nbytes, level))
    return Reason(f"one row: each weight from {level} serves one multiply-add", share)


Finder = Callable[[Site, Kernel, Machine], Reason | None]
REASONS: Mapping[str, tuple[Finder, ...]] = {  # template -> what may hold it back
    "F": (block_size, overlap, latency, short_lists, uneven, traffic, barrier, separate_activation, ragged_filters, stored_zeros),
    "DW": (depthwise, barrier),
    "V": (one_row, uneven, barrier, ragged_filters, stored_zeros),
}


def reasons(site: Site, kernel: Kernel, machine: Machine) -> list[Reason]:
    """Return what holds a kernel back, the worst first; what costs under three per cent is left out."""
    return sorted((reason for reason in _found(site, kernel, machine) if reason.share < WORTH), key=lambda reason: reason.share)


def expected_share(site: Site, kernel: Kernel, machine: Machine) -> float | None:
    """Return the share of the machine's peak that is expected of a kernel; None for templates without reasons."""
    if kernel.template not in REASONS or not kernel.macs:
        return None
    return BEST_SHARE * math.prod(reason.share for reason in _found(site, kernel, machine) if not reason.wastes)


def _found(site: Site, kernel: Kernel, machine: Machine) -> Iterator[Reason]:
    for finder in REASONS.get(kernel.template, ()):
        if (reason := finder(site, kernel, machine)) is not None:
            yield reason


def _filters(site: Site) -> int:
    return site.node.shape[1 if site.node.op == "conv" else -1]


def _block_filters(kernel: Kernel) -> int:
    return int(kernel.arrays["w"].shape[-1])


def _choice(kernel: Kernel) -> Choice:
    assert isinstance(kernel.choice, Choice), f"template {kernel.template} has no choice of blocks"
    return kernel.choice


def _computed(site: Site) -> tuple[int, int, int]:
    """Return D, H and W of what is convolved, before any pool."""
    depth, height, width = lines(site.output).size
    side = 2 if site.node.attributes.get("pool") else 1
    return depth, height * side, width * side


def _moved(site: Site) -> int:
    """Return the bytes of what a layer reads and writes, its weights aside."""
    sides: list[Lines] = [lines(layout) for layout in (*site.inputs, site.output)]
    return 4 * sum(side.channels * math.prod(side.size) for side in sides)


def _map(size: tuple[int, int, int]) -> str:
    return "x".join(map(str, size if size[0] > 1 else size[1:]))


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.2g} MB"
