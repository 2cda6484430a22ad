"""Sparsity structures: one keep-or-drop decision per group of weights.  Suffixes: G = groups, S = members of a group."""

import difflib
import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from einops import EinopsError, parse_shape, rearrange
from torch import Tensor

from espalier.constraints.choosing import largest

AXES = re.compile(r"\([^)]*\)|\S+")  # what stands for one axis in an einops expression
NAMES = re.compile(r"[a-zA-Z]\w*")


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

    @property
    def label(self) -> str:
        """Return the name with its block sizes, such as ``block_punched 8x4``; ``structure(label)`` reads it back."""
        return f"{self.name} {'x'.join(map(str, self.blocks.values()))}" if self.blocks else self.name

    def sized(self, blocks: Sequence[int]) -> "Structure":
        """Return the structure with other block sizes, filters x channels.

        Raises:
            ValueError: It has another number of block axes, or a size is below 1.
        """
        sizes = list(blocks)
        if len(sizes) != len(self.blocks) or min(sizes, default=1) < 1:
            wanted = list(self.blocks.values()) or "none"
            raise ValueError(
                f"blocks={sizes} do not fit '{self.name}'; it takes {len(self.blocks)} sizes of 1 or more, by default {wanted}."
            )
        return replace(self, blocks=dict(zip(self.blocks, sizes, strict=True)))

    def groups(self, shape: Sequence[int]) -> Tensor:
        """Return positions in the flat weight, ``(G, S)``; padding points one past the end.

        Raises:
            ValueError: The weight has fewer axes than ``pattern`` names.
        """
        layout = self._layout(shape)
        positions = torch.arange(math.prod(shape)).view(*shape)
        index_GS = rearrange(self._padded(positions, positions.numel()), layout.pattern, **self.blocks)
        return index_GS if layout.sizes is None else index_GS[layout.sizes > 0]

    def num_groups(self, shape: Sequence[int]) -> int:
        """Return G for a weight of that shape; no memory is touched."""
        return self._layout(shape).num_groups

    def sizes(self, shape: Sequence[int]) -> Tensor:
        """Return how many weights each group has, ``(G,)``, float64; padding does not count."""
        layout = self._layout(shape)
        if layout.sizes is None:
            size = torch.tensor(math.prod(shape) / layout.num_groups, dtype=torch.float64)
            return size.expand(layout.num_groups)
        return layout.sizes[layout.sizes > 0]

    def scores(self, weight: Tensor) -> Tensor:
        """Return the energy of each group, ``(G,)``: the squared distance that dropping it costs."""
        layout = self._layout(weight.shape)
        exact = weight.to(torch.promote_types(weight.dtype, torch.float32))  # squares of half precision overflow
        score_G = layout.sums(self._padded(exact, 0).square())
        return score_G if layout.sizes is None else score_G[layout.sizes.to(score_G.device) > 0]

    def mask(self, shape: Sequence[int], kept_G: Tensor) -> Tensor:
        """Return the bool mask of ``shape`` in which the kept groups are True."""
        return self.spread(shape, kept_G)

    def spread(self, shape: Sequence[int], value_G: Tensor) -> Tensor:
        """Return the tensor of ``shape`` that holds each group's value at all its members."""
        layout = self._layout(shape)
        if layout.sizes is not None:
            real_G = layout.sizes.to(value_G.device) > 0
            value_G = torch.zeros(real_G.shape, dtype=value_G.dtype, device=value_G.device).masked_scatter(real_G, value_G)
        spread = layout.spread(value_G)[tuple(map(slice, layout.viewed))]
        if layout.view is None:
            return spread
        before, _, after = layout.view.partition(" -> ")
        return rearrange(spread, f"{after} -> {before}", **parse_shape(torch.empty(*shape, device="meta"), before))

    def project(self, weight: Tensor, num_keep: int) -> Tensor:
        """Return the nearest tensor (Euclidean) with at most ``num_keep`` non-zero groups; ties keep the lower index."""
        kept_G = largest(self.scores(weight), num_keep)
        return torch.where(self.mask(weight.shape, kept_G), weight, 0.0)

    def _layout(self, shape: Sequence[int]) -> "_Layout":
        try:
            return _layout(self.pattern, self.view, tuple(self.blocks.items()), tuple(shape))
        except EinopsError as error:
            fits = [name for name, other in STRUCTURES.items() if other is not self and _fits(other, shape)]
            near = difflib.get_close_matches(self.name, fits, n=3, cutoff=0) or ["none"]
            raise ValueError(
                f"{self.name} groups weights as '{self.pattern}'; a weight of shape {tuple(shape)} has no such axes. "
                f"Name its layer in constraint.skip, or take a structure that fits; nearest: {', '.join(near)}."
            ) from error

    def _padded(self, tensor: Tensor, padding: int) -> Tensor:
        layout = self._layout(tensor.shape)
        viewed = tensor if layout.view is None else rearrange(tensor, layout.view)
        return F.pad(viewed, layout.padding, value=padding) if layout.padding else viewed


@dataclass(frozen=True)
class _Layout:
    """How one structure lies over one shape: no group is gathered, sums and masks go through a view with one axis a name."""

    pattern: str  # without ellipsis
    view: str | None
    viewed: tuple[int, ...]  # shape before padding
    padding: tuple[int, ...]  # as F.pad takes it
    padded: tuple[int, ...]
    grid: tuple[int, ...]  # one axis a name
    groups: tuple[int, ...]  # axes of the grid that number the groups, in the pattern's order
    num_groups: int  # those of padding alone aside
    sizes: Tensor | None = None  # weights of each group, 0 for one of padding alone; None without padding

    def sums(self, padded: Tensor) -> Tensor:
        """Return the sum over each group, ``(G,)``, groups of padding alone included."""
        grid = padded.reshape(self.grid)
        members = [axis for axis in range(grid.ndim) if axis not in self.groups]
        sums = grid.sum(members, keepdim=True) if members else grid
        return sums.permute(*self.groups, *members).flatten()

    def spread(self, kept_G: Tensor) -> Tensor:
        """Return each group's entry at all its members, shape ``padded``."""
        ordered = kept_G.view([self.grid[axis] for axis in self.groups])
        ordered = ordered.permute(sorted(range(ordered.ndim), key=self.groups.__getitem__))
        shape = [size if axis in self.groups else 1 for axis, size in enumerate(self.grid)]
        return ordered.reshape(shape).expand(self.grid).reshape(self.padded)


