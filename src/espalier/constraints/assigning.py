"""``assign``: from a model, globs and rates to an ``Assignment``."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, get_args, runtime_checkable

from torch import Tensor, nn

from espalier.constraints.assignment import Assignment, Part, prunable
from espalier.constraints.constraint import Constraint, Target
from espalier.constraints.rates import Layer, RateOf, rate_of_sparsity, uniform_rate
from espalier.constraints.selection import matching
from espalier.constraints.structures import Structure
from espalier.constraints.support_set import Rated, SupportSet


@runtime_checkable
class FromWeights(Protocol):
    """Builds a set whose options come from the network's own weights, as they are when the set is assigned."""

    def fitted(self, weights: Mapping[str, Tensor]) -> "Make":
        """Return what builds the set, given the weights of all layers that take part, by name."""
        ...


GATES: dict[type[nn.Module], int] = {nn.GRU: 3, nn.GRUCell: 3, nn.LSTM: 4, nn.LSTMCell: 4}
Make = Callable[..., Constraint]


def assign(
    model: nn.Module,
    make: Make | FromWeights,
    *,
    rate: float | None = None,
    sparsity: float | None = None,
    rate_of: RateOf = "groups",
    costs: Mapping[str, float] | None = None,
    rates: Mapping[str, float] | None = None,
    kept: Mapping[str, int] | None = None,
    include: Sequence[str] = ("*",),
    skip: Sequence[str] = (),
    blocks: Sequence[int] | None = None,
    gates: bool = False,
) -> Assignment:
    """Give every chosen weight a constraint of its own; a set that spans layers (``GlobalSparse``, ``Budget``) takes them all.

    Entries of ``rates``, ``kept``, ``include`` and ``skip`` are globs or rules, see ``matching``.
    In ``rates`` and ``kept`` a full name beats a glob.

    Args:
        model: The network.
        make: Builds the set, ``make(rate=...)`` for sets that have a rate, such as ``partial(Sparse, FILTER)``, and ``make()`` for others;
            or ``FromWeights``, which first looks at the weights of the layers that take part.
        rate: All / kept, at least 1, for the layers that ``rates`` and ``kept`` do not name. None leaves those out.
        sparsity: The same, said as a share of zeros: 0.9 is rate 10.
        rate_of: What ``rate`` counts. ``groups``: the groups of each layer. ``weights``, ``macs``, ``bytes``: those of the whole model,
            over all weights that ``prunable`` names, the ones left out counted as dense; one layer rate is found that meets it.
        costs: Layer -> cost of one weight: for ``macs`` the multiply-adds it takes part in, for ``bytes`` by default its width.
        rates: Entry -> rate of each layer it matches, at least 1.
        kept: Entry -> weights to keep in each match, rounded to whole groups.
        include: Layers that take part, as globs of their names or rules such as ``conv3x3`` and ``first_conv``.
        skip: Layers that take no part, in the same words.
        blocks: Block sizes of the structure, filters x channels, each at least 1.
        gates: Give each gate of a GRU or LSTM weight (3 or 4 slices of axis 0) a set of its own.

    Raises:
        ValueError: An entry matches nothing, a layer has two rates or is named and skipped, a count is out of range, the set takes no rate
            or lacks one, a rate would empty a layer or cannot be had, a layer does not fit the structure, or none is left.
    """
    if rate is not None and sparsity is not None:
        raise ValueError(f"rate={rate:g} and sparsity={sparsity:g} are both given; they say the same, give one.")
    rate = rate if sparsity is None else rate_of_sparsity(sparsity)
    if rate_of not in get_args(RateOf):
        raise ValueError(f"constraint.rate_of={rate_of}: a rate counts {', '.join(get_args(RateOf))}.")
    make = make if blocks is None else _sized(make, blocks)
    names = prunable(model)
    chosen = {name for pattern in include for name in matching(model, pattern, "constraint.include")}
    chosen -= {name for pattern in skip for name in matching(model, pattern, "constraint.skip")}
    if isinstance(make, FromWeights):
        if not chosen:
            raise _none_left(include, skip, names)
        make = make.fitted({name: model.get_parameter(name).detach() for name in names if name in chosen})
    own = _named_rates(model, chosen, rates or {}, kept or {}) if takes_rate(make) else {}
    layer_rates = _layer_rates(make, [name for name in names if name in chosen], rate, own, named={"rates": rates, "kept": kept})
    if not layer_rates:
        raise _none_left(include, skip, names)
    targets = _targets(model, [name for name in names if name in layer_rates], gates=gates)
    whole = _Whole(model, rate_of, {} if rate_of == "groups" else _unit_costs(model, names, rate_of, costs))
    if getattr(_made(make), "joint", False):
        return _joint(make, whole, targets, rate, own)
    if rate_of != "groups" and rate is not None:
        layer_rates |= _solved(make, whole, {name: parts for name, parts in targets.items() if name not in own}, rate, own)
    elif rate_of != "groups":
        raise ValueError(f"constraint.rate_of={rate_of} speaks of the rate of the whole model; give constraint.rate or sparsity.")
    return Assignment([_part(model, target, make, layer_rates[name]) for name, parts in targets.items() for target in parts])


