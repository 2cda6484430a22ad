"""Checks of kernel patterns: the energy that libraries keep, and what the places of the kept weights cost on disk.

Suffixes: G = kernels, S = positions of a kernel.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from espalier.constraints import Library, PatternKernels, Patterns, Target, library
from espalier.constraints.patterns import best_pattern
from espalier.steps.context import Context
from espalier.steps.state import State
from espalier.steps.training import Assign, restored, weights_of

CENTRE_HEAVY = (1.0, 1.5, 1.0, 1.5, 2.0, 1.5, 1.0, 1.5, 1.0)  # deviations by position; privacy-pruning, P5
Format = Literal["kernel", "csr_relative", "csr_absolute"]
ABSOLUTE_BITS = 16  # of a column in absolute CSR
GAP_BITS = range(1, 17)  # widths that relative CSR chooses from


def energies(kernels_GS: Tensor, patterns: Library) -> tuple[float, float]:
    """Return the share of all energy that a library keeps, and the share of what each kernel's best free choice of as many keeps."""
    energy_GS = kernels_GS.double().square()
    kept = best_pattern(kernels_GS, patterns.masks().to(kernels_GS.device))[1].sum()
    best = energy_GS.topk(len(patterns.patterns[0]), dim=1).values.sum()
    return float(kept / energy_GS.sum()), float(kept / best)


def library_energy(state: State, context: Context, *, library_name: str, num_kernels: int) -> State:
    """Record the energy that a library keeps of random 3x3 kernels, Gaussian and centre-heavy (privacy-pruning, P5).

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws the kernels.
        library_name: Name of the library.
        num_kernels: Kernels to draw.
    """
    patterns = library(library_name)
    metrics = dict(state.metrics)
    for kind, deviations in (("gaussian", (1.0,) * 9), ("centre", CENTRE_HEAVY)):
        generator = torch.Generator().manual_seed(context.seed)
        kernels_GS = torch.randn(num_kernels, 9, generator=generator) * torch.tensor(deviations)
        metrics[f"check/energy_{kind}_total"], metrics[f"check/energy_{kind}_relative"] = energies(kernels_GS, patterns)
    return replace(state, weights=weights_of(restored(state, context)), metrics=metrics)


def pattern_energy(state: State, context: Context, *, constraint: Assign) -> State:
    """Record the energy that a constraint's patterns keep of a trained network's kernels, and how many of ``std8`` are among them.

    Args:
        state: A trained network.
        context: The step's surroundings.
        constraint: Gives each layer its patterns.

    Raises:
        ValueError: A layer's set is no set of patterns.
    """
    model = restored(state, context)
    kept = best = 0.0
    standard, shared = set(map(frozenset, library("std8").patterns)), 0
    for (target, *_), constrained in constraint(model).parts:
        if not isinstance(constrained, Patterns | PatternKernels):
            raise ValueError(
                f"step '{context.name}': {target} takes {type(constrained).__name__}, which has no patterns; give constraint=pattern."
            )
        weight = target.read(model)
        kernels_GS = weight.reshape(weight.shape[0] * weight.shape[1], -1)
        of_all, of_best = energies(kernels_GS, constrained.library)
        energy = float(kernels_GS.double().square().sum())
        kept, best = kept + of_all * energy, best + of_all / of_best * energy
        shared = len(standard & set(map(frozenset, constrained.library.patterns)))
    figures = {"patterns/energy_vs_best4_pct": 100.0 * kept / best, "patterns/shared_with_std8": float(shared)}
    return replace(state, metrics={**state.metrics, **figures})


@dataclass(frozen=True)
class Stored:
    """Bits of a pruned layer.

    Args:
        kernels: Kernels alive.
        weights: Weights kept.
        index_bits: Bits that say where they are, fillers and their values included.
        total_bits: Those and the weights.
    """

    kernels: int
    weights: int
    index_bits: int
    total_bits: int


def stored(mask: Tensor, layout: Format, *, num_patterns: int, weight_bits: int) -> Stored:
    """Return the bits that a layer takes.

    ``kernel`` stores one input map a kernel, and per filter the run length of each pattern (privacy-pruning, P6). ``csr_relative`` stores
    the gap to the next kept weight of the flat layer, in as many bits as make the whole smallest; a gap that does not fit takes filler
    entries, each with a weight of zero. ``csr_absolute`` stores a 16-bit column a weight. Row pointers are left out of both.

    Args:
        mask: Kept weights, bool, ``(F, C, H, W)``.
        layout: The format.
        num_patterns: Patterns in the library.
        weight_bits: Bits of a weight.
    """
    filters, channels = mask.shape[:2]
    kernels, weights = int(mask.flatten(2).any(2).sum()), int(mask.sum())
    values = weights * weight_bits
    if layout == "kernel":
        index = kernels * math.ceil(math.log2(channels)) + filters * num_patterns * math.ceil(math.log2(channels + 1))
    elif layout == "csr_absolute":
        index = weights * ABSOLUTE_BITS
    else:
        index = min(_relative_bits(mask, width, weight_bits) for width in GAP_BITS) - values
    return Stored(kernels, weights, index, values + index)


def index_storage(
    state: State, context: Context, *, layout: Format, filters: int, channels: int, rate: float, library_name: str, weight_bits: int
) -> State:
    """Record the bits of a seeded random 3x3 layer, pruned to patterns and connectivity, in one format and against the others.

    Source: privacy-pruning, P7.

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws the layer.
        layout: ``kernel``, ``csr_relative`` or ``csr_absolute``.
        filters: Filters of the layer.
        channels: Its input maps.
        rate: All / kept kernels.
        library_name: Name of the pattern library.
        weight_bits: Bits of a weight.

    Raises:
        ValueError: There is no such format.
    """
    if layout not in get_args(Format):
        raise ValueError(f"step '{context.name}': layout={layout} is not one of {', '.join(get_args(Format))}.")
    weight = torch.randn(filters, channels, 3, 3, generator=torch.Generator().manual_seed(context.seed))
    target = Target("weight")
    constraint = PatternKernels(rate, library_name)
    mask = constraint.masks({target: weight})[target]
    num_patterns = len(constraint.library.patterns)
    sizes = {name: stored(mask, name, num_patterns=num_patterns, weight_bits=weight_bits) for name in get_args(Format)}
    own, kernel = sizes[layout], sizes["kernel"]
    figures = {
        "storage/kernels": float(own.kernels),
        "storage/weights": float(own.weights),
        "storage/total_kib": own.total_bits / 8 / 1024,
        "storage/index_kbit": own.index_bits / 1000,
        "storage/index_ratio": own.index_bits / kernel.index_bits,
    }
    if layout == "kernel":
        figures["check/index_vs_csr_relative"] = sizes["csr_relative"].index_bits / own.index_bits
        figures["check/index_vs_csr_absolute"] = sizes["csr_absolute"].index_bits / own.index_bits
    return replace(state, weights=weights_of(restored(state, context)), metrics={**state.metrics, **figures})


def _relative_bits(mask: Tensor, width: int, weight_bits: int) -> int:
    """Return all bits of relative CSR with gaps of ``width`` bits; ``2**width`` zeros between kept weights take a filler entry."""
    places = mask.flatten().nonzero().squeeze(1)
    gaps = torch.diff(places, prepend=places.new_tensor([-1])) - 1
    entries = len(places) + int((gaps // 2**width).sum())
    return entries * (width + weight_bits)
