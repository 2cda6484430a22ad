"""What holds templates F and V back, whose lanes are filters: blocks and tiles, lists of columns, weights through memory."""

import math

import numpy as np

from espalier.compiler.isas import Isa
from espalier.compiler.layouts import lines
from espalier.compiler.lowering.convolutions import conv_layer
from espalier.compiler.lowering.filters import CLAMPED
from espalier.compiler.lowering.filters_planes import planes_of
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.filters_shares import SHARE_OF_FILTERS
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.reasons.layers import activations, computed, in_flight, map_text, megabytes, moved, on_threads, stored_sums
from espalier.compiler.reasons.machine import BEST_SHARE, WORTH, Machine, Reason


def block_size(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Blocks of other sizes run faster."""
    del machine
    choice = _choice(kernel)
    return slower_blocks(site.isa, choice.vectors, choice.channels)


def slower_blocks(isa: Isa, vectors: int, channels: int) -> Reason:
    """Return the reason of an entry loop over blocks that are not the fastest."""
    best = max(isa.efficiency, key=lambda size: isa.efficiency[size])
    own = isa.efficiency[vectors, channels] / isa.efficiency[best]
    sizes = [f"{number * isa.lanes}x{group}" for number, group in (best, (vectors, channels))]
    return Reason(f"blocks of {sizes[1]} run at {own:.2f} of the speed of blocks of {sizes[0]}", own)


def overlap(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Tiles that do not divide the map overlap."""
    del machine
    tile, size = _choice(kernel).tile, computed(site)
    times = tile.slots(size) / math.prod(size)
    return Reason(f"tiles of {tile} compute {times:.2f}x the pixels of a map of {map_text(size)}", 1 / times)


def latency(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Too few sums are under way to hide how long one multiply-add takes."""
    del site, machine
    choice = _choice(kernel)
    return in_flight(choice.tile.pixels * choice.vectors)


def short_lists(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Beginning and storing sums weighs where a block keeps few columns."""
    del machine
    columns = float(np.diff(kernel.arrays["start"]).mean()) * _choice(kernel).channels
    if site.node.op == "conv":
        layer, tile = conv_layer(site.node, site.graph), _choice(kernel).tile
        columns *= planes_of(layer, lines(site.inputs[0]).size[0], computed(site)[0], tile.planes).share
    share = stored_sums(columns)
    return Reason(f"a block keeps {columns:.0f} columns: beginning and storing its sums takes {1 - share:.0%} of the time", share)


def uneven(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Threads have unequally many pieces of work, blocks of filters on a tile."""
    blocks, tiles = len(kernel.arrays["start"]) - 1, math.prod(_choice(kernel).tile.counts(computed(site)))
    return on_threads(blocks * tiles, f"pieces, {blocks} blocks of filters on {tiles} tiles,", machine.num_threads)


def uneven_blocks(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Threads have unequally many blocks of template V, which are whole."""
    del site
    return on_threads(len(kernel.arrays["start"]) - 1, "blocks of filters", machine.num_threads)


def traffic(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Memory cannot keep up: weights that are used for few pixels, or activations that little is computed with.

    What comes from memory comes while sums are formed, however slowly.
    """
    weights, num_bytes = kernel.arrays["w"].nbytes, moved(site)
    level = machine.level(machine.network_bytes)
    weights_flop = machine.flop(weights * (1 if level == "L2" or _by_filters(kernel) else machine.num_threads), level)
    moved_flop = machine.flop(num_bytes, machine.level(num_bytes))
    slowed = math.prod(found.share for finder in (block_size, overlap, latency, short_lists) if (found := finder(site, kernel, machine)))
    share = min(1.0, 2 * kernel.macs / (BEST_SHARE * slowed) / (weights_flop + moved_flop))
    size = computed(site)
    if weights_flop > moved_flop:
        return Reason(f"map {map_text(size)}: {megabytes(weights)} of weights from {level} serve {math.prod(size)} pixels", share)
    told = activations(site, kernel, machine)
    return Reason(told.text, share)


def separate_activation(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """An activation that is not applied in registers passes over the result once more."""
    del kernel, machine
    name = site.node.attributes.get("activation")
    return None if name in CLAMPED else Reason(f"{name} passes over each block again", WORTH)


def one_row(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Template V, for one row, reads each weight for one multiply-add."""
    del site
    level = machine.level(machine.network_bytes)
    share = min(1.0, 2 * kernel.macs / machine.flop(kernel.arrays["w"].nbytes, level))
    return Reason(f"one row: each weight from {level} serves one multiply-add", share)


def _by_filters(kernel: Kernel) -> bool:
    """Return whether threads share out blocks of filters, so that each reads its own weights only."""
    return SHARE_OF_FILTERS in kernel.source


def _choice(kernel: Kernel) -> Choice:
    assert isinstance(kernel.choice, Choice), f"template {kernel.template} has no choice of blocks"
    return kernel.choice
