"""The words of a command line, ``key=value``: what a key is given, as text, number, truth or list. None of it needs torch."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from espalier.devices import num_cores

LARGEST_SEED = 2**32 - 1  # what is seeded by a run's seed and its epoch stays within 64 bits


def value_of(overrides: Sequence[str], key: str) -> str | None:
    """Return what follows ``key=``; None where the key is not given.

    Raises:
        ValueError: It is given twice.
    """
    values = [word.partition("=")[2] for word in overrides if word.partition("=")[0] == key]
    if len(values) > 1:
        raise ValueError(f"{key}= is given {len(values)} times ({', '.join(values)}); write one list, {key}={','.join(values)}.")
    return values[0] if values else None


def whole(overrides: Sequence[str], key: str, default: int) -> int:
    """Return the whole number that follows ``key=``.

    Raises:
        ValueError: It is none.
    """
    text = value_of(overrides, key)
    if text is not None and not re.fullmatch(r"\d+", text):
        raise ValueError(f"{key}={text} is no whole number; write {key}={default}, or another from 0 on.")
    return default if text is None else int(text)


def truth(overrides: Sequence[str], key: str) -> bool:
    """Return whether ``key=true`` is given.

    Raises:
        ValueError: What follows is neither true nor false.
    """
    value = (value_of(overrides, key) or "false").lower()
    if value not in ("true", "false"):
        raise ValueError(f"{key}={value} is neither true nor false.")
    return value == "true"


def seeds_in(overrides: Sequence[str]) -> list[int] | None:
    """Return what ``seed=0,1`` names; None where it is not given.

    Raises:
        ValueError: It is no list of whole numbers, or holds one above ``LARGEST_SEED``.
    """
    chosen = choices(overrides, "seed", [])
    for seed in chosen or []:
        if not re.fullmatch(r"\d+", seed):
            raise ValueError(f"seed={seed} is no seed; seeds are whole numbers from 0 on, such as seed=0,1,2.")
        if int(seed) > LARGEST_SEED:
            raise ValueError(f"seed={seed} is too large; the largest seed is {LARGEST_SEED}.")
    return None if chosen is None else list(map(int, chosen))


def seed_in(overrides: Sequence[str]) -> int:
    """Return the one seed that ``seed=3`` names, 0 where it is not given.

    Raises:
        ValueError: As ``seeds_in``; or it names several.
    """
    seeds = seeds_in(overrides) or [0]
    if len(seeds) > 1:
        raise ValueError(f"seed={','.join(map(str, seeds))}: this takes one seed, such as seed={seeds[0]}.")
    return seeds[0]


def choices(overrides: Sequence[str], key: str, options: Sequence[str]) -> list[str] | None:
    """Return what ``key=a,b`` or ``key=glob(*)`` names; None where the key is not given.

    Raises:
        ValueError: It is given twice, or a glob matches none of the options; the message lists them.
    """
    if (text := value_of(overrides, key)) is None:
        return None
    parsed = OverridesParser.create().parse_override(f"{key}={text}")
    if not parsed.is_sweep_override():
        return [str(parsed.value())]
    value: Any = parsed.value()
    if not hasattr(value, "filter"):
        return [str(choice) for choice in parsed.sweep_iterator()]
    if not (found := list(value.filter(list(options)))):
        raise ValueError(f"{key}={text} matches none of {', '.join(options) or 'the numbers it stands for; name them'}.")
    return found


def check_jobs(jobs: int) -> None:
    """Raise ``ValueError`` where no process would run."""
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: at least one process runs; give 1 or more, at most as many as there are cores ({num_cores()}).")


def sizes(text: str | None, key: str, like: str) -> list[int] | None:
    """Return the sizes in ``text``, such as 3x32x32; raise ``ValueError`` where it is written otherwise."""
    if text is not None and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise ValueError(f"{key}={text}: write sizes with x between them, such as {key}={like}.")
    return None if text is None else [int(size) for size in text.split("x")]
