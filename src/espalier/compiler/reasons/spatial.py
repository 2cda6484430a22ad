"""What holds template S back, whose lanes are pixels: loads, pixels behind the rows' ends, and copies of the map.

Times of copies, and speeds of blocks where ``SPEEDS`` has none, are those that its rule was fitted with (``spatial_rule.COSTS``).
"""

import math

import numpy as np

from espalier.compiler.layouts import LINE, lines
from espalier.compiler.lowering.convolutions import conv_layer
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.spatial_rule import COSTS, ENTRY_SPEED
from espalier.compiler.lowering.spatial_shape import Blocks, Shape, shape_of
from espalier.compiler.reasons.layers import map_text, megabytes, on_threads, stored_sums
from espalier.compiler.reasons.machine import BEST_SHARE, Machine, Reason

# ISA and gM -> speed relative to template F's best blocks: layers of ResNet-18 pruned 4 times in groups of 4x4, with 2 threads of a Xeon of
# 2 MB of L2 a core, ran at 0.55 on maps of 56x56, 0.8 on 28x28 and 0.9 on 14x14. The rule's 0.55 is that of large maps.
SPEEDS = {("avx512", 4): 0.7}


def loads(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Blocks of few filters load a vector of pixels for few multiply-adds."""
    del machine
    filters, own = _shape(site, kernel).blocks.filters, _speed(site, kernel)
    return Reason(f"a vector of pixels is loaded for {filters} filters: {own:.2f} of the speed of template F's best blocks", own)


def row_ends(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Pixels between rows, and behind the last one of a band, are computed and dropped."""
    shape = _shape(site, kernel)
    times = _computed(shape, machine.num_threads)
    text = f"vectors of {shape.lanes} over rows of {shape.width} compute {times:.2f}x the pixels of a map of {map_text(shape.size)}"
    return Reason(text, 1 / times)


def copies(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """The map is turned to planes of pixels, and the result back to lines of channels."""
    shape = _shape(site, kernel)
    read = sum(shape.lines * LINE * shape.kernel[0] * (rows + shape.reach[1]) * shape.width for rows in bands(shape, machine.num_threads))
    written = -(-lines(site.output).channels // LINE) * LINE * math.prod(shape.size)
    own = kernel.macs * _computed(shape, machine.num_threads) / _speed(site, kernel)
    share = own / (own + COSTS[site.isa.name].copied * (read + written))
    return Reason(f"turning the map to planes of pixels and its result back takes {1 - share:.0%} of the time", share)


def short_blocks(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Beginning and storing sums weighs where a block keeps few columns."""
    del machine
    columns = float(np.diff(kernel.arrays["start"]).mean()) * _shape(site, kernel).blocks.channels
    share = stored_sums(columns)
    return Reason(f"a block keeps {columns:.0f} columns: beginning and storing its sums takes {1 - share:.0%} of the time", share)


def uneven_rows(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Threads have unequally many rows."""
    return on_threads(math.prod(_shape(site, kernel).size[:2]), "rows", machine.num_threads)


def weights_again(site: Site, kernel: Kernel, machine: Machine) -> Reason | None:
    """Every band of rows reads all weights."""
    shape, num_bytes = _shape(site, kernel), kernel.arrays["w"].nbytes
    level, number = machine.level(machine.network_bytes), len(bands(shape, machine.num_threads))
    share = min(1.0, 2 * kernel.macs / BEST_SHARE / machine.flop(num_bytes * number, level))
    return Reason(f"{number} bands of {shape.blocks.rows} rows each read {megabytes(num_bytes)} of weights from {level}", share)


def bands(shape: Shape, num_threads: int) -> list[int]:
    """Return the rows of every band that threads take."""
    height, total, found = shape.size[1], math.prod(shape.size[:2]), []
    for thread in range(num_threads):
        first, last = (edge * (total // num_threads) + min(edge, total % num_threads) for edge in (thread, thread + 1))
        while first < last:
            found.append(min(height - first % height, last - first, shape.blocks.rows))
            first += found[-1]
    return found


def _computed(shape: Shape, num_threads: int) -> float:
    """Return how many times the pixels of the map are computed."""
    return sum(shape.computed(rows) for rows in bands(shape, num_threads)) * shape.lanes / math.prod(shape.size)


def _speed(site: Site, kernel: Kernel) -> float:
    """Return how fast blocks are, relative to the best of template F."""
    blocks = _shape(site, kernel).blocks
    speed = SPEEDS.get((site.isa.name, blocks.filters), COSTS[site.isa.name].speed[blocks.filters])
    return speed * ENTRY_SPEED[blocks.channels]


def _shape(site: Site, kernel: Kernel) -> Shape:
    assert isinstance(kernel.choice, Blocks), f"template {kernel.template} has no blocks of template S"
    return shape_of(conv_layer(site.node, site.graph), lines(site.output), site.isa, kernel.choice)
