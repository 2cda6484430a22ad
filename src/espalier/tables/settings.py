"""Settings of runs: nested ones as dotted keys, and the words that a variant was asked for with."""

import shlex
from collections.abc import Iterator
from typing import Any

from espalier.record import Record


def flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, plain value) of everything below ``value``; a step of a recipe goes by its name.

    Args:
        value: Mappings and lists, nested, or a plain value.
        prefix: What all keys begin with, the last dot included.
    """
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield prefix.rstrip("."), value
        return
    for key, item in items:
        if isinstance(item, list) and len(item) == 2 and isinstance(item[1], dict):  # a step: its name, its settings
            key, item = item
        yield from flattened(item, f"{prefix}{key}.")


def changed(record: Record) -> list[str]:
    """Return the overrides in a variant's command: composing its row anew to compare the two would take seconds a run."""
    if not record.variant:
        return []
    try:
        words = shlex.split(record.command)
    except ValueError:  # a quote that nothing closes
        words = record.command.split()
    return [word for word in words[3:] if word.partition("=")[0] not in ("row", "scale", "seed")]  # after: espalier run PAPER/TABLE
