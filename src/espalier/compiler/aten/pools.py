"""Pooling and resizing: ATen -> ``max_pool``, ``avg_pool``, ``adaptive_avg_pool``, ``upsample``."""

from collections.abc import Callable, Sequence
from typing import Any

from espalier.compiler.aten.arithmetic import mean
from espalier.compiler.aten.building import Building, Result, UnreadableError, spread
from espalier.compiler.graph import Node

Sizes = Sequence[int]
Borders = tuple[tuple[int, int], ...]


def max_pool(
    build: Building, x: Node, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), dilation: Sizes = (1,), ceil_mode: bool = False
) -> Node:
    """Read max pooling; what ``ceil_mode`` adds is border."""
    del ceil_mode  # the result's shape says it
    size, steps, borders, apart = _windows(build, x, kernel, stride, padding, dilation)
    return build.add("max_pool", x, kernel=size, stride=steps, padding=borders, dilation=apart)


def indexed_max_pool(build: Building, x: Node, *settings: Any) -> Result:
    """Read max pooling that gives the places too."""
    return (max_pool(build, x, *settings),)


def avg_pool(
    build: Building,
    x: Node,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Node:
    """Read average pooling. What ``ceil_mode`` adds counts in no average, the border only where it is asked for."""
    del ceil_mode
    if divisor_override is not None:
        raise UnreadableError("it has a divisor of its own")
    size, steps, borders, _ = _windows(build, x, kernel, stride, padding, (1,))
    beyond = any(after > before for before, after in borders)
    if beyond and count_include_pad and any(before for before, _ in borders):
        raise UnreadableError("its average counts the border, but not what ceil_mode adds")
    return build.add("avg_pool", x, kernel=size, stride=steps, padding=borders, count_padding=count_include_pad and not beyond)


def adaptive_avg_pool(build: Building, x: Node, output: Sizes) -> Node:
    """Read average pooling to a given size: a mean or plain pooling where that is the same."""
    rank = len(output)
    given, wanted = x.shape[-rank:], build.shape[-rank:]
    if given == wanted:
        return x
    if all(size == 1 for size in wanted):
        return mean(build, x, range(len(x.shape) - rank, len(x.shape)), keepdim=True)
    kernel = _even(given, wanted)
    if kernel is None:
        return build.add("adaptive_avg_pool", x)
    return build.add("avg_pool", x, kernel=kernel, stride=kernel, padding=((0, 0),) * rank, count_padding=True)


def adaptive_max_pool(build: Building, x: Node, output: Sizes) -> Result:
    """Read max pooling to a given size."""
    rank = len(output)
    kernel = _even(x.shape[-rank:], build.shape[-rank:])
    if kernel is None:
        raise UnreadableError(f"windows from {x.shape[-rank:]} to {build.shape[-rank:]} differ in size")
    return (build.add("max_pool", x, kernel=kernel, stride=kernel, padding=((0, 0),) * rank, dilation=(1,) * rank),)


def nearest(build: Building, x: Node, output: Sizes | None, *scales: Sequence[float] | None) -> Node:
    """Read resizing that repeats the nearest value."""
    del output
    return _resized(build, x, "nearest", False, scales)


def linear(build: Building, x: Node, output: Sizes | None, align_corners: bool, *scales: Sequence[float] | None) -> Node:
    """Read resizing that interpolates between two, or two by two, neighbours."""
    del output
    return _resized(build, x, "bilinear", align_corners, scales)


def _resized(build: Building, x: Node, mode: str, align_corners: bool, scales: tuple[Sequence[float] | float | None, ...]) -> Node:
    given, wanted = x.shape[2:], build.shape[2:]
    factors = [factor for scale in scales if scale is not None for factor in (scale if isinstance(scale, Sequence) else (scale,))]
    if any(size * factor != result for size, factor, result in zip(given, factors, wanted, strict=False)):
        raise UnreadableError(f"{factors} times {given} is no whole size")
    return x if given == wanted else build.add("upsample", x, mode=mode, align_corners=align_corners)


def _windows(
    build: Building, x: Node, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes
) -> tuple[tuple[int, ...], tuple[int, ...], Borders, tuple[int, ...]]:
    rank = len(x.shape) - 2
    if max(len(kernel), len(stride), len(padding)) > rank or rank < 1:
        raise UnreadableError("its input has no batch axis")
    size, apart, border = spread(kernel, rank), spread(dilation, rank), spread(padding, rank)
    steps = spread(stride, rank) if stride else size
    borders = []
    for axis, length in enumerate(x.shape[2:]):
        reached = (build.shape[axis + 2] - 1) * steps[axis] + apart[axis] * (size[axis] - 1) + 1
        borders.append((border[axis], border[axis] + max(0, reached - length - 2 * border[axis])))
    return size, steps, tuple(borders), apart


def _even(given: Sizes, wanted: Sizes) -> tuple[int, ...] | None:
    """Return the windows that cover the map without a rest; None where there are none."""
    if any(size % result for size, result in zip(given, wanted, strict=True)):
        return None
    return tuple(size // result for size, result in zip(given, wanted, strict=True))


POOLS: dict[str, Callable[..., Result]] = {
    **{f"aten.max_pool{rank}d.default": max_pool for rank in (1, 2, 3)},
    **{f"aten.max_pool{rank}d_with_indices.default": indexed_max_pool for rank in (2, 3)},
    **{f"aten.avg_pool{rank}d.default": avg_pool for rank in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{rank}d.default": adaptive_avg_pool for rank in (1, 2, 3)},
    **{f"aten._adaptive_avg_pool{rank}d.default": adaptive_avg_pool for rank in (2, 3)},
    **{f"aten.adaptive_max_pool{rank}d.default": adaptive_max_pool for rank in (1, 2, 3)},
    **{f"aten.upsample_nearest{rank}d.{form}": nearest for rank in (1, 2, 3) for form in ("vec", "default")},
    **{f"aten.upsample_bilinear2d.{form}": linear for form in ("vec", "default")},
}
