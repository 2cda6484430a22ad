"""Seeded random weights and masks, for networks of which only the time matters; what they give is labelled ``weights: random``.

Time does not depend on the values, but checking outputs does: a freshly built network has biases of zero, normalisations that change
nothing and branches that start at zero, behind which a wrong kernel could hide. So these are drawn too, and batch norm is scaled to what
reaches it in the masked network, which keeps the activations of deep networks within range.

Masks keep groups drawn at random from a whole layer. Blocks of filters then keep unequally many, as they do after a projection, which
ranks the groups of the whole layer.
"""

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Support, Target
from espalier.constraints.selection import BATCH_NORMS
from espalier.constraints.support_set import Regrown

BIAS_STD = 0.1
SCALES = (0.5, 1.5)  # of normalisations and of layer scales
EMPTY_STD = 0.02  # of weights that are built as zeros
LEAST_VARIANCE = 1e-3  # of a channel, relative to the layer's mean: one that is hardly used would be blown up


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw everything that networks start with as constants: biases, scales of normalisations, and weights that are all zero."""
    for name, parameter in model.named_parameters():
        if parameter.ndim <= 1 and name.endswith("bias"):
            parameter.normal_(0.0, BIAS_STD, generator=generator)
        elif parameter.ndim <= 1:
            parameter.uniform_(*SCALES, generator=generator)
        elif not parameter.any():
            parameter.normal_(0.0, EMPTY_STD, generator=generator)


@torch.no_grad()
def prune_at_random(model: nn.Module, assignment: Assignment, generator: torch.Generator) -> Assignment:
    """Zero groups of each target drawn at random, as many as its set leaves out; return the frozen sets of what stays.

    Raises:
        ValueError: A set has no groups to draw.
    """
    parts: list[tuple[tuple[Target, ...], Support]] = []
    for targets, constraint in assignment.parts:
        if not isinstance(constraint, Regrown):
            raise ValueError(f"{type(constraint).__name__} on {targets[0]} has no groups that could be drawn at random; take a structure.")
        for target in targets:
            view = target.view(model)
            mask = constraint.masks({target: constraint.draw(view.shape, generator)})[target]
            view.masked_fill_(~mask, 0.0)
            parts.append(((target,), Support({target: mask}, constraint.label)))
    return Assignment(parts)


@torch.no_grad()
def calibrate(model: nn.Module, example: Tensor, generator: torch.Generator) -> None:
    """Give each batch normalisation a mean near zero and the mean square of what reaches it; the network is left in evaluation mode.

    The mean is not the one that was seen: ReLUs leave large means with small deviations, and a network that is all differences of those
    blows up rounding errors a hundredfold, as no trained one does, until a correct engine looks wrong.
    """

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, BATCH_NORMS)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        square_C = inputs[0].square().transpose(0, 1).flatten(1).mean(1)
        floor = max(LEAST_VARIANCE * float(square_C.mean()), torch.finfo(square_C.dtype).tiny)
        norm.running_var.copy_(square_C.clamp(min=floor))
        norm.running_mean.normal_(0.0, BIAS_STD, generator=generator).mul_(norm.running_var.sqrt())

    model.eval()
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS) and module.running_var is not None]
    handles = [norm.register_forward_pre_hook(take) for norm in norms]
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
