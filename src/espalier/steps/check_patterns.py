"""Checks of kernel patterns: the energy that libraries keep, and what the places of the kept weights cost on disk.

Suffixes: G = kernels, S = positions of a kernel.
"""

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from espalier.constraints import Library, PatternKernels, Patterns, Target, library
from espalier.constraints.patterns import best_pattern
from espalier.steps.context import Context
from espalier.steps.state import State
from espalier.steps.training import Assign, restored, weights_of
from espalier.storage import csr_size, kernel_size, relative_size

CENTRE_HEAVY = (1.0, 1.5, 1.0, 1.5, 2.0, 1.5, 1.0, 1.5, 1.0)  # deviations by position; privacy-pruning, P5
Format = Literal["kernel", "csr_relative", "csr_absolute"]
ABSOLUTE_BITS = 16  # of a column in absolute CSR


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


def index_storage(
    state: State, context: Context, *, layout: Format, filters: int, channels: int, rate: float, library_name: str, weight_bits: int
) -> State:
    """Record the bits of a seeded random 3x3 layer, pruned to patterns and connectivity, in one format and against the others.

    ``kernel`` stores one input map a kernel, and per filter the run length of each pattern (P6). ``csr_relative`` stores the gap to the
    next kept weight of the flat layer, in as many bits as make the whole smallest. ``csr_absolute`` stores a 16-bit column a weight. Row
    pointers are left out of both. Source: privacy-pruning, P7.

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
    sizes = {
        "kernel": kernel_size(mask, weight_bits, num_patterns=len(constraint.library.patterns)),
        "csr_relative": relative_size(mask, weight_bits),
        "csr_absolute": csr_size(mask, weight_bits, column_bits=ABSOLUTE_BITS, pointer_bits=0),
    }
    own, kernel = sizes[layout], sizes["kernel"]
    figures = {
        "storage/kernels": float(mask.flatten(2).any(2).sum()),
        "storage/weights": float(mask.sum()),
        "storage/total_kib": own.bits / 8 / 1024,
        "storage/index_kbit": own.places / 1000,
        "storage/index_ratio": own.places / kernel.places,
    }
    if layout == "kernel":
        figures["check/index_vs_csr_relative"] = sizes["csr_relative"].places / own.places
        figures["check/index_vs_csr_absolute"] = sizes["csr_absolute"].places / own.places
    return replace(state, weights=weights_of(restored(state, context)), metrics={**state.metrics, **figures})
