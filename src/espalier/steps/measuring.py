"""Which steps measure this machine: what they record holds on its CPU alone."""

from collections.abc import Callable
from typing import ParamSpec

from espalier.steps.state import State

Arguments = ParamSpec("Arguments")
_MEASURING: set[Callable[..., object]] = set()


def measures(step: Callable[Arguments, State]) -> Callable[Arguments, State]:
    """Mark a step as measuring: its State, and that of steps after it, is kept by CPU and never taken on another."""
    _MEASURING.add(step)
    return step


def is_measuring(step: Callable[..., object]) -> bool:
    """Return whether a step was marked."""
    return step in _MEASURING