def _layer_rates(
    make: Make, chosen: Sequence[str], rate: float | None, own: Mapping[str, float], *, named: Mapping[str, Mapping[str, float] | None]
) -> dict[str, float | None]:
    """Return the rate of each layer that takes part: ``rate``, or its own; None in a set that takes none."""
    if not takes_rate(make):
        if rate is not None or any(named.values()):
            given = ", ".join(f"{key}={value}" for key, value in {"rate": rate, **named}.items())
            raise ValueError(f"{_name(make)} takes no rate, but {given} are given; set them to null.")
        return dict.fromkeys(chosen)
    if rate is None and not own and chosen:
        raise ValueError(f"{_name(make)} needs a rate; give constraint.rate, or constraint.rates, kept or rate_file by layer.")
    return {**({} if rate is None else dict.fromkeys(chosen, rate)), **own}


def _none_left(include: Sequence[str], skip: Sequence[str], names: Sequence[str]) -> ValueError:
    return ValueError(f"no layer is left to constrain: include={list(include)}, skip={list(skip)}; the model has {', '.join(names)}.")


def takes_rate(make: Make) -> bool:
    """Return whether ``make`` builds a set that has a rate still to be given."""
    given = make.keywords if isinstance(make, functools.partial) else {}
    return "rate" in inspect.signature(make).parameters and "rate" not in given


class _Whole(NamedTuple):
    """The model, what its rate counts, and the cost of one weight by parameter."""

    model: nn.Module
    rate_of: RateOf
    costs: dict[str, float]

    def dense(self, names: Sequence[str]) -> float:
        return sum(self.costs[name] * self.model.get_parameter(name).numel() for name in names)

    def shape(self, target: Target) -> tuple[int, ...]:
        return tuple(target.view(self.model).shape)


def _part(model: nn.Module, target: Target, make: Make, rate: float | None) -> Part:
    shape = tuple(target.view(model).shape)
    try:
        constraint = make() if rate is None else make(rate=rate)
        if isinstance(constraint, SupportSet):
            constraint.check({target: shape})
        if rate is not None and isinstance(constraint, Rated) and rate > constraint.max_rate(shape):
            raise ValueError(
                f"rate={rate:g} would empty a weight of shape {shape}; the largest that keeps a group is {constraint.max_rate(shape):g}."
            )
    except ValueError as error:
        raise ValueError(f"{target}: {error}") from error
    return (target,), constraint


def _joint(make: Make, whole: _Whole, targets: Mapping[str, Sequence[Target]], rate: float | None, own: Mapping[str, float]) -> Assignment:
    if own or rate is None:
        raise ValueError(f"{_name(make)} spans all its layers with one rate; give constraint.rate or sparsity, and neither rates nor kept.")
    costs: dict[str, Any] = {}
    if "costs" in inspect.signature(make).parameters:
        if whole.rate_of == "groups":
            raise ValueError(f"{_name(make)} spends weights, macs or bytes; set constraint.rate_of to one of them.")
        total, dense = whole.dense([*whole.costs]), whole.dense([name for name in whole.costs if name not in targets])
        if total / rate <= dense:
            raise ValueError(
                f"rate={rate:g} of {whole.rate_of} cannot be had: layers left dense cost {dense:g} of {total:g}; "
                f"the largest possible is below {total / dense:g}."
            )
        costs["costs"] = {name: whole.costs[name] for name in targets}
        rate = max(1.0, (total - dense) / (total / rate - dense))
    elif whole.rate_of != "groups":
        raise ValueError(f"{_name(make)} counts groups, not {whole.rate_of}; set constraint.rate_of to groups or take Budget.")
    constraint = make(rate=rate, **costs)
    flat = tuple(target for parts in targets.values() for target in parts)
    if isinstance(constraint, SupportSet):
        constraint.check({target: whole.shape(target) for target in flat})
    return Assignment([(flat, constraint)])


