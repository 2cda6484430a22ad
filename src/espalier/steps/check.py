"""Checks: claims about an algorithm rather than a table, answered by a measured quantity."""

import itertools
from dataclasses import replace

from espalier.constraints import alternate
from espalier.constraints.assignment import prunable
from espalier.steps.context import Context
from espalier.steps.state import State
from espalier.steps.training import restored


def alternation(state: State, context: Context, *, bits: list[int], zero: bool) -> State:
    """Alternate codes and alpha on every trained layer; record the largest relative rise of the error and the rounds to convergence.

    Source: progressive-admm, M5 (claim 8): the alternation never raises ``||V - alpha Q||^2`` and settles in at most 6 rounds.

    Args:
        state: A trained network.
        context: The step's surroundings.
        bits: Bit widths to try, each on every layer.
        zero: Whether zero is a level.
    """
    model = restored(state, context)
    rise, rounds = float("-inf"), 0
    for width in bits:
        for name in prunable(model):
            errors = alternate(model.get_parameter(name).detach(), width, zero=zero)[2]
            rise = max([rise, *((after - before) / before for before, after in itertools.pairwise(errors))])
            rounds = max(rounds, len(errors))
    metrics = {**state.metrics, "check/largest_rise": rise, "check/rounds": float(rounds)}
    return replace(state, metrics=metrics)
