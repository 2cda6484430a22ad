"""Filters with the same kept columns become neighbours, so that one list of columns serves a whole block of them.

The order is folded into what reads the channels: columns, biases, constants by channel. Nothing is moved when the network runs.
"""

import torch
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.blocks import structure_blocks
from espalier.compiler.passes.channels import Spaces, selected

ROWS = 16  # filters that share a list of columns: one vector of the widest instruction set
GAIN = 0.02  # share of the listed columns that an order must save


def group_rows(graph: Graph) -> Graph:
    """Return the graph with the filters of pruned layers in an order that lists fewer columns, where their readers can take it.

    Left as they are: spaces of channels that several pruned layers write (residual streams), and those that must stay in order (outputs,
    concatenations, grouped convolutions, reshapes that split channels). Blocks of channels that a reader's structure cuts stay whole.
    """
    spaces = Spaces(graph)
    orders = {}
    for space in spaces.free():
        masked = [layer for layer in spaces.makers(space) if graph.mask(layer) is not None]
        if len(masked) == 1 and (order := _order(graph, spaces, space, masked[0])) is not None:
            orders[space] = order
    return selected(graph, spaces, orders) if orders else graph


def listed_columns(mask_MK: Tensor) -> int:
    """Return how many columns the blocks of rows list together: in each block, those that one of its rows keeps."""
    padded = torch.cat([mask_MK, mask_MK.new_zeros(-len(mask_MK) % ROWS, mask_MK.shape[1])])
    return int(padded.view(-1, ROWS, mask_MK.shape[1]).any(1).sum())


def _order(graph: Graph, spaces: Spaces, space: int, layer: Node) -> Tensor | None:
    """Return the order of a layer's rows; None where it saves too little."""
    mask = graph.mask(layer)
    assert mask is not None
    mask_MK = mask.flatten(1)
    unit = max(structure_blocks(graph, layer)[0], *(structure_blocks(graph, reader)[1] for reader in spaces.takers(space)), 1)
    whole = len(mask_MK) // unit * unit
    kept_UK = mask_MK[:whole].view(-1, unit, mask_MK.shape[1]).any(1)
    signatures = [(-int(kept.sum()), kept.numpy().tobytes()) for kept in kept_UK]
    units = torch.tensor(sorted(range(len(signatures)), key=signatures.__getitem__), dtype=torch.long)
    order = torch.cat([(units[:, None] * unit + torch.arange(unit)).flatten(), torch.arange(whole, len(mask_MK))])
    saves = listed_columns(mask_MK[order]) <= (1 - GAIN) * listed_columns(mask_MK)
    return order if saves and not torch.equal(order, order.sort().values) else None
