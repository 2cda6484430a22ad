"""Contestants: a method with its recipe, the settings of its paper, and what was chosen instead, ``conf/contestant/NAME.yaml``.

A method without such a file goes with the recipe ``one_shot`` and the settings of its own config. Users' own lie in ``ESPALIER_CONFIG``.
"""

import hashlib
import math
import random
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, model_validator

from espalier.composing import config_dir, own_config_dir
from espalier.tables.names import did_you_mean
from espalier.tables.reading import read_yaml
from espalier.tables.schema import Problem, Strict


class Contestant(Strict):
    """What takes part in a comparison under one name.

    Args:
        title: As tables and plots name it.
        recipe: A file of ``conf/recipe``.
        method: A file of ``conf/method``; None where the recipe brings its own.
        overrides: Settings that differ from those of recipe and method.
        chosen: Which settings are not its paper's but were selected, how, on what network and data; empty where its paper's stand.
        tune: Key -> ``[low, high]``, drawn log-uniformly, or a list of words, drawn from evenly.
    """

    title: str
    recipe: str
    method: str | None
    overrides: list[str] = Field(default_factory=list)
    chosen: str = ""
    tune: dict[str, list[float] | list[str]] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_ranges(self) -> "Contestant":
        for key, given in self.tune.items():
            numbers = [value for value in given if not isinstance(value, str)]
            if numbers and (len(numbers) != 2 or not 0 < numbers[0] < numbers[1]):
                raise ValueError(f"tune: {key} is {given}; write [low, high], 0 < low < high, or a list of words")
        return self

    @property
    def words(self) -> list[str]:
        """Return the overrides that make a row of it, its set and rate aside."""
        return [f"recipe={self.recipe}", *([] if self.method is None else [f"method={self.method}"]), *self.overrides]

    def trial(self, name: str, index: int) -> list[str]:
        """Return the overrides of a trial: none for trial 1, the settings as they are; later ones follow from name, key and index alone."""
        return [] if index == 1 else [f"{key}={_drawn(given, f'{name}/{key}/{index}')}" for key, given in self.tune.items()]


def _drawn(given: list[float] | list[str], seed: str) -> str:
    draw = random.Random(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little"))  # noqa: S311  no secret
    low, high = given[0], given[-1]
    if isinstance(low, str) or isinstance(high, str):
        return str(draw.choice(given))
    return f"{math.exp(draw.uniform(math.log(low), math.log(high))):.3g}"


def contestant(name: str) -> Contestant:
    """Return the contestant of that name.

    Raises:
        ValueError: Neither a contestant nor a method bears it (the message has the nearest), or its file is malformed.
    """
    files = _files("contestant")
    if name in files:
        return read_yaml(files[name], Contestant, _problems)
    methods = _files("method")
    if name in methods:
        return Contestant(title=name, recipe="one_shot", method=name, tune={"optimizers.admm.lr": [3e-3, 1e-1]})
    raise ValueError(f"method={name} is not known; {did_you_mean(name, sorted({*files, *methods}))}")


def contestant_names() -> list[str]:
    """Return the names that have a file."""
    return sorted(_files("contestant"))


def _files(group: str) -> dict[str, Path]:
    folders = [Path(folder) / group for folder in (config_dir(), own_config_dir()) if folder is not None]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _problems(read: Contestant) -> Iterator[Problem]:
    for group, name in (("recipe", read.recipe), ("method", read.method)):
        if name is not None and name not in (known := _files(group)):
            yield (group,), f"{group} '{name}' is not known; {did_you_mean(name, known)}"
