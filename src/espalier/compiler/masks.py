"""Which weights pruning holds at zero: told by frozen sets and checked, or detected from the zeros of a foreign checkpoint."""

import torch
from torch import Tensor, nn

from espalier.constraints.assignment import Assignment
from espalier.constraints.constraint import Target
from espalier.constraints.frozen import Support, as_frozen
from espalier.constraints.structures import STRUCTURES, Structure

DETECTED = " (detected)"  # ends the label of a structure that was read from zeros
MIN_ZEROS = 0.03  # share of a weight that must be zero before it counts as pruned; training leaves fewer by chance
BLOCKS = ((16, 64), (16, 32), (16, 16), (32, 8), (16, 8), (8, 8), (32, 4), (16, 4), (8, 4), (4, 4), (2, 2))
LENGTHS = (64, 32, 16, 8, 4, 2)
FEW = 64  # filters and channels that refuse most structures at once; blocks end with them

Found = tuple[Tensor, str]


def frozen_masks(model: nn.Module, frozen: Assignment) -> dict[str, Found]:
    """Return parameter -> mask and label of its structure, for what frozen sets prune.

    Args:
        model: The network they were made for.
        frozen: Frozen sets.

    Raises:
        ValueError: The model lacks a target, a set is not frozen, or weights lie outside their masks; the message names layers and counts.
    """
    weights = frozen.read(model)
    sets = {target: as_frozen(constraint) for targets, constraint in frozen.parts for target in targets}
    masks: dict[str, Tensor] = {}
    labels: dict[str, str] = {}
    wrong = []
    for target, held in sets.items():
        kept = held.kept(target)
        if kept.shape != weights[target].shape:
            raise ValueError(
                f"the mask of {target} is {tuple(kept.shape)}, the weight {tuple(weights[target].shape)}; "
                "use its own model, or leave out with skip= when pruning what is replaced later."
            )
        if outside := int(((weights[target] != 0) & ~kept.to(weights[target].device)).sum()):
            wrong.append(f"{target} has {outside} of {kept.numel()}")
        mask = masks.setdefault(target.parameter, torch.ones_like(model.get_parameter(target.parameter), dtype=torch.bool))
        _part(mask, target).copy_(kept)
        labels[target.parameter] = held.structure if isinstance(held, Support) else ""
    if wrong:
        raise ValueError(f"non-zero weights lie outside their frozen sets: {', '.join(wrong)}. Project the model first: frozen.project.")
    return {name: (mask, labels[name] or structure_of(mask).label) for name, mask in masks.items() if not mask.all()}


def detected_mask(weight: Tensor) -> Found | None:
    """Return the mask of a weight's zeros and the label of a structure that explains them; None for a dense weight."""
    mask = weight != 0
    if mask.numel() == 0 or mask.count_nonzero() > (1 - MIN_ZEROS) * mask.numel():
        return None
    return mask, structure_of(mask).label + DETECTED


def structure_of(mask: Tensor) -> Structure:
    """Return the structure of fewest groups that are each kept or dropped as a whole; ``unstructured`` always is one."""
    corners = (slice(FEW),) * min(2, mask.ndim), slice(FEW), ...
    for grouping in sorted(_candidates(mask.ndim), key=lambda grouping: grouping.num_groups(mask.shape)):
        if all(_explains(grouping, mask[corner]) for corner in corners):
            return grouping
    return STRUCTURES["unstructured"]


def _explains(grouping: Structure, mask: Tensor) -> bool:
    """Return whether every group is kept or dropped as a whole."""
    return torch.equal(grouping.mask(mask.shape, grouping.scores(mask.float()) > 0), mask)


def _candidates(rank: int) -> list[Structure]:
    """Return the structures that a weight of that many axes may have, with the usual block sizes."""
    deep = rank > 2
    named = [STRUCTURES[name] for name in (("filter", "column", "channel", "kernel") if deep else ("filter", "column"))]
    named += [STRUCTURES["vanilla"].sized(blocks) for blocks in BLOCKS if deep]
    named += [STRUCTURES["kgs" if rank == 5 else "block_punched"].sized(blocks) for blocks in BLOCKS]
    named += [STRUCTURES["block_column"].sized([length]) for length in LENGTHS]
    named += [STRUCTURES["block_row"].sized([8, length]) for length in LENGTHS]  # the first size only orders its groups
    return [*named, STRUCTURES["unstructured"]]


def _part(mask: Tensor, target: Target) -> Tensor:
    if target.axis is None or target.start is None or target.stop is None:
        return mask
    return mask.narrow(target.axis, target.start, target.stop - target.start)