@functools.lru_cache(maxsize=1024)
def _layout(pattern: str, view: str, blocks: tuple[tuple[str, int], ...], shape: tuple[int, ...]) -> _Layout:
    weight = torch.empty(shape, device="meta")
    spelled = None if view == "... -> ..." else _spelled(view, len(shape))
    viewed = tuple(weight.shape if spelled is None else rearrange(weight, spelled).shape)
    after = [-size % block for size, (_, block) in zip(viewed, blocks, strict=False)]
    padded = tuple(size + missing for size, missing in itertools.zip_longest(viewed, after, fillvalue=0))
    pattern = _spelled(pattern, len(viewed))
    rearrange(torch.empty(padded, device="meta"), pattern, **dict(blocks))  # refuses what does not fit
    before, _, arranged = pattern.partition("->")
    names = NAMES.findall(before)
    grid = tuple(rearrange(torch.empty(padded, device="meta"), f"{before} -> {' '.join(names)}", **dict(blocks)).shape)
    groups = tuple(names.index(name) for name in NAMES.findall(AXES.findall(arranged)[0]))
    num_groups = math.prod(grid[axis] for axis in groups)
    layout = _Layout(pattern, spelled, viewed, (), padded, grid, groups, num_groups)
    if not any(after):
        return layout
    padding = tuple(itertools.chain(*((0, missing) for missing in reversed([*after, *[0] * (len(viewed) - len(after))]))))
    size_G = layout.sums(F.pad(torch.ones(viewed, dtype=torch.float64), padding))
    return replace(layout, padding=padding, num_groups=int((size_G > 0).sum()), sizes=size_G)


def _spelled(expression: str, num_axes: int) -> str:
    """Return the expression with its ellipsis written out for a tensor of that many axes."""
    named = len([axis for axis in AXES.findall(expression.partition("->")[0]) if axis != "..."])
    return expression.replace("...", " ".join(f"axis{number}" for number in range(num_axes - named)))


def _fits(grouping: Structure, shape: Sequence[int]) -> bool:
    try:
        _layout(grouping.pattern, grouping.view, tuple(grouping.blocks.items()), tuple(shape))
    except EinopsError:
        return False
    return True


MATRIX = "f ... -> f (...)"
UNSTRUCTURED = Structure("unstructured", "... -> (...) 1", source="progressive-admm, M5: irregular")
FILTER = Structure("filter", "f ... -> f (...)", source="progressive-admm, M5: filter (row of the GEMM matrix)")
CHANNEL = Structure("channel", "f c ... -> c (f ...)", source="progressive-admm, M5: channel")
COLUMN = Structure("column", "f ... -> (...) f", source="progressive-admm, M5: column of the GEMM matrix")
KERNEL = Structure("kernel", "f c ... -> (f c) (...)", source="progressive-admm, M5: kernel (connectivity)")
BLOCK_COLUMN = Structure("block_column", "(i r) ... -> (i ...) r", {"r": 16}, "blk-rew, block columns (BCR); mest, section 5: block, r = 4")
BLOCK_ROW = Structure("block_row", "(i r) (j k) -> (i j r) k", {"r": 8, "k": 32}, "blk-rew, block rows", view=MATRIX)
BLOCK_PUNCHED = Structure("block_punched", "(i f) (j c) ... -> (i j ...) (f c)", {"f": 8, "c": 4}, "YOLObile, AAAI 2021: block-punched")
KGS = Structure("kgs", "(i f) (j c) ... -> (i j ...) (f c)", {"f": 8, "c": 4}, "RT3D, AAAI 2021: KGS")
VANILLA = Structure("vanilla", "(i f) (j c) ... -> (i j) (f c ...)", {"f": 8, "c": 4}, "RT3D, AAAI 2021: Vanilla")

STRUCTURES: dict[str, Structure] = {
    entry.name: entry for entry in (UNSTRUCTURED, FILTER, CHANNEL, COLUMN, KERNEL, BLOCK_COLUMN, BLOCK_ROW, BLOCK_PUNCHED, KGS, VANILLA)
}


def structure(name: str, blocks: Sequence[int] | None = None) -> Structure:
    """Return the built-in structure of that name or label.

    Args:
        name: ``block_punched``, or with block sizes ``block_punched 8x4``.
        blocks: Block sizes, filters x channels; None leaves those of the label or the default.

    Raises:
        ValueError: There is none; the message lists the nearest names. Or the block sizes do not fit it.
    """
    key, _, sizes = name.partition(" ")
    if key not in STRUCTURES or (sizes and not re.fullmatch(r"\d+(x\d+)*", sizes)):
        near = difflib.get_close_matches(key, STRUCTURES, n=3, cutoff=0.3) or list(STRUCTURES)
        raise ValueError(
            f"no structure is called '{name}'; nearest: {', '.join(near)}. A structure of your own is one espalier.Structure(...)."
        )
    if blocks is None and not sizes:
        return STRUCTURES[key]
    return STRUCTURES[key].sized([int(size) for size in sizes.split("x")] if blocks is None else blocks)
