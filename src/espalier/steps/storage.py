"""Checks of what pruned layers occupy: the formula against the encoder, on the masks of a run and on random ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from espalier.constraints import Pinned, prunable
from espalier.constraints.frozen import as_frozen
from espalier.constraints.sparse import kept_of
from espalier.steps.context import Context
from espalier.steps.state import State
from espalier.steps.training import restored, weights_of
from espalier.storage import bitmap_size, csr_size, dense_block, expected_bits, relative_size, stored_size

FULL_BITS = 32  # of a weight that no level set holds
AT_BITS = 4  # width of a weight that shares and overheads are given for


def stored(state: State, context: Context, *, bits: Sequence[int]) -> State:
    """Count what the layers that earlier steps froze occupy, by encoder and by formula.

    Source: admm-nn-s, A2 and A5. A layer whose kept weights form whole rows and columns is stored as a dense block, any other with relative
    indices. The formula is summed layer by layer; formula and encoder each take the index width that is best for them.

    Args:
        state: A pruned network.
        context: The step's surroundings.
        bits: Widths of a weight to count with, whatever the weights really are.

    Raises:
        ValueError: No earlier step froze anything.
    """
    if state.frozen is None:
        raise ValueError(f"step '{context.name}' counts frozen layers, but no earlier step froze any; put a constrain step before it.")
    masks, value_bits = {}, 0.0
    for targets, part in state.frozen.parts:
        frozen = as_frozen(part)
        for target in targets:
            masks[str(target)] = kept = frozen.kept(target)
            value_bits += int(kept.sum()) * (_code_bits(frozen.values[target][kept]) if isinstance(frozen, Pinned) else FULL_BITS)
    total = sum(int(mask.sum()) for mask in masks.values())
    figures = {**storage_figures(masks, bits), "bits_per_weight": value_bits / max(total, 1)}
    return replace(state, metrics={**state.metrics, **figures})


def random_masks(state: State, context: Context, *, rate: float, bits: Sequence[int]) -> State:
    """Count, as ``stored`` does, what every layer of the network would occupy if its kept weights were drawn at random.

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws the masks.
        rate: All / kept weights of each layer.
        bits: Widths of a weight to count with.
    """
    model = restored(state, context)
    generator = torch.Generator().manual_seed(context.seed)
    masks = {}
    for name in prunable(model):
        weight = model.get_parameter(name)
        order = torch.randperm(weight.numel(), generator=generator)
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[order[: kept_of(weight.numel(), rate)]] = True
        masks[name] = mask.view(weight.shape)
    return replace(state, weights=weights_of(model), metrics={**state.metrics, **storage_figures(masks, bits)})


def storage_figures(masks: Mapping[str, Tensor], bits: Sequence[int]) -> dict[str, float]:
    """Return the ``storage/`` figures of layers with these masks.

    Args:
        masks: Layer -> bool mask of its weight.
        bits: Widths of a weight.

    Raises:
        ValueError: No weight is kept.
    """
    total, kept = sum(mask.numel() for mask in masks.values()), sum(int(mask.sum()) for mask in masks.values())
    if not kept:
        raise ValueError(f"none of {total:,} weights is kept, so that there is nothing to store; lower the rate.")
    sizes = {width: [stored_size(mask, width) for mask in masks.values()] for width in bits}
    figures = {f"storage/bits/{width}": float(sum(size.bits for size in layers)) for width, layers in sizes.items()}
    places, values = sum(stored_size(mask, AT_BITS).places for mask in masks.values()), kept * AT_BITS
    figures |= {"storage/rate": total / kept, "storage/index_share": places / (places + values), "storage/overhead": 1 + places / values}
    if all(dense_block(mask) is not None for mask in masks.values()):
        return figures  # nothing to index: the formula speaks of weights that lie anywhere
    expected = {width: sum(expected_bits(int(mask.sum()), mask.numel(), width)[0] for mask in masks.values()) for width in bits}
    exact = {width: sum(relative_size(mask, width).bits for mask in masks.values()) for width in bits}
    errors = [expected[width] / exact[width] - 1 for width in bits]
    others = {
        "rows": sum(relative_size(mask, AT_BITS, by_row=True).bits for mask in masks.values()),
        "bitmap": sum(bitmap_size(mask, AT_BITS).bits for mask in masks.values()),
        "csr": sum(csr_size(mask, AT_BITS).bits for mask in masks.values()),
        "formula": sum(expected_bits(int(mask.sum()), mask.numel(), AT_BITS)[0] for mask in masks.values()),
    }
    return {
        **figures,
        **{f"storage/overhead_{name}": size / values for name, size in others.items()},
        "storage/index_share_formula": 1 - values / others["formula"],
        "storage/formula_error_min": min(errors),
        "storage/formula_error_max": max(map(abs, errors)),
    }


def _code_bits(levels: Tensor) -> int:
    """Return the bits of a code that tells the kept values of a layer apart."""
    return max(1, (len(torch.unique(levels)) - 1).bit_length())
