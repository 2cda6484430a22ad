"""What a comparison is asked for: the words of a command line, and all that can be refused before torch is loaded or a network built."""

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from espalier.composing import check_scale, composed_words, config_dir, near_options
from espalier.contestants import Contestant, contestant
from espalier.progress import late_sign
from espalier.words import check_jobs, seeds_in, truth, value_of, whole

if TYPE_CHECKING:
    from espalier.comparing import Comparison
    from espalier.outlining import Outline

EXPERIMENT = "compare/any"  # of conf/experiment
AXES = ("model", "data", "method", "constraint", "rate")
WORDS = (*AXES, "seed", "scale", "epochs", "tune", "jobs", "name", "dry_run")  # what a command names; the others change the config
NO_PART = ("logger", "frame")  # groups that no training depends on: they go with the runs. A frame changes what is timed: the note says so
SEEDS = {"smoke": [0], "desk": [0, 1, 2], "paper": [0, 1, 2]}
TAKEN = ("row", "paper", "table", "scale", "seed", "recipe", "rerun", "dry_run", "sparsity", "budgets", "budget")  # it sets these itself
NUM_NEAR = 3  # keys that a message names

Pairing = tuple[str, str, float | None]  # method, constraint, rate


@dataclass(frozen=True)
class Grid:
    """What is asked for.

    Args:
        model: A file of ``conf/model``.
        data: A file of ``conf/data``.
        methods: Contestants, see ``espalier.contestants``.
        constraints: Files of ``conf/constraint``.
        rates: All / kept; a set without a rate takes part once.
        epochs: Of the dense network and of the method each, and twice those of the retraining; None takes the scale's.
        overrides: Further Hydra overrides; each goes to the rows that know its key.

    Raises:
        ValueError: Something is named twice or not at all, or a rate is none.
    """

    model: str
    data: str
    methods: Sequence[str]
    constraints: Sequence[str]
    rates: Sequence[float]
    epochs: int | None = None
    overrides: Sequence[str] = ()

    def __post_init__(self) -> None:
        for key, given in (("method", self.methods), ("constraint", self.constraints), ("rate", self.rates)):
            if not given and key != "rate":
                raise ValueError(f"{key}= names nothing to compare; write {key}=NAME, or several with commas.")
            if twice := [one for index, one in enumerate(given) if one in given[:index]]:
                raise ValueError(f"{key}={','.join(map(str, given))} names {twice[0]} twice; name it once.")
        if wrong := [rate for rate in self.rates if not (math.isfinite(rate) and rate >= 1)]:
            raise ValueError(f"rate={wrong[0]:g}: a rate is all / kept, a number of 1 or more, such as rate=4,8.")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: every contestant trains for at least one; give 1 or more.")

    @property
    def budget(self) -> list[str]:
        """Return the overrides that say how long everything trains."""
        if self.epochs is None:
            return []
        return [f"epochs.train={self.epochs}", f"epochs.method={self.epochs}", f"epochs.retrain={max(1, self.epochs // 2)}"]


@dataclass(frozen=True)
class Chosen:
    """What a grid names, found: nothing of it is unknown.

    Args:
        contestants: Name -> contestant.
        pairings: The rows, in order.
        base: The config of the dense row, unresolved.
    """

    contestants: Mapping[str, Contestant]
    pairings: Sequence[Pairing]
    base: Any


@dataclass(frozen=True)
class Asked:
    """A comparison as it is asked for, with nothing in it that can be refused cheaply.

    Args:
        grid: Methods, constraints and rates on a network and data.
        chosen: What the grid names.
        scale: smoke, desk or paper.
        seeds: Of every row.
        tune: Trials of each contestant; 0 and 1 for none.
        jobs: Runs at a time.
        name: Of the table; None makes one.
        beside: Words that no training depends on.
    """

    grid: Grid
    chosen: Chosen
    scale: str
    seeds: Sequence[int]
    tune: int = 0
    jobs: int = 1
    name: str | None = None
    beside: tuple[str, ...] = ()


