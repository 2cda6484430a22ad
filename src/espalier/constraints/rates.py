"""``assign``: from a model, globs and rates to an ``Assignment``; and the papers' rate files."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from espalier.constraints.assignment import Assignment, Part, prunable
from espalier.constraints.constraint import Constraint, Target
from espalier.constraints.sparse import Sparse


class RateFile(BaseModel):
    """A paper's split of a rate over the layers of one network, with where it comes from.

    Attributes:
        source: Paper and table, or who proposes the split.
        provenance: How it came to us, in the words of the published tables.
        kept: Glob -> weights kept; empty where the file gives rates.
        rates: Glob -> all / kept; empty where the file gives counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    provenance: Literal["full text", "official repo", "abstract", "secondary source", "from memory", "derived", "proposal"]
    kept: dict[str, int] = Field(default_factory=dict)
    rates: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_both(self) -> "RateFile":
        if bool(self.kept) == bool(self.rates):
            raise ValueError("give kept or rates, one of both")
        return self


def read_rate_file(path: str | Path) -> RateFile:
    """Read ``source``, ``provenance`` and either ``kept`` (weights) or ``rates`` (all / kept) by layer.

    Raises:
        ValueError: The file is missing or not of that form; the message names file and key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeated(yaml.compose(text, Loader=yaml.SafeLoader), path)
        content = yaml.safe_load(text)
    except FileNotFoundError as error:
        near = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise ValueError(f"there is no rate file {path}; rate files there: {near}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    try:
        return RateFile.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'file'}: {entry['msg']}" for entry in error.errors())
        raise ValueError(f"{path} is no rate file: {wrong}. It should hold source, provenance, and one of kept and rates.") from error


def _refuse_repeated(node: yaml.Node | None, path: Path) -> None:
    """Raise ``ValueError`` where a key stands twice, of which YAML would silently take the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise ValueError(f"{path}:{key.start_mark.line + 1}: key '{key.value}' stands here a second time; remove one.")
        seen.add(key.value)
        _refuse_repeated(value, path)


def matching(pattern: str, names: Sequence[str], key: str) -> list[str]:
    """Return the parameters a glob means, by parameter name or by module name (``conv1`` is ``conv1.weight``).

    Raises:
        ValueError: It means none; the message lists the nearest names.
    """
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)]
    if not found:
        near = difflib.get_close_matches(pattern, [*names, *(name.rpartition(".")[0] for name in names)], n=3, cutoff=0.3) or names
        raise ValueError(f"{key}: '{pattern}' matches no linear, convolution or recurrent layer; nearest: {', '.join(near)}.")
    return found


def assign(
    model: nn.Module,
    make: Callable[..., Constraint],
    *,
    rate: float | None = None,
    rates: Mapping[str, float] | None = None,
    kept: Mapping[str, int] | None = None,
    include: Sequence[str] = ("*",),
    skip: Sequence[str] = (),
) -> Assignment:
    """Give every chosen weight a constraint of its own.

    A glob means weights by their name or their module's (``conv1`` is ``conv1.weight``).
    In ``rates`` and ``kept`` a full name beats a glob.

    Args:
        model: The network.
        make: Builds the set, ``make(rate=...)`` for sets that have a rate, such as ``partial(Sparse, FILTER)``, and ``make()`` for others.
        rate: All / kept groups, for the layers that ``rates`` and ``kept`` do not name. None leaves those out.
        rates: Glob -> rate.
        kept: Glob -> weights to keep in each match, rounded to whole groups.
        include: Globs of the layers that take part.
        skip: Globs of the layers that do not.

    Raises:
        ValueError: A glob matches nothing, a layer has two rates or is named and skipped, a count is out of range, the set takes no rate
            or lacks one, a layer does not fit the structure, or none is left.
    """
    names = prunable(model)
    chosen = {name for pattern in include for name in matching(pattern, names, "constraint.include")}
    chosen -= {name for pattern in skip for name in matching(pattern, names, "constraint.skip")}
    layer_rates: dict[str, float | None]
    if takes_rate(make):
        layer_rates = {name: rate for name in names if name in chosen and rate is not None}
        layer_rates |= _named_rates(model, names, chosen, rates or {}, kept or {})
        if not layer_rates and chosen:
            raise ValueError(f"{_name(make)} needs a rate; give constraint.rate, or constraint.rates, kept or rate_file by layer.")
    elif rate is not None or rates or kept:
        raise ValueError(f"{_name(make)} takes no rate, but rate={rate}, rates={rates}, kept={kept} are given; set them to null.")
    else:
        layer_rates = dict.fromkeys(chosen)
    if not layer_rates:
        raise ValueError(f"no layer is left to constrain: include={list(include)}, skip={list(skip)}; the model has {', '.join(names)}.")
    return Assignment([_part(model, name, make, layer_rates[name]) for name in names if name in layer_rates])


def takes_rate(make: Callable[..., Constraint]) -> bool:
    """Return whether ``make`` builds a set that has a rate still to be given."""
    given = make.keywords if isinstance(make, functools.partial) else {}
    return "rate" in inspect.signature(make).parameters and "rate" not in given


def _part(model: nn.Module, name: str, make: Callable[..., Constraint], rate: float | None) -> Part:
    target, shape = Target(name), tuple(model.get_parameter(name).shape)
    try:
        constraint = make() if rate is None else make(rate=rate)
        if isinstance(constraint, Sparse):
            _, num_groups = constraint.count(shape)
            if num_groups == 1 and constraint.rate > 1:
                structure = constraint.structure.name
                raise ValueError(
                    f"shape {shape} is a single group of structure '{structure}', which rate {constraint.rate:g} cannot thin out; "
                    "name the layer in constraint.skip or take another structure."
                )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return (target,), constraint


def _named_rates(
    model: nn.Module, names: Sequence[str], chosen: set[str], rates: Mapping[str, float], kept: Mapping[str, int]
) -> dict[str, float]:
    found: dict[str, tuple[bool, str, float]] = {}  # layer -> whether by its full name, the entry's words, its rate
    entries = [("constraint.rates", *entry) for entry in rates.items()] + [("constraint.kept", *entry) for entry in kept.items()]
    for key, pattern, value in entries:
        for name in matching(pattern, names, key):
            if name not in chosen:
                raise ValueError(f"{key}: '{pattern}' gives {name} a rate, but constraint.include and skip leave it out; drop one of both.")
            exact = pattern in (name, name.rpartition(".")[0])
            if name in found and found[name][0] == exact:
                raise ValueError(f"{key}: '{pattern}' gives {name} a second rate after {found[name][1]}; name the layer once in full.")
            if name not in found or exact:
                found[name] = (exact, f"{key}: '{pattern}'", _rate(key, name, value, model.get_parameter(name).numel()))
    return {name: rate for name, (_, _, rate) in found.items()}


def _rate(key: str, name: str, value: float, size: int) -> float:
    if key == "constraint.rates":
        return float(value)
    if not 1 <= value <= size:
        raise ValueError(f"{key}: {name} has {size} weights, so {value} cannot be kept; give 1 to {size}.")
    return size / value


def _name(make: Callable[..., Constraint]) -> str:
    made = make.func if isinstance(make, functools.partial) else make
    return str(getattr(made, "__name__", made))
