"""Knobs of a template that come from a file: they are what their class says, or nothing is lowered with them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Knobs = TypeVar("Knobs")


def knobs_of(kind: type[Knobs], values: Mapping[str, Any]) -> Knobs:
    """Return knobs from plain values.

    Args:
        kind: Their class, a dataclass.
        values: Name -> value, as JSON gives it; a knob that is a class of its own stands there already built.

    Raises:
        TypeError: A name is none of theirs, one is missing, or a value is of another type: a boolean is no number, nor is 2.0 whole.
    """
    made = kind(**values)
    for one in fields(made):  # type: ignore[arg-type]
        value = getattr(made, one.name)
        if not isinstance(value, one.type) or (one.type is int and isinstance(value, bool)):  # type: ignore[arg-type]
            raise TypeError(f"{one.name}={value!r} is no {getattr(one.type, '__name__', one.type)}")
    return made