def asked(
    *,
    model: str,
    data: str,
    methods: Sequence[str],
    constraints: Sequence[str],
    rates: Sequence[float] = (),
    scale: str = "smoke",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    tune: int = 0,
    jobs: int = 1,
    name: str | None = None,
    overrides: Sequence[str] = (),
) -> Asked:
    """Return a comparison, checked; arguments and errors as for ``comparing.compare``."""
    if seeds is not None and not seeds:
        raise ValueError("seeds=[] names nothing to run; leave it out, or name some.")
    check_jobs(jobs)
    if tune < 0:
        raise ValueError(f"tune={tune}: the number of trials for each contestant; 0 takes the settings as they are.")
    if name is not None:
        check_name(name)
    beside = tuple(word for word in overrides if re.split(r"[.@=]", word.lstrip("+"))[0] in NO_PART)
    further = tuple(word for word in overrides if word not in beside)
    grid = Grid(model, data, tuple(methods), tuple(constraints), tuple(rates), epochs, further)
    _check_options(word for word in beside if "." not in word.partition("=")[0])
    return Asked(grid, choose(grid, scale=scale), scale, list(seeds or SEEDS[scale]), tune, jobs, name, beside)


def asked_in(words: Sequence[str]) -> Asked:
    """Return what the words of a command line ask for: ``model=``, ``data=``, ``method=a,b``, ``rate=4,8``, any ``key=value``.

    Raises:
        ValueError: As for ``compare``, or a word that is needed is missing.
    """
    given = {key: value_of(words, key) for key in WORDS}
    for key, example in (("model", "resnet8_cifar"), ("data", "digits_rgb"), ("method", "admm,mest_em"), ("constraint", "filter")):
        if not given[key]:
            near = difflib.get_close_matches(key, [_key(word) for word in words if _key(word) not in WORDS], n=1)
            meant = f" Did you mean it with {near[0]}=?" if near else ""
            raise ValueError(f"a comparison needs {key}=, such as {key}={example}; `espalier compare --help` has more.{meant}")
    return asked(
        model=str(given["model"]),
        data=str(given["data"]),
        methods=_listed(given["method"]),
        constraints=_listed(given["constraint"]),
        rates=[_rate(text) for text in _listed(given["rate"])],
        scale=given["scale"] or "smoke",
        seeds=seeds_in(words),
        epochs=None if given["epochs"] is None else whole(words, "epochs", 1),
        tune=whole(words, "tune", 0),
        jobs=whole(words, "jobs", 1),
        name=given["name"],
        overrides=[word for word in words if word.partition("=")[0] not in WORDS],
    )


def compare_words(words: Sequence[str], *, console: Console | None = None) -> "Comparison":
    """Compare what the words of a command line name: ``model=``, ``data=``, ``method=a,b``, ``rate=4,8``, any ``key=value``.

    Raises:
        ValueError: As for ``compare``, or a word that is needed is missing.
    """
    if truth(words, "dry_run"):
        raise ValueError("dry_run=true compares nothing; espalier.outline_words takes these words and says what would be done.")
    found = asked_in(words)
    with late_sign(console, "loading torch"):
        from espalier.comparing import compared  # noqa: PLC0415  nothing of the above needs it
    return compared(found, console=console)


def outline_words(words: Sequence[str], *, console: Console | None = None) -> "Outline":
    """Return what ``compare_words`` would do: contestants, epochs, what it trains and reuses, what it refuses. Trains and writes nothing.

    Raises:
        ValueError: As for ``compare_words``.
    """
    found = asked_in(words)
    with late_sign(console, "loading torch"):
        from espalier.outlining import outlined  # noqa: PLC0415
    return outlined(found, console=console)


def choose(grid: Grid, *, scale: str) -> Chosen:
    """Return what a grid names; the cheapest is checked first, and keys by composing configs, which needs no torch.

    Raises:
        ValueError: A name or key is unknown (the message has the nearest), or fewer than two pairings are asked for.
    """
    check_scale(scale)
    _check_words(grid.overrides)
    contestants = {name: contestant(name) for name in grid.methods}
    groups = [word for word in grid.overrides if (config_dir() / _key(word)).is_dir()]
    _check_options([f"model={grid.model}", f"data={grid.data}", *(f"constraint={name}" for name in grid.constraints), *groups])
    if len(grid.methods) * len(grid.constraints) * max(1, len(grid.rates)) < 2:
        raise ValueError(_TOO_FEW)
    rated = {name: _has_rate(composed_for(grid, [f"constraint={name}"], scale)) for name in grid.constraints}
    if lacking := [name for name in grid.constraints if rated[name] and not grid.rates]:
        raise ValueError(f"constraint={lacking[0]} has a rate; add rate=, such as rate=4,8.")
    pairings = [
        (method, constraint, rate)
        for constraint, method in itertools.product(grid.constraints, grid.methods)
        for rate in (grid.rates if rated[constraint] else [None])
    ]
    if len(pairings) < 2:
        raise ValueError(_TOO_FEW)
    base = OmegaConf.to_container(composed_for(grid, ["recipe=train"], scale), resolve=False)
    _check_keys(grid, contestants, base, scale)
    return Chosen(contestants, pairings, base)


