"""Quantization levels as sets: n-bit uniform with one scale a target, powers of two, binary.

Source: progressive-admm, M5.  A level set may be projected onto entry by entry once its scale alpha is known (``entrywise``); the scale is
found together with the codes by alternation, which never raises ``||V - alpha Q||^2``.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.frozen import Pinned

MAX_ROUNDS = 20  # the predecessor's Caffe code alternates 20 times; 3-6 suffice (spec M5)
CONVERGED = 1e-4  # relative change of the squared error that ends the alternation

Codes = Callable[[Tensor], Tensor]


def alternate(values: Tensor, nearest: Codes, alpha: Tensor, *, max_rounds: int = MAX_ROUNDS) -> tuple[Tensor, Tensor, list[float]]:
    """Fit ``values ~ alpha * codes`` by turns: nearest codes for alpha, least-squares alpha for the codes.

    Args:
        values: Any shape.
        nearest: ``values / alpha`` -> nearest codes.
        alpha: Start, 0-d.
        max_rounds: Rounds at the most.

    Returns:
        alpha (0-d), codes (shape of ``values``), and the squared error after each round, which never rises.
    """
    errors: list[float] = []
    codes = nearest(values / alpha)
    for _ in range(max_rounds):
        power = codes.square().sum()
        if power == 0:
            break
        alpha = (values * codes).sum() / power
        codes = nearest(values / alpha)
        errors.append(float((values.double() - alpha.double() * codes.double()).square().sum()))
        if len(errors) > 1 and errors[-2] - errors[-1] <= CONVERGED * errors[-2]:
            break
    return alpha, codes, errors


def uniform_codes(scaled: Tensor, bits: int, *, zero: bool) -> Tensor:
    """Return the nearest codes of an n-bit set: ``-(2^(n-1)-1) .. 2^(n-1)-1``, or without zero ``+-1 .. +-2^(n-1)``."""
    if zero:
        return scaled.round().clamp(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
    return _sign(scaled) * scaled.abs().round().clamp(1, 2 ** (bits - 1))


class UniformLevels:
    """Equidistant levels ``alpha * code``, one alpha a target.

    Args:
        bits: Bits of a code, at least 1 without zero and 2 with it.
        zero: Whether zero is a level. Pruned weights own the zero already, so a pruned layer takes ``zero=False``.

    Raises:
        ValueError: Too few bits for the set.
    """

    entrywise: ClassVar[bool] = True

    def __init__(self, bits: int, *, zero: bool) -> None:
        if not (2 if zero else 1) <= bits <= 16:
            raise ValueError(f"bits={bits} with zero={zero} is no level set; bits run from {2 if zero else 1} to 16.")
        self.bits, self.zero = bits, zero

    def fit(self, values: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        """Return alpha (0-d), codes and the squared error of each round, starting from the spec's alpha0."""
        nonzero = values[values != 0]
        mean = nonzero.abs().mean() if nonzero.numel() else torch.ones((), dtype=values.dtype)
        alpha0 = mean if self.bits <= 2 else mean / ((2 ** (self.bits - 1) - 1) / 2)
        return alternate(values, lambda scaled: uniform_codes(scaled, self.bits, zero=self.zero), alpha0)

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the levels nearest to the weights for the alpha that the alternation finds."""
        projected = {}
        for target, weight in weights.items():
            alpha, codes, _ = self.fit(weight)
            projected[target] = alpha * codes
        return projected

    def freeze(self, weights: Weights) -> Pinned:
        """Return the set that holds every weight at its level."""
        return _pin(self.project(weights))

    def state_dict(self) -> dict[str, Any]:
        """Return the knobs."""
        return {"kind": "uniform_levels", "bits": self.bits, "zero": self.zero}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the knobs."""
        self.bits, self.zero = state["bits"], state["zero"]


class PowerOfTwo:
    """Levels ``+- alpha * 2^j``, ``j = 0 .. -(num_exponents - 1)``, alpha a power of two above the largest weight.

    Args:
        num_exponents: Number of magnitudes, at least 1.
    """

    entrywise: ClassVar[bool] = True

    def __init__(self, num_exponents: int) -> None:
        if num_exponents < 1:
            raise ValueError(f"num_exponents={num_exponents} leaves no level; give at least 1.")
        self.num_exponents = num_exponents

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest level of each weight; the boundary between 2^j and 2^(j+1) is their mean."""
        projected = {}
        for target, weight in weights.items():
            top = weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny).log2().round()
            # nearest level, not nearest exponent: 1.5 * 2^j is the midpoint
            exponent = (weight.abs() / 1.5).clamp_min(torch.finfo(weight.dtype).tiny).log2().floor() + 1
            exponent = exponent.clamp(top - self.num_exponents + 1, top)
            projected[target] = _sign(weight) * exponent.exp2()
        return projected

    def freeze(self, weights: Weights) -> Pinned:
        """Return the set that holds every weight at its level."""
        return _pin(self.project(weights))

    def state_dict(self) -> dict[str, Any]:
        """Return the knobs."""
        return {"kind": "power_of_two", "num_exponents": self.num_exponents}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the knobs."""
        self.num_exponents = state["num_exponents"]


class Binary:
    """``alpha * sign(V)`` with ``alpha = mean |V|``, the closed form; sign(0) is -1 as in the predecessor's code."""

    entrywise: ClassVar[bool] = True

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return ``mean |V| * sign(V)`` target by target."""
        return {target: weight.abs().mean() * _sign(weight) for target, weight in weights.items()}

    def freeze(self, weights: Weights) -> Pinned:
        """Return the set that holds every weight at its level."""
        return _pin(self.project(weights))

    def state_dict(self) -> dict[str, Any]:
        """Return the kind alone: there is no knob."""
        return {"kind": "binary"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class Codebook:
    """A fixed list of levels a target: what is left of a level set once its scale is chosen.

    Args:
        levels: Target -> levels, 1-d, ascending.
    """

    entrywise: ClassVar[bool] = True

    def __init__(self, levels: Mapping[Target, Tensor]) -> None:
        self.levels = dict(levels)

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest level of each weight; the lower one at a midpoint."""
        projected = {}
        for target, weight in weights.items():
            level_L = self.levels[target].to(weight)
            midpoint_L = (level_L[1:] + level_L[:-1]) / 2
            projected[target] = level_L[torch.bucketize(weight, midpoint_L)]
        return projected

    def freeze(self, weights: Weights) -> Pinned:
        """Return the set that holds every weight at its level."""
        return _pin(self.project(weights))

    def state_dict(self) -> dict[str, Any]:
        """Return the levels."""
        return {"kind": "codebook", "levels": {str(target): level for target, level in self.levels.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the levels."""
        self.levels = {Target.parse(name): level for name, level in state["levels"].items()}


def _sign(values: Tensor) -> Tensor:
    return torch.where(values > 0, 1.0, -1.0).to(values.dtype)


def _pin(levels: dict[Target, Tensor]) -> Pinned:
    return Pinned(levels, {target: torch.ones_like(level, dtype=torch.bool) for target, level in levels.items()})
