"""Passes: pure functions graph -> graph, each of which leaves what the graph computes as it was."""

from collections.abc import Callable, Iterable

from espalier.compiler.graph import Graph
from espalier.compiler.passes.borders import fold_borders
from espalier.compiler.passes.dead import remove_dead_channels
from espalier.compiler.passes.fusion import fuse_activations, fuse_residuals
from espalier.compiler.passes.identities import drop_identities, fold_constants
from espalier.compiler.passes.pooling import fuse_pools
from espalier.compiler.passes.row_order import group_rows
from espalier.compiler.passes.scaling import fold_scales

Pass = Callable[[Graph], Graph]
Told = Callable[[str, Graph, Graph], None]

PASSES: tuple[Pass, ...] = (
    fold_constants,
    drop_identities,
    fold_scales,
    fold_borders,
    fuse_activations,
    fuse_residuals,
    remove_dead_channels,
    group_rows,
    fuse_pools,
)


DENSE_PASSES: tuple[Pass, ...] = tuple(one for one in PASSES if one not in (remove_dead_channels, group_rows))  # zeros are weights, too


def optimised(graph: Graph, *, passes: Iterable[Pass] = PASSES, told: Told | None = None) -> Graph:
    """Return the graph after all passes, in order.

    Args:
        graph: As it was read.
        passes: Those to run.
        told: Called behind each pass with its name and the graphs before and after it; ``difference`` prints them.
    """
    for function in passes:
        after = function(graph)
        if told is not None:
            told(function.__name__, graph, after)
        graph = after
    return graph