_TOO_FEW = (
    "a comparison takes two contestants or more; name several with method=, constraint= or rate=. "
    "One row of a table runs with: espalier run PAPER/TABLE row=NAME"
)


def composed_for(grid: Grid, words: Sequence[str], scale: str) -> DictConfig:
    """Return the config of a row of a comparison, unresolved."""
    own = [f"model={grid.model}", f"data={grid.data}", *words]
    return composed_words([f"+experiment={EXPERIMENT}", *own[:2], f"scale={scale}", "seed=0", *grid.budget, *words], own)


def knows(plain: Any, word: str) -> bool:
    """Return whether a config has the key of an override, or the override brings it (``+key=value``) or chooses of a group."""
    key = _key(word)
    if word.startswith("+") or (config_dir() / key).is_dir():
        return True
    for part in key.split("."):
        if not isinstance(plain, Mapping) or part not in plain:
            return False
        plain = plain[part]
    return True


def check_name(name: str) -> str:
    """Return the name of a table.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(f"name={name}: a name starts with a letter and holds letters, digits, - and _, such as name=mine.")
    return name


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"rate={text} is no number; a rate is all / kept, such as rate=4,8.") from error


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _check_words(words: Sequence[str]) -> None:
    for word in words:
        key = _key(word)
        if word.startswith("~") or "=" not in word:
            raise ValueError(f"'{word}' is no key=value; a comparison takes model=, data=, method=, constraint=, rate= and any key=value.")
        if key in TAKEN:
            raise ValueError(f"{word}: a comparison sets {key} itself; leave it out.")
        if OverridesParser.create().parse_override(word).is_sweep_override():
            near = difflib.get_close_matches(key, WORDS, n=1)
            raise ValueError(
                f"{word} names several values; a comparison has method, constraint, rate and seed as its axes. "
                + (f"Did you mean {near[0]}=? " if near else "")
                + "A sweep over another key: espalier run PAPER/TABLE row=NAME KEY=a,b -m"
            )


def _check_options(words: Sequence[str] | Iterator[str]) -> None:
    """Raise ``ValueError`` where a word chooses what no file of its group is called."""
    for word in words:
        group, _, option = word.lstrip("+").partition("=")
        if option != "null" and (near := near_options([word], all_where_none_is_near=True)):
            raise ValueError(f"{group}={option} is not known.{near}")


def _has_rate(config: DictConfig) -> bool:
    return "${rate}" in str(OmegaConf.to_container(config.constraint, resolve=False))


def _check_keys(grid: Grid, contestants: Mapping[str, Contestant], base: Any, scale: str) -> None:
    """Raise ``ValueError`` with the nearest keys where no row can know the key of an override."""
    left = [word for word in grid.overrides if not knows(base, word)]
    keys = set(_dotted(base))
    first = grid.methods[0]
    pairs = [*((name, grid.constraints[0]) for name in grid.methods), *((first, name) for name in grid.constraints[1:])]
    for method, constraint in pairs:
        if not left:
            return
        words = [*contestants[method].words, f"constraint={constraint}", *([f"rate={grid.rates[0]:g}"] if grid.rates else [])]
        plain = OmegaConf.to_container(composed_for(grid, words, scale), resolve=False)
        left = [word for word in left if not knows(plain, word)]
        keys |= set(_dotted(plain))
    for word in left:
        near = difflib.get_close_matches(_key(word), sorted({*keys, *WORDS}), n=NUM_NEAR)
        told = f"Nearest keys: {', '.join(near)}." if near else "`espalier explain KEY` says what there is."
        raise ValueError(f"Could not override '{_key(word)}'. {told}")


def _dotted(content: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
