"""Sparsity structures: one keep-or-drop decision per group of weights.  Suffixes: G = groups, S = members of a group."""

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import EinopsError, rearrange
from torch import Tensor


@dataclass(frozen=True)
class Structure:
    """Weights in which whole groups are zero.

    Args:
        name: Key in ``conf/constraint`` and in every record.
        pattern: einops expression, weight -> ``groups members``.
        blocks: Size of each block axis that ``pattern`` names; the k-th entry splits weight axis k, padded where it does not divide.
        source: Paper and section the grouping comes from.
        view: Regrouping before blocks are cut, such as ``f ... -> f (...)`` for blocks of the GEMM matrix.
    """

    name: str
    pattern: str
    blocks: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    view: str = "... -> ..."

    def groups(self, shape: Sequence[int]) -> Tensor:
        """Return positions in the flat weight, ``(G, S)``; padding points one past the end.

        Raises:
            ValueError: The weight has fewer axes than ``pattern`` names.
        """
        positions = torch.arange(math.prod(shape)).view(*shape)
        return self._arrange(positions, padding=positions.numel())

    def num_groups(self, shape: Sequence[int]) -> int:
        """Return G for a weight of that shape; no memory is touched."""
        return self._arrange(torch.empty(tuple(shape), device="meta"), padding=0).shape[0]

    def scores(self, weight: Tensor) -> Tensor:
        """Return the energy of each group, ``(G,)``: the squared distance that dropping it costs."""
        exact = weight.to(torch.promote_types(weight.dtype, torch.float32))  # squares of half precision overflow
        return self._arrange(exact, padding=0).square().sum(1)

    def mask(self, shape: Sequence[int], kept_G: Tensor) -> Tensor:
        """Return the bool mask of ``shape`` in which the kept groups are True."""
        index_GS = self.groups(shape).to(kept_G.device)
        flat = torch.zeros(math.prod(shape) + 1, dtype=torch.bool, device=kept_G.device)
        return flat.index_fill(0, index_GS[kept_G].flatten(), True)[:-1].view(*shape)

    def project(self, weight: Tensor, num_keep: int) -> Tensor:
        """Return the nearest tensor (Euclidean) with at most ``num_keep`` non-zero groups; ties keep the lower index."""
        kept_G = largest(self.scores(weight), num_keep)
        return torch.where(self.mask(weight.shape, kept_G), weight, 0.0)

    def _arrange(self, tensor: Tensor, *, padding: int) -> Tensor:
        try:
            viewed = rearrange(tensor, self.view)
            missing = [(0, -size % block) for size, block in zip(viewed.shape, self.blocks.values(), strict=False)]
            missing += [(0, 0)] * (viewed.ndim - len(missing))
            if any(after for _, after in missing):
                viewed = F.pad(viewed, [*itertools.chain(*reversed(missing))], value=padding)
            return rearrange(viewed, self.pattern, **self.blocks)
        except EinopsError as error:
            raise ValueError(
                f"{self.name} groups weights as '{self.pattern}'; a weight of shape {tuple(tensor.shape)} has no such axes. "
                "Name its layer in constraint.skip."
            ) from error


def largest(score_G: Tensor, num_keep: int) -> Tensor:
    """Return the mask of the ``num_keep`` largest scores; ties keep the lower index. Selects: a sort of 25 M scores takes 4x as long.

    Raises:
        ValueError: ``num_keep`` is out of range or a score is NaN.
    """
    if not 0 <= num_keep <= score_G.numel() or score_G.isnan().any():
        num_nan = int(score_G.isnan().sum())
        raise ValueError(f"cannot keep {num_keep} of {score_G.numel()} groups, {num_nan} of them NaN; check rate and weights.")
    if num_keep == 0:
        return torch.zeros_like(score_G, dtype=torch.bool)
    threshold = score_G.kthvalue(score_G.numel() - num_keep + 1).values
    above_G = score_G > threshold
    tied = (score_G == threshold).nonzero().squeeze(1)[: num_keep - int(above_G.sum())]  # positions, ascending
    return above_G.index_fill_(0, tied, True)


UNSTRUCTURED = Structure("unstructured", "... -> (...) 1", source="progressive-admm, M5: irregular")
FILTER = Structure("filter", "f ... -> f (...)", source="progressive-admm, M5: filter (row of the GEMM matrix)")
CHANNEL = Structure("channel", "f c ... -> c (f ...)", source="progressive-admm, M5: channel")
COLUMN = Structure("column", "f ... -> (...) f", source="progressive-admm, M5: column of the GEMM matrix")

STRUCTURES: dict[str, Structure] = {entry.name: entry for entry in (UNSTRUCTURED, FILTER, CHANNEL, COLUMN)}


def structure(name: str) -> Structure:
    """Return the built-in structure of that name.

    Raises:
        ValueError: There is none; the message lists the nearest names.
    """
    if name not in STRUCTURES:
        near = difflib.get_close_matches(name, STRUCTURES, n=3, cutoff=0.3) or list(STRUCTURES)
        raise ValueError(
            f"no structure is called '{name}'; nearest: {', '.join(near)}. A structure of your own is one espalier.Structure(...)."
        )
    return STRUCTURES[name]