def _solved(
    make: Make, whole: _Whole, targets: Mapping[str, Sequence[Target]], rate: float, own: Mapping[str, float]
) -> dict[str, float | None]:
    """Return the rate of each layer without one of its own, such that the whole model meets ``rate``."""

    def rated(*, rate: float) -> Rated:
        made = make(rate=rate)
        if not isinstance(made, Rated):
            raise ValueError(f"{_name(make)} does not say how many weights it keeps, which rate_of={whole.rate_of} needs; use groups.")
        return made

    for name, parts in targets.items():
        for target in parts:
            _part(whole.model, target, make, 1.0)  # fits at all
            if rated(rate=1.0).max_rate(whole.shape(target)) <= 2.0:
                raise ValueError(f"{name}: shape {whole.shape(target)} is a single group; name the layer in constraint.skip.")
    layers = [Layer(whole.shape(target), whole.costs[name]) for name, parts in targets.items() for target in parts]
    if not layers:
        raise ValueError(
            f"every layer has a rate of its own, so that rate={rate:g} of {whole.rate_of} is left nothing to choose; drop one."
        )
    others = [name for name in whole.costs if name not in targets]
    fixed = whole.dense([name for name in others if name not in own])
    for name, layer_rate in own.items():
        fixed += whole.costs[name] * rated(rate=layer_rate).weights_kept(tuple(whole.model.get_parameter(name).shape))
    found = uniform_rate(rate, rated, layers, fixed=fixed, rest=whole.dense(others))
    sizes = {name: min(rated(rate=1.0).max_rate(whole.shape(target)) for target in parts) for name, parts in targets.items()}
    return {name: min(found, size) for name, size in sizes.items()}  # a layer that would be emptied keeps its one group


def _targets(model: nn.Module, names: Sequence[str], *, gates: bool) -> dict[str, list[Target]]:
    targets = {name: [Target(name)] for name in names}
    if not gates:
        return targets
    for name in names:
        owner, _, own_name = name.rpartition(".")
        module = model.get_submodule(owner)
        if type(module) in GATES and own_name.startswith(("weight_ih", "weight_hh")):
            size = model.get_parameter(name).shape[0] // GATES[type(module)]
            targets[name] = [Target(name, 0, gate * size, (gate + 1) * size) for gate in range(GATES[type(module)])]
    if all(len(parts) == 1 for parts in targets.values()):
        raise ValueError(f"constraint.gates is on, but none of {', '.join(names)} belongs to a GRU or LSTM; set it to false.")
    return targets


def _unit_costs(model: nn.Module, names: Sequence[str], rate_of: RateOf, costs: Mapping[str, float] | None) -> dict[str, float]:
    if rate_of == "weights":
        return dict.fromkeys(names, 1.0)
    given = {name: float(cost) for entry, cost in (costs or {}).items() for name in matching(model, entry, "constraint.costs")}
    if rate_of == "bytes" and not given:
        return {name: float(model.get_parameter(name).element_size()) for name in names}
    if lacking := [name for name in names if name not in given]:
        raise ValueError(f"constraint.rate_of={rate_of} needs costs, the {rate_of} of one weight by layer; {', '.join(lacking)} lack one.")
    return {name: given[name] for name in names}


def _sized(make: Make | FromWeights, blocks: Sequence[int]) -> Make:
    """Return ``make`` with other block sizes in the structure it was given."""
    if isinstance(make, functools.partial) and any(isinstance(value, Structure) for value in [*make.args, *make.keywords.values()]):
        args = [value.sized(blocks) if isinstance(value, Structure) else value for value in make.args]
        keywords = {key: value.sized(blocks) if isinstance(value, Structure) else value for key, value in make.keywords.items()}
        return functools.partial(make.func, *args, **keywords)
    raise ValueError(f"{_name(make)} has no structure, so that blocks={list(blocks)} size nothing; set constraint.blocks to null.")


def _named_rates(model: nn.Module, chosen: set[str], rates: Mapping[str, float], kept: Mapping[str, int]) -> dict[str, float]:
    found: dict[str, tuple[bool, str, float]] = {}  # layer -> whether by its full name, the entry's words, its rate
    entries = [("constraint.rates", *entry) for entry in rates.items()] + [("constraint.kept", *entry) for entry in kept.items()]
    for key, pattern, value in entries:
        for name in matching(model, pattern, key):
            if name not in chosen:
                raise ValueError(f"{key}: '{pattern}' gives {name} a rate, but constraint.include and skip leave it out; drop one of both.")
            exact = pattern in (name, name.rpartition(".")[0])
            if name in found and found[name][0] == exact:
                raise ValueError(f"{key}: '{pattern}' gives {name} a second rate after {found[name][1]}; name the layer once in full.")
            if name not in found or exact:
                found[name] = (exact, f"{key}: '{pattern}'", _rate(key, name, value, math.prod(model.get_parameter(name).shape)))
    return {name: rate for name, (_, _, rate) in found.items()}


def _rate(key: str, name: str, value: float, size: int) -> float:
    if key == "constraint.rates":
        return float(value)
    if not 1 <= value <= size:
        raise ValueError(f"{key}: {name} has {size} weights, so {value} cannot be kept; give 1 to {size}.")
    return size / value


def _made(make: Make | FromWeights) -> Any:
    return make.func if isinstance(make, functools.partial) else make


def _name(make: Make | FromWeights) -> str:
    return str(getattr(_made(make), "__name__", _made(make)))
