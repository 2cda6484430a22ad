"""Quantization levels as sets: ``alpha * code`` with one alpha a target; n-bit uniform, powers of two, binary.

Source: progressive-admm, section M5.  Alpha and the codes are found by alternation, which never raises ``||V - alpha Q||^2``.
Departures: alpha starts anew at every projection instead of from the former refresh, so that a projection depends on its argument alone;
and it starts from the best of several values, because 20 rounds from the paper's start end far from the optimum at 5 bits and more.
``alternate`` is the paper's procedure as it stands.
Suffixes: K = magnitudes of the codes (``>= 0``, ascending), L = signed levels (ascending), A = candidates for alpha, P = probed weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.frozen import Pinned

MAX_ROUNDS = 20  # the predecessor's Caffe code alternates 20 times; 3-6 suffice (M5)
CONVERGED = 1e-4  # relative change of the squared error that ends the alternation (M5, claim 8)
STARTS = tuple(step / 10 for step in range(3, 11))  # further starts for alpha, as fractions of largest weight / largest code
NUM_SAMPLED = 2**16  # weights, at equal distances, that the starts are compared on
NUM_PROBED = 64  # weights that rule out most candidates before all weights are read


def alternate(values: Tensor, bits: int, rounds: int = MAX_ROUNDS, *, zero: bool = False) -> tuple[float, Tensor, list[float]]:
    """Fit n-bit uniform levels by turns: nearest codes for alpha, least-squares alpha for the codes (M5, joint solve).

    Args:
        values: Weights, any shape.
        bits: Bits of a code.
        rounds: Rounds at the most; it ends earlier where the error changes by less than 1e-4 of itself.
        zero: Whether zero is a level.

    Returns:
        alpha, codes (shape of ``values``), and the squared error after each round, which never rises.
    """
    levels = UniformLevels(bits, zero)
    return _alternate(values, levels.magnitudes(), levels.start(values), rounds)


def nearest_level(values: Tensor, levels_L: Tensor) -> Tensor:
    """Return the index of the level nearest to each value, int64; half-way goes to the lower level, zero thus to the negative one."""
    return torch.bucketize(values.contiguous(), (levels_L[1:] + levels_L[:-1]) / 2)


class LevelSet(ABC):
    """Weights that are all levels ``+-alpha * magnitude``, with one ``alpha >= 0`` a target that the projection fits.

    Alpha comes from the alternation and each weight goes to the level nearest to it. That is the Euclidean projection for ``Binary``; with
    more levels it is exact for that alpha, and another alpha may lie nearer. Weights that are on levels already are returned as they are.
    """

    entrywise: ClassVar[bool] = True  # the projection of a gathered vector equals gathering the projection: positions carry no meaning

    @abstractmethod
    def magnitudes(self) -> Tensor:
        """Return the codes' magnitudes, ``(K,)``, float64, ascending; a leading 0 makes zero a level."""

    @abstractmethod
    def start(self, values: Tensor) -> float:
        """Return the alpha that the paper starts the alternation from."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the kind and the knobs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the knobs."""

    def fit(self, values: Tensor) -> tuple[float, Tensor, list[float]]:
        """Return alpha, the codes and the squared error after each round.

        Raises:
            ValueError: A value is not finite, or there is none.
        """
        if not values.numel() or not values.isfinite().all():
            num_bad = int((~values.isfinite()).sum())
            raise ValueError(f"cannot fit levels to {values.numel()} weights, {num_bad} of them not finite; check the learning rate.")
        exact = _exact(values)
        magnitudes_K = self.magnitudes().to(values.device)
        if (alpha := _alpha_of_levels(exact, magnitudes_K)) is not None:
            return alpha, (exact / alpha).round(), [0.0]
        stride = max(1, exact.numel() // NUM_SAMPLED)
        sample = exact.flatten()[::stride]
        top = float(exact.abs().max() / magnitudes_K[-1])
        starts = [self.start(exact), *(fraction * top for fraction in STARTS)]
        best = min(starts, key=lambda alpha: _alternate(sample, magnitudes_K, alpha, 1)[2][0])
        return _alternate(exact, magnitudes_K, best, MAX_ROUNDS)

    def codebook(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the levels that the fit finds for each target, ``(L,)``, ascending."""
        magnitudes = self.magnitudes()
        signed = torch.cat([-magnitudes[magnitudes > 0].flip(0), magnitudes])
        books = {}
        for target, weight in weights.items():
            exact = _exact(weight)
            books[target] = signed.to(exact) * self.fit(exact)[0]
        return books

    def level_index(self, weights: Weights) -> dict[Target, Tensor]:
        """Return for each weight the index of its level in ``codebook(weights)``, int64, same shapes."""
        books = self.codebook(weights)
        return {target: nearest_level(_exact(weight), books[target]) for target, weight in weights.items()}

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return each weight's nearest level, for the alpha that the fit finds."""
        books = self.codebook(weights)
        return {target: books[target][nearest_level(_exact(weight), books[target])].to(weight.dtype) for target, weight in weights.items()}

    def freeze(self, weights: Weights) -> Pinned:
        """Return the set that holds every weight at its level."""
        return _pin(self.project(weights))


@final
class UniformLevels(LevelSet):
    """Equidistant levels: ``+-alpha * 1 .. 2^(n-1)`` without zero, ``-alpha * (2^(n-1)-1) .. alpha * (2^(n-1)-1)`` with it (M5).

    Args:
        bits: Bits n of a code, from 1 without zero and from 2 with it, to 8.
        zero: Whether zero is a level. Pruned weights own the zero already, so a pruned layer takes ``zero=False``.

    Raises:
        ValueError: ``bits`` is out of range.
    """

    def __init__(self, bits: int, zero: bool) -> None:
        self.bits, self.zero = _checked_bits(bits, zero, most=8), zero

    def magnitudes(self) -> Tensor:
        """Return ``1 .. 2^(n-1)``, or ``0 .. 2^(n-1)-1`` with zero."""
        codes = torch.arange(2 ** (self.bits - 1), dtype=torch.float64)
        return codes if self.zero else codes + 1

    def start(self, values: Tensor) -> float:
        """Return mean |V| over the non-zeros up to 2 bits, that over half the largest code, ``(2^(n-1)-1)/2``, from 3 bits on (M5)."""
        mean = _mean_magnitude(values[values != 0])
        return mean if self.bits <= 2 else mean / ((2 ** (self.bits - 1) - 1) / 2)

    def state_dict(self) -> dict[str, Any]:
        """Return the kind and the knobs."""
        return {"kind": "uniform_levels", "bits": self.bits, "zero": self.zero}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the knobs."""
        self.bits, self.zero = state["bits"], state["zero"]


@final
class PowerOfTwo(LevelSet):
    """Levels ``+-alpha * 2^j``, ``j = 0, 1, ..`` (M5, option ``pow2``): a multiplication by a code is a shift.

    Args:
        bits: Bits n of a code, to 6: 2^(n-1) magnitudes without zero, 2^(n-1)-1 with it.
        zero: Whether zero is a level.

    Raises:
        ValueError: ``bits`` is out of range.
    """

    def __init__(self, bits: int, zero: bool) -> None:
        self.bits, self.zero = _checked_bits(bits, zero, most=6), zero

    def magnitudes(self) -> Tensor:
        """Return ``1, 2, 4, ..``, after a 0 where zero is a level."""
        powers = torch.arange(2 ** (self.bits - 1) - self.zero, dtype=torch.float64).exp2()
        return torch.cat([torch.zeros(1, dtype=torch.float64), powers]) if self.zero else powers

    def start(self, values: Tensor) -> float:
        """Return the alpha whose largest level is the largest weight."""
        return float(values.abs().max() / self.magnitudes()[-1])

    def state_dict(self) -> dict[str, Any]:
        """Return the kind and the knobs."""
        return {"kind": "power_of_two", "bits": self.bits, "zero": self.zero}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the knobs."""
        self.bits, self.zero = state["bits"], state["zero"]


@final
class Binary(LevelSet):
    """``alpha * sign(V)`` with ``alpha = mean |V|``, the closed form (M5); sign(0) is -1 as in the official code."""

    def magnitudes(self) -> Tensor:
        """Return the one magnitude, 1."""
        return torch.ones(1, dtype=torch.float64)

    def start(self, values: Tensor) -> float:
        """Return mean |V|, which the alternation leaves as it is."""
        return _mean_magnitude(values)

    def state_dict(self) -> dict[str, Any]:
        """Return the kind; there is no knob."""
        return {"kind": "binary"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore nothing; there is no knob."""
        del state


@final
class Codebook:
    """A fixed list of levels a target: what is left of a level set once its scale is chosen.

    Args:
        levels: Target -> levels, ``(L,)``, ascending.
    """

    entrywise: ClassVar[bool] = True

    def __init__(self, levels: Mapping[Target, Tensor]) -> None:
        self.levels = dict(levels)

    def codebook(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the fixed levels of each target, ``(L,)``.

        Raises:
            ValueError: A target has no levels here.
        """
        if unknown := [str(target) for target in weights if target not in self.levels]:
            raise ValueError(f"the codebook holds nothing for {', '.join(unknown)}; it has {', '.join(map(str, self.levels))}.")
        return {target: self.levels[target].to(weight.device) for target, weight in weights.items()}

    def level_index(self, weights: Weights) -> dict[Target, Tensor]:
        """Return for each weight the index of its nearest level, int64, same shapes."""
        books = self.codebook(weights)
        return {target: nearest_level(_exact(weight), books[target].to(_exact(weight))) for target, weight in weights.items()}

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest level of each weight; exact, the lower one at a midpoint."""
        books, index = self.codebook(weights), self.level_index(weights)
        return {target: books[target][index[target]].to(weight.dtype) for target, weight in weights.items()}

    def freeze(self, weights: Weights) -> Pinned:
        """Return the set that holds every weight at its level."""
        return _pin(self.project(weights))

    def state_dict(self) -> dict[str, Any]:
        """Return the levels."""
        return {"kind": "codebook", "levels": {str(target): level for target, level in self.levels.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the levels."""
        self.levels = {Target.parse(name): level for name, level in state["levels"].items()}


def _pin(levels: dict[Target, Tensor]) -> Pinned:
    return Pinned(levels, {target: torch.ones_like(level, dtype=torch.bool) for target, level in levels.items()})


def _checked_bits(bits: int, zero: bool, *, most: int) -> int:
    least = 2 if zero else 1
    if not least <= bits <= most:
        raise ValueError(f"bits={bits} with zero={zero} is no level set; bits run from {least} to {most}.")
    return bits


def _exact(values: Tensor) -> Tensor:
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))  # levels of half precision would round together


def _mean_magnitude(values: Tensor) -> float:
    return float(values.double().abs().mean()) if values.numel() else 0.0


def _nearest_code(scaled: Tensor, magnitudes_K: Tensor) -> Tensor:
    return magnitudes_K[torch.bucketize(scaled.contiguous(), (magnitudes_K[1:] + magnitudes_K[:-1]) / 2)]


def _alternate(values: Tensor, magnitudes_K: Tensor, alpha: float, rounds: int) -> tuple[float, Tensor, list[float]]:
    size, magnitudes_K = values.detach().double().abs(), magnitudes_K.to(values.device)  # a weight and its code share their sign
    errors: list[float] = []
    codes = _nearest_code(size / alpha, magnitudes_K) if alpha > 0 else magnitudes_K[0].expand(size.shape)
    for _ in range(rounds):
        power = codes.square().sum()
        alpha = float((size * codes).sum() / power) if power > 0 else 0.0
        if alpha > 0:
            codes = _nearest_code(size / alpha, magnitudes_K)
        errors.append(float((size - alpha * codes).square().sum()))
        if alpha == 0 or (len(errors) > 1 and errors[-2] - errors[-1] <= CONVERGED * errors[-2]):
            break
    return alpha, torch.where(values > 0, codes, -codes).to(values.dtype), errors


def _alpha_of_levels(values: Tensor, magnitudes_K: Tensor) -> float | None:
    """Return an alpha for which each value is a level already, bit for bit; None where there is none.

    The largest value is alpha times some code, so alpha is one of the floating-point numbers next to their quotient.
    """
    size, codes_K = values.abs().flatten(), magnitudes_K.to(values)
    near_K = size.max() / codes_K[codes_K > 0]
    near_K = near_K[near_K > 0]
    spacing_K = torch.nextafter(near_K, near_K.new_tensor(torch.inf)) - near_K
    steps_S = torch.arange(-4, 5, device=values.device, dtype=values.dtype)
    alpha_A = (near_K.unsqueeze(1) + spacing_K.unsqueeze(1) * steps_S).flatten()
    alpha_A = alpha_A[alpha_A > 0]
    probed_AP = size[:NUM_PROBED] / alpha_A.unsqueeze(1)
    fits_A = (_nearest_code(probed_AP, codes_K) * alpha_A.unsqueeze(1) == size[:NUM_PROBED]).all(1)
    for alpha in alpha_A[fits_A]:
        if bool((_nearest_code(size / alpha, codes_K) * alpha == size).all()):
            return float(alpha)
    return None
