"""Why a layer's kernel is not faster: what holds it below the machine's peak, in words, and how much of the peak is left.

Each reason is a pure function of a layer, its kernel and the machine. Shares multiply: the product of those that slow the kernel down,
times what the best blocks reach (compiler spec, 3 and 8.2), is the share of the peak that is expected of it. Reasons that waste
multiply-adds cost time as well, but no GFLOP/s, which count every multiply-add carried out.
"""

import math
from collections.abc import Iterator, Mapping

from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.reasons import filters, layers, products, spatial, winograd
from espalier.compiler.reasons.machine import BEST_SHARE, WORTH, Finder, Machine, Reason

__all__ = ["BEST_SHARE", "REASONS", "Machine", "Reason", "expected_share", "reasons"]

REASONS: Mapping[str, tuple[Finder, ...]] = {  # template -> what may hold it back; every template that multiplies has some
    "F": (
        *(filters.block_size, filters.overlap, filters.latency, filters.short_lists, filters.uneven, filters.traffic, layers.barrier),
        *(filters.separate_activation, layers.ragged_filters, layers.stored_zeros, layers.border_zeros),
    ),
    "W": (
        *(winograd.transforms, winograd.larger_weights, winograd.winograd_blocks, winograd.winograd_latency, winograd.short_sums),
        *(winograd.uneven_groups, layers.activations, layers.barrier, winograd.overhang, winograd.unfilled_lines),
    ),
    "S": (
        *(spatial.loads, spatial.row_ends, spatial.copies, spatial.short_blocks, spatial.uneven_rows, spatial.weights_again),
        *(layers.activations, layers.barrier, layers.stored_zeros, layers.border_zeros),
    ),
    "matmul": (
        *(products.thin_tiles, products.few_sums, products.last_columns, products.short_rows, products.uneven_tiles),
        *(layers.activations, layers.barrier),
    ),
    "DW": (products.depthwise, layers.barrier),
    "V": (filters.one_row, filters.uneven_blocks, layers.barrier, layers.ragged_filters, layers.stored_zeros),
}


def reasons(site: Site, kernel: Kernel, machine: Machine) -> list[Reason]:
    """Return what holds a kernel back, the worst first; what costs under three per cent is left out."""
    return sorted((reason for reason in _found(site, kernel, machine) if reason.share < WORTH), key=lambda reason: reason.share)


def expected_share(site: Site, kernel: Kernel, machine: Machine) -> float | None:
    """Return the share of the machine's peak that is expected of a kernel; None for kernels that multiply nothing."""
    if kernel.template not in REASONS or not kernel.macs:
        return None
    return BEST_SHARE * math.prod(reason.share for reason in _found(site, kernel, machine) if not reason.wastes)


def _found(site: Site, kernel: Kernel, machine: Machine) -> Iterator[Reason]:
    for finder in REASONS.get(kernel.template, ()) if kernel.macs else ():  # pruning may leave nothing to multiply
        if (reason := finder(site, kernel, machine)) is not None:
            yield reason
