"""Where each tensor lies in the arena, and which borders must be zeroed on every run.

First fit over lifetimes: a tensor takes the lowest place that nothing alive overlaps. Places of a tensor of the same geometry come first,
because a border that nothing else overwrites is zeroed once, when the network is opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espalier.compiler.layouts import NO_BORDER, Layout, Map

ALIGNED = 16  # floats: 64 bytes


@dataclass(frozen=True)
class Lifetime:
    """A buffer and the steps over which it holds something.

    Args:
        name: Node whose result it is.
        layout: How it lies.
        first: Step that writes it.
        last: Last step that reads it.
    """

    name: str
    layout: Layout
    first: int
    last: int

    def meets(self, other: "Lifetime") -> bool:
        """Return whether both hold something at once."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """The arena.

    Args:
        places: Node -> first float of its buffer.
        floats: Size of the arena.
        zeroed: Nodes whose border must be zeroed on every run, before they are written.
    """

    places: Mapping[str, int]
    floats: int
    zeroed: frozenset[str]


def planned(lifetimes: Sequence[Lifetime]) -> Plan:
    """Return a plan in which no two buffers that are alive at once overlap; large buffers choose first."""
    places: dict[str, int] = {}
    put: list[Lifetime] = []
    for buffer in sorted(lifetimes, key=lambda buffer: (-buffer.layout.floats, buffer.first)):
        taken = sorted((places[other.name], places[other.name] + _size(other)) for other in put if other.meets(buffer))
        same = sorted({places[other.name] for other in put if _geometry(other) == _geometry(buffer)})
        gaps = [0, *(end for _, end in taken)]
        places[buffer.name] = next(place for place in [*same, *sorted(gaps)] if _free(place, _size(buffer), taken))
        put.append(buffer)
    floats = max((places[buffer.name] + _size(buffer) for buffer in put), default=0)
    zeroed = frozenset(buffer.name for buffer in put if _overwritten(buffer, put, places))
    return Plan(places, floats, zeroed)


def _size(buffer: Lifetime) -> int:
    return -(-buffer.layout.floats // ALIGNED) * ALIGNED


def _geometry(buffer: Lifetime) -> tuple[object, ...] | None:
    return buffer.layout.geometry if isinstance(buffer.layout, Map) else None


def _free(place: int, size: int, taken: Sequence[tuple[int, int]]) -> bool:
    return all(place + size <= begin or end <= place for begin, end in taken)


def _overwritten(buffer: Lifetime, others: Sequence[Lifetime], places: Mapping[str, int]) -> bool:
    """Return whether another buffer of another geometry, or shifted, lies over this one's border."""
    if not isinstance(buffer.layout, Map) or buffer.layout.border == NO_BORDER:
        return False
    begin, end = places[buffer.name], places[buffer.name] + _size(buffer)
    for other in others:
        start = places[other.name]
        if other is buffer or start >= end or start + _size(other) <= begin:
            continue
        if start != begin or _geometry(other) != _geometry(buffer):
            return True
    return False
