"""Kernel patterns: the support of every kernel is one of a small library; alone, or together with connectivity.

Source: privacy-pruning, P5; progressive-admm, M5: ``pattern`` and ``pattern+kernel``.
Suffixes: F = filters, C = input channels, G = kernels (F * C), P = patterns, S = positions of a kernel, row by row.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from espalier.constraints.choosing import largest, largest_in_rows
from espalier.constraints.constraint import Target, Weights
from espalier.constraints.sparse import checked_rate, kept_of
from espalier.constraints.support_set import Shapes, SupportSet

LIBRARIES = Path(__file__).parent / "libraries"
NUM_AT_ONCE = 2**15  # kernels whose energies under all patterns stay in the cache


class Library(BaseModel):
    """The patterns a kernel may take, as a library file holds them.

    Attributes:
        source: Paper or code the patterns come from.
        kernel: Height and width of the kernels.
        patterns: Kept positions of each, numbered row by row from 0; all of one size. Ties between patterns go to the earlier one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    kernel: tuple[int, int] = (3, 3)
    patterns: tuple[tuple[int, ...], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sound(self) -> "Library":
        positions = set(range(math.prod(self.kernel)))
        for pattern in self.patterns:
            if not pattern or len(set(pattern)) != len(pattern) or not positions.issuperset(pattern):
                raise ValueError(f"{list(pattern)} is no pattern of a {self.kernel[0]}x{self.kernel[1]} kernel")
        if len({len(pattern) for pattern in self.patterns}) > 1 or len(set(map(frozenset, self.patterns))) < len(self.patterns):
            raise ValueError("patterns must keep the same number of positions and differ from each other")
        return self

    def masks(self) -> Tensor:
        """Return the patterns as bool masks, ``(P, S)``."""
        masks_PS = torch.zeros(len(self.patterns), math.prod(self.kernel), dtype=torch.bool)
        return masks_PS.scatter_(1, torch.tensor(self.patterns), True)


def library(name: str) -> Library:
    """Return the library of that name, or the one in that file (``.yaml``: source, patterns, and kernel where it is not 3x3).

    Raises:
        ValueError: There is none, or the file holds something else.
    """
    path = Path(name) if name.endswith(".yaml") else LIBRARIES / f"{name}.yaml"
    try:
        return Library.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in LIBRARIES.glob("*.yaml")))
        raise ValueError(f"there is no pattern library '{name}'; there are {known}, or give the path of a .yaml file.") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"{path} is no pattern library: {error}") from error


def best_pattern(kernels_GS: Tensor, masks_PS: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each kernel the pattern that keeps the most energy, int64, and that energy, float64; ties go to the earlier pattern.

    Raises:
        ValueError: A weight is NaN.
    """
    if kernels_GS.isnan().any():
        raise ValueError(f"{int(kernels_GS.isnan().sum())} of {kernels_GS.numel()} weights are NaN; check the learning rate.")
    columns_SP = masks_PS.T.double()  # float64: squares of float32 are exact in it, and no GPU rounds its products to fewer bits
    best = [(part.double().square() @ columns_SP).max(dim=1) for part in torch.split(kernels_GS, NUM_AT_ONCE)]
    return torch.cat([part.indices for part in best]), torch.cat([part.values for part in best])


@final
class Patterns(SupportSet):
    """Weights whose kernels all have one of the library's patterns as support; the projection is exact.

    Args:
        library: Name of a built-in library (``std8``), the path of a file, or a library.
    """

    kind: ClassVar[str] = "patterns"

    def __init__(self, library: str | Library = "std8") -> None:
        self.name, self.library = _named(library)

    @property
    def label(self) -> str:
        return f"pattern {self.name}"

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            _check(self.name, self.library, shape)

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        kept = {}
        for target, weight in weights.items():
            _check(self.name, self.library, weight.shape)
            masks_PS = self.library.masks().to(weight.device)
            kept[target] = masks_PS[best_pattern(_kernels(weight), masks_PS)[0]].view(weight.shape)
        return kept

    def knobs(self) -> dict[str, Any]:
        return {"library": self.name, "patterns": [list(pattern) for pattern in self.library.patterns]}


@final
class PatternKernels(SupportSet):
    """Weights with few non-zero kernels, each of which has one of the library's patterns as support.

    Energy adds up over kernels, so keeping the kernels with the most energy under their best pattern is the exact projection.

    Args:
        rate: All / kept kernels (round half up, at least one). A library of 4 of 9 multiplies it by 2.25 in weights.
        library: Name of a built-in library (``std8``), the path of a file, or a library.
        balanced: Keep the same number of kernels in every filter (mest, section 5) instead of the best of the layer.
    """

    kind: ClassVar[str] = "pattern_kernels"

    def __init__(self, rate: float, library: str | Library = "std8", balanced: bool = False) -> None:
        self.rate = checked_rate(rate)
        self.name, self.library = _named(library)
        self.balanced = balanced

    @property
    def label(self) -> str:
        return f"pattern {self.name} kernel{' balanced' if self.balanced else ''}"

    def weights_kept(self, shape: Sequence[int]) -> float:
        """Return how many weights are kept of such a tensor."""
        rows, columns = self._pools(shape)
        return float(rows * kept_of(columns, self.rate) * len(self.library.patterns[0]))

    def max_rate(self, shape: Sequence[int]) -> float:
        """Return the largest rate that does not round to nothing."""
        return 2.0 * self._pools(shape)[1]

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            _check(self.name, self.library, shape)

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        kept = {}
        for target, weight in weights.items():
            _check(self.name, self.library, weight.shape)
            masks_PS = self.library.masks().to(weight.device)
            pattern_G, energy_G = best_pattern(_kernels(weight), masks_PS)
            rows, columns = self._pools(weight.shape)
            num_keep = kept_of(columns, self.rate)
            kept_G = largest_in_rows(energy_G.view(rows, -1), num_keep).flatten() if self.balanced else largest(energy_G, num_keep)
            kept[target] = (masks_PS[pattern_G] & kept_G.unsqueeze(1)).view(weight.shape)
        return kept

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return a random tensor, float64: each kernel has a pattern, and every set of kernels the same chance to be the largest."""
        masks_PS, num_kernels = self.library.masks(), shape[0] * shape[1]
        pattern_G = torch.randint(len(masks_PS), (num_kernels,), generator=generator)
        chance_G = torch.rand(num_kernels, generator=generator, dtype=torch.float64)
        return (masks_PS[pattern_G] * chance_G.unsqueeze(1)).view(*shape)

    def knobs(self) -> dict[str, Any]:
        return {"library": self.name, "patterns": [list(p) for p in self.library.patterns], "rate": self.rate, "balanced": self.balanced}

    def _pools(self, shape: Sequence[int]) -> tuple[int, int]:
        return (shape[0], shape[1]) if self.balanced else (1, shape[0] * shape[1])


def _named(given: str | Library) -> tuple[str, Library]:
    return (given, library(given)) if isinstance(given, str) else (given.source, given)  # the constructors' argument hides the function


def _kernels(weight: Tensor) -> Tensor:
    return weight.reshape(weight.shape[0] * weight.shape[1], -1)


def _check(name: str, patterns: Library, shape: Sequence[int]) -> None:
    if tuple(shape[2:]) != patterns.kernel:
        height, width = patterns.kernel
        raise ValueError(
            f"pattern library '{name}' is for {height}x{width} kernels, not for a weight of shape {tuple(shape)}; name the layer in "
            f"constraint.skip (constraint.include=[conv{height}x{width}] takes only those that fit), or take structure 'kernel' for it."
        )
