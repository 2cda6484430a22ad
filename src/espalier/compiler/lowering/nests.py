"""Loops over tensors in any layout: the fewest that visit all elements of a tensor, and beside them those of others.

Along most axes neighbours are equally far apart; along the channels of a map they are so within a line. ``nests`` cuts such an axis into
pieces along which every tensor has one distance, and gives loops over them:

    tensors (1, 40, 7, 9)   map -> map of other borders        map -> row-major
    full lines              7 rows x 2 lines, 144 floats each  2 lines x 16 lanes x 7 rows, 9 floats each
    the last line           7 rows x 9 pixels, 8 floats each   8 lanes x 7 rows, 9 floats each
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from espalier.compiler.lowering.places import Access

LONGEST_PERIOD = 64  # elements after which the pieces of an axis may repeat: lines of two maps out of step repeat after one line
CHUNK = 1024  # floats of a task where a tensor is one run


@dataclass(frozen=True)
class Axis:
    """One loop.

    Args:
        size: How often it runs.
        steps: Floats that each tensor moves on, the result last.
    """

    size: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """Elements along the innermost axis.

    Args:
        size: How many.
        starts: Floats before the first in each tensor, beside what the loops add; the result last.
        steps: Floats between neighbours in each tensor.
        fills: Whether they are no elements but the zeros of a last line, in the result only.
    """

    size: int
    starts: tuple[int, ...]
    steps: tuple[int, ...]
    fills: bool = False


@dataclass(frozen=True)
class Nest:
    """Loops, outermost first, around the runs that they share."""

    axes: tuple[Axis, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class _Piece:
    """Part of an axis along which every tensor has one distance, and how often such parts follow."""

    repeated: Axis
    run: Run


def nests(*tensors: Access, moves: bool = False, one_by_one: bool = False) -> list[Nest]:
    """Return loops that visit every element of the last tensor once, and beside it those of the others.

    Args:
        tensors: The operands, spread to one shape, and the result.
        moves: Whether values are only moved: an operand that cannot be read in the result's order is then read line by line.
        one_by_one: Whether an element stands for much work: runs become loops, which threads can share.
    """
    *_, result = tensors
    if 0 in result.shape:
        return []
    if not result.shape:
        return nests(*(tensor.spread((1,)) for tensor in tensors))
    inner = innermost(result)
    pieces = [_pieces(np.stack(terms)) for terms in zip(*(tensor.terms for tensor in tensors), strict=True)]
    if result.fill is not None:
        zeros = (0,) * (len(tensors) - 1)
        pieces[inner].append(_Piece(Axis(1, (*zeros, 0)), Run(result.fill.size, (*zeros, result.fill.start), (*zeros, 1), fills=True)))
    found: list[Nest] = []
    for outer in itertools.product(*(of_axis for axis, of_axis in enumerate(pieces) if axis != inner)):
        starts = _added([tensor.start for tensor in tensors], *(piece.run.starts for piece in outer))
        axes = [axis for piece in outer for axis in (piece.repeated, Axis(piece.run.size, piece.run.steps))]
        for repeated, group in itertools.groupby(pieces[inner], key=lambda piece: piece.repeated):
            runs = [replace(piece.run, starts=_added(starts, piece.run.starts)) for piece in group]
            nest = _simplified([*axes, repeated], runs, moves=moves)
            found += [_without_run(nest)] if one_by_one else _chunked(nest)
    return found


def _added(*vectors: Sequence[int]) -> tuple[int, ...]:
    return tuple(sum(terms) for terms in zip(*vectors, strict=True))


def innermost(result: Access) -> int:
    """Return the axis along which neighbours lie closest: the channels of a map, the last axis of a plain tensor."""
    if result.fill is not None:
        return result.fill.axis
    return min(range(len(result.terms)), key=lambda axis: (int(np.abs(np.diff(result.terms[axis])).min(initial=2**62)), -axis))


def _pieces(terms: np.ndarray) -> list[_Piece]:
    """Return an axis in pieces of one distance each; ``terms`` is ``(tensors, size)``."""
    size = terms.shape[1]
    period = next((length for length in range(1, min(size // 2, LONGEST_PERIOD) + 1) if _repeats(terms, length)), size)
    count = size // period
    once = Axis(1, (0,) * len(terms))
    repeated = Axis(count, _integers(terms[:, period] - terms[:, 0])) if count > 1 else once
    if period == 1 < size:
        return [_Piece(once, Run(size, _integers(terms[:, 0]), repeated.steps))]
    pieces = [_Piece(repeated, run) for run in _runs(terms[:, :period])]
    return pieces + [_Piece(once, run) for run in _runs(terms[:, count * period :])]


def _repeats(terms: np.ndarray, length: int) -> bool:
    """Return whether the axis goes on behind ``length`` elements as it began, everything moved by the same."""
    moves = terms[:, length:] - terms[:, :-length]
    return bool((moves == moves[:, :1]).all())


def _runs(terms: np.ndarray) -> list[Run]:
    """Return the longest runs of one distance each, taken greedily."""
    found, first, size = [], 0, terms.shape[1]
    distances = np.diff(terms, axis=1)
    while first < size:
        last = first
        while last + 1 < size and (distances[:, last] == distances[:, first]).all():
            last += 1
        steps = distances[:, first] if last > first else terms[:, 0] * 0 + 1
        found.append(Run(last + 1 - first, _integers(terms[:, first]), _integers(steps)))
        first = last + 1
    return found


def _integers(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _simplified(axes: list[Axis], runs: list[Run], *, moves: bool) -> Nest:
    """Return the nest in the order of the result's memory, with loops that go on where another ends joined to it."""
    axes = sorted((axis for axis in axes if axis.size > 1), key=lambda axis: -axis.steps[-1])
    if len(runs) == 1:
        run = runs[0]
        axes = _joined([*axes, *([Axis(run.size, run.steps)] if run.size > 1 else [])])
        if axes and (moves or run.size > 1 or axes[-1].steps[-1] == 1):
            *axes, last = axes
            runs = [replace(run, size=last.size, steps=last.steps)]
    else:
        axes = _joined(axes)
    if moves and runs[0].steps[0] != 1:
        axes.sort(key=lambda axis: axis.steps[0] == 1)
    return Nest(tuple(axes), tuple(runs))


def _joined(axes: list[Axis]) -> list[Axis]:
    found: list[Axis] = []
    for axis in axes:
        if found and found[-1].steps == tuple(step * axis.size for step in axis.steps):
            axis = Axis(found.pop().size * axis.size, axis.steps)
        found.append(axis)
    return found


def _without_run(nest: Nest) -> Nest:
    """Return the nest with its run as the innermost loop, if it is the only run."""
    if len(nest.runs) > 1 or nest.runs[0].size == 1:
        return nest
    run = nest.runs[0]
    return Nest((*nest.axes, Axis(run.size, run.steps)), (replace(run, size=1),))


def _chunked(nest: Nest) -> list[Nest]:
    """Return the nest; one that is a single long run as chunks that threads can share."""
    if nest.axes or len(nest.runs) > 1 or nest.runs[0].size < 2 * CHUNK:
        return [nest]
    run = nest.runs[0]
    count = run.size // CHUNK
    chunks = Nest((Axis(count, tuple(step * CHUNK for step in run.steps)),), (replace(run, size=CHUNK),))
    starts = _added(run.starts, [step * CHUNK * count for step in run.steps])
    rest = run.size - CHUNK * count
    return [chunks, Nest((), (replace(run, size=rest, starts=starts),))] if rest else [chunks]
