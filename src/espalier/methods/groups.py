"""What methods that act on groups share: which a set has, the set at another rate, what a layer costs, what a checkpoint fits."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from espalier.constraints import Assignment, CommonThreshold, Constraint, Grouped, Inside, Structure, Target, Threshold, Weights

AnySet = TypeVar("AnySet")


class Group(NamedTuple):
    """One grouping of one target, and how many weights each of its groups has, ``(G,)``."""

    target: Target
    structure: Structure
    sizes: Tensor


def inner(constraint: Constraint) -> Constraint:
    """Return the set that an assignment chose, whatever earlier steps froze around it."""
    return inner(constraint.inner) if isinstance(constraint, Inside) else constraint


def at_rate(constraint: AnySet, rate: float) -> AnySet:
    """Return the same set at another rate; it has one."""
    changed: Any = copy.copy(constraint)
    changed.rate = rate
    return changed  # type: ignore[no-any-return]


def check_grouped(assignment: Assignment, method: str) -> None:
    """Raise a ``ValueError`` that names the layers and the set unless every set of the assignment keeps or drops whole groups."""
    for targets, constraint in assignment.parts:
        if not isinstance(inner(constraint), Grouped):
            raise ValueError(
                f"{method} acts on the norms of groups; {', '.join(map(str, targets))} takes {type(inner(constraint)).__name__}, which has "
                "none. Take a set of groups, such as row_column, block_row_column, filter or column."
            )


def groups_of(assignment: Assignment, weights: Weights) -> list[Group]:
    """Return every grouping of every target, in the order of the assignment."""
    found: list[Group] = []
    for targets, constraint in assignment.parts:
        grouped = inner(constraint)
        assert isinstance(grouped, Grouped)  # check_grouped has passed
        for target in targets:
            weight = weights[target]
            structures = grouped.groupings(weight.shape)
            found += [Group(target, structure, structure.sizes(weight.shape).to(weight)) for structure in structures]
    return found


def units_of(assignment: Assignment, weights: Weights) -> dict[Target, float]:
    """Return what each target's set divides the RMS of a group by; 1 where it does not say."""
    parts = [(targets, inner(constraint)) for targets, constraint in assignment.parts]
    return {
        target: part.parts.unit(weights[target]) if isinstance(part, Threshold | CommonThreshold) else 1.0
        for targets, part in parts
        for target in targets
    }


def labels_of(assignment: Assignment) -> dict[str, str]:
    """Return what each target's set calls its structure, or its class where it has no name: what a checkpoint has to agree with."""
    parts = [(targets, inner(constraint)) for targets, constraint in assignment.parts]
    return {str(target): str(getattr(part, "label", type(part).__name__)) for targets, part in parts for target in targets}


def check_resumed(assignment: Assignment, kept: Mapping[str, str]) -> None:
    """Check that a checkpoint was made for these layers and structures.

    Args:
        assignment: The sets of this run.
        kept: ``labels_of`` the sets of the run that wrote the checkpoint.

    Raises:
        ValueError: They differ; the message names the first layer.
    """
    asked = labels_of(assignment)
    for name in dict.fromkeys([*asked, *kept]):
        if asked.get(name) != kept.get(name):
            raise ValueError(
                f"the checkpoint was made with structure '{kept.get(name, 'none')}' for {name}, this run asks for "
                f"'{asked.get(name, 'none')}'; start anew or use the settings it was made with."
            )


def layer_costs(assignment: Assignment, weights: Weights, method: str) -> dict[Target, float]:
    """Return the cost of each target, over the mean of all: RT3D weighs a layer's penalty by its multiply-adds so.

    Raises:
        ValueError: A set has no costs.
    """
    costs: dict[Target, float] = {}
    for targets, constraint in assignment.parts:
        given = getattr(inner(constraint), "costs", None)
        if given is None:
            raise ValueError(
                f"{method}: by_cost weighs layers by what the set's rate counts, but {type(inner(constraint)).__name__} has no costs; take "
                "row_column, block_row_column or budget with constraint.rate_of=macs, or set by_cost to false."
            )
        costs |= {target: given[target.parameter] * weights[target].numel() for target in targets}
    mean = sum(costs.values()) / len(costs)
    return {target: cost / mean for target, cost in costs.items()}


def epochs_of(fractions: Sequence[float], epochs: int, what: str) -> list[int]:
    """Return the first epoch after each fraction of a step, rising; those that fall on the step's ends or on one another are merged.

    Raises:
        ValueError: The fractions do not rise within 0 to 1.
    """
    if list(fractions) != sorted(set(fractions)) or any(not 0 < fraction < 1 for fraction in fractions):
        raise ValueError(f"{what}={list(fractions)} should rise between 0 and 1, shares of the step such as [0.2, 0.4, 0.6, 0.8].")
    return sorted({epoch for fraction in fractions if 0 < (epoch := round(fraction * epochs)) < epochs})
