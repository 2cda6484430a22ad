"""What training costs: multiply-adds, and the bytes that weights, gradients, momentum, indices and activations take.

One multiply-add is one MAC; a published figure in FLOPs counts it as two. Normalisation and activation functions count nothing. Every
method that trains sparsely can be charged here: it says what it held in each epoch and how often it read dense gradients.
Source: mest, Hardware and Training FLOPs; for dense gradients RigL, arXiv 1911.11134, appendix on FLOPs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from espalier.constraints import BalancedKernels, PatternKernels, Regrown, Sparse


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Args:
        weights: Its weights.
        macs: Multiply-adds of one sample, zeros included.
    """

    weights: int
    macs: int


@dataclass(frozen=True)
class EpochCost:
    """What one epoch of training used.

    Args:
        samples: Presentations of examples.
        held: Layer -> weights held; a layer that is not named is dense.
        dense_samples: Presentations after which the gradients of all weights were computed, dead ones included.
    """

    samples: int
    held: Mapping[str, int]
    dense_samples: int = 0


def train_macs(layers: Mapping[str, Layer], epochs: Iterable[EpochCost]) -> float:
    """Return the multiply-adds of a training.

    Per sample a layer of density d takes d times its dense multiply-adds for the outputs, as many for the gradients of its inputs, and as
    many for those of its weights; where dense gradients are read, the last count in full.

    Args:
        layers: The network's layers with weights.
        epochs: What each epoch used.

    Raises:
        ValueError: An epoch names a layer that the network lacks, or holds more weights than it has.
    """
    total = Fraction(0)
    for epoch in epochs:
        _check(layers, epoch.held)
        for name, layer in layers.items():
            density = Fraction(epoch.held.get(name, layer.weights), layer.weights)
            total += layer.macs * (3 * density * epoch.samples + (1 - density) * epoch.dense_samples)
    return float(total)


@dataclass(frozen=True)
class Widths:
    """Bits of what training keeps. Source: mest, supplement: weights and gradients of 32 or 16 bits, indices of 16 or 8.

    Args:
        value: A weight, a gradient, a momentum or an activation.
        index: An index of a group.
        pointer: A row pointer, one for each filter and one more; 0 where the format needs none.
    """

    value: int = 32
    index: int = 16
    pointer: int = 0


@dataclass(frozen=True)
class Held:
    """A sparse layer at its densest.

    Args:
        constraint: The set its mask comes from.
        shape: Shape of its weight.
        weights: Weights held.
        dense: Whether a tensor of all weights stands in the place of the held gradients: the dense gradient of RigL's mutations, the dense
            momentum of SNFS, which gradients enter at once.
    """

    constraint: Regrown
    shape: Sequence[int]
    weights: int
    dense: bool = False


def index_bits(layer: Held, widths: Widths) -> float:
    """Return the bits that say where a layer's held weights are: an index a group, and the number of each kernel's pattern.

    Raises:
        ValueError: The set has no groups to index.
    """
    share = layer.weights / math.prod(layer.shape)
    pointers = (layer.shape[0] + 1) * widths.pointer
    match layer.constraint:
        case Sparse():
            return share * layer.constraint.structure.num_groups(layer.shape) * widths.index + pointers
        case BalancedKernels():
            return share * layer.shape[0] * layer.shape[1] * widths.index + pointers
        case PatternKernels():
            patterns = layer.constraint.library.patterns
            return layer.weights / len(patterns[0]) * (widths.index + math.ceil(math.log2(len(patterns)))) + pointers
    raise ValueError(
        f"{type(layer.constraint).__name__} has no groups to index; the memory of training is counted for Sparse, BalancedKernels and "
        "PatternKernels."
    )


def train_bytes(
    layers: Mapping[str, Layer],
    held: Mapping[str, Held],
    *,
    momenta: int,
    activations: int = 0,
    widths: Widths | None = None,
) -> float:
    """Return the bytes of weights, gradients, optimizer state, indices and activations.

    Args:
        layers: The network's layers with weights.
        held: Sparse layers; a layer that is not named is dense and needs no index.
        momenta: Values an optimizer keeps for each weight: 0 for plain SGD, 1 with momentum, 2 for Adam.
        activations: Values of activations kept for a batch; their gradients are counted as many again.
        widths: Bits of each; None takes 32-bit values and 16-bit indices.

    Raises:
        ValueError: ``held`` names a layer that the network lacks, holds more weights than it has, or has no groups.
    """
    widths = widths or Widths()
    _check(layers, {name: layer.weights for name, layer in held.items()})
    bits = 2.0 * activations * widths.value
    for name, layer in layers.items():
        if name not in held:
            bits += (2 + momenta) * layer.weights * widths.value
            continue
        sparse = held[name]
        gradients = layer.weights if sparse.dense else sparse.weights
        bits += ((1 + momenta) * sparse.weights + gradients) * widths.value + index_bits(sparse, widths)
    return bits / 8


def _check(layers: Mapping[str, Layer], held: Mapping[str, int]) -> None:
    for name, count in held.items():
        if name not in layers:
            raise ValueError(f"'{name}' is no layer with weights of the network; it has {', '.join(layers)}.")
        if not 0 <= count <= layers[name].weights:
            raise ValueError(f"{name} cannot hold {count:,} weights; it has {layers[name].weights:,}.")
