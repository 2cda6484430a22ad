"""Assignments: which target takes which constraint.  An assignment is the product of its sets, hence a constraint itself."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from espalier.constraints.constraint import Constraint, Target, Weights
from espalier.constraints.frozen import as_frozen, frozen_from_state
from espalier.constraints.inside import Inside

Part = tuple[tuple[Target, ...], Constraint]
PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)


class Assignment:
    """The product of constraints over disjoint targets.

    Args:
        parts: Pairs of the targets and the set they share.

    Raises:
        ValueError: A target is assigned twice.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = [(tuple(targets), constraint) for targets, constraint in parts]
        self.targets = tuple(target for targets, _ in self.parts for target in targets)
        if twice := sorted({str(target) for target in self.targets if self.targets.count(target) > 1}):
            raise ValueError(f"{', '.join(twice)} is assigned twice; a weight lies in one set.")

    def read(self, model: nn.Module) -> dict[Target, Tensor]:
        """Return copies of the targeted weights."""
        return {target: target.read(model) for target in self.targets}

    def write(self, model: nn.Module, weights: Weights) -> None:
        """Overwrite the targeted weights of the model."""
        for target, weight in weights.items():
            target.write(model, weight)

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest weights, part by part."""
        projected: dict[Target, Tensor] = {}
        for targets, constraint in self.parts:
            projected |= constraint.project({target: weights[target] for target in targets})
        return projected

    def freeze(self, weights: Weights) -> "Assignment":
        """Return the product of the frozen sets."""
        return Assignment(
            [(targets, constraint.freeze({target: weights[target] for target in targets})) for targets, constraint in self.parts]
        )

    def outside(self, weights: Weights) -> int:
        """Return how many weights lie outside their frozen sets; every part must be frozen."""
        return sum(as_frozen(constraint).outside({target: weights[target] for target in targets}) for targets, constraint in self.parts)

    def within(self, frozen: "Assignment | None") -> "Assignment":
        """Return this assignment inside what earlier steps froze, target by target."""
        if frozen is None:
            return self
        held = {target: constraint for targets, constraint in frozen.parts for target in targets}
        parts: list[Part] = []
        for targets, constraint in self.parts:
            if shared := [target for target in targets if target in held]:
                if len(shared) != len(targets) or len({id(held[target]) for target in shared}) > 1:
                    raise ValueError(
                        f"{', '.join(map(str, targets))} share a set of which an earlier step froze only a part; give each a set."
                    )
                constraint = Inside(as_frozen(held[shared[0]]), constraint)
            parts.append((targets, constraint))
        return Assignment(parts)

    def merged(self, newer: "Assignment") -> "Assignment":
        """Return this frozen assignment with the targets of ``newer`` taken from there."""
        kept = [(targets, constraint) for targets, constraint in self.parts if not set(targets) & set(newer.targets)]
        return Assignment([*kept, *newer.parts])

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts."""
        return {"parts": [{"targets": [str(target) for target in targets], "set": part.state_dict()} for targets, part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the states of all parts.

        Raises:
            ValueError: The state was made for other targets.
        """
        names = [[str(target) for target in targets] for targets, _ in self.parts]
        stored = [part["targets"] for part in state["parts"]]
        if names != stored:
            raise ValueError(f"the checkpoint constrains {stored}, this run {names}; start anew or use the settings it was made with.")
        for (_, constraint), part in zip(self.parts, state["parts"], strict=True):
            constraint.load_state_dict(part["set"])

    @classmethod
    def frozen_from_state(cls, state: Mapping[str, Any]) -> "Assignment":
        """Rebuild a frozen assignment from its state."""
        return cls([(tuple(map(Target.parse, part["targets"])), frozen_from_state(part["set"])) for part in state["parts"]])


@dataclass(frozen=True)
class RateFile:
    """Per-layer rates as a paper gives them: kept weights or rates by glob, with where they come from."""

    source: str
    provenance: str
    kept: Mapping[str, int]
    rates: Mapping[str, float]


def read_rate_file(path: Path) -> RateFile:
    """Read ``source``, ``provenance`` and either ``kept`` (weights) or ``rates`` (all / kept) by layer.

    Raises:
        ValueError: The file is not such a mapping; the message names the file and what was expected.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise ValueError(f"there is no rate file {path}; rate files there: {near}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict) or not ("kept" in content) ^ ("rates" in content) or not {"source", "provenance"} <= content.keys():
        raise ValueError(f"{path} should hold source, provenance, and one of kept: {{layer: weights}} or rates: {{layer: rate}}.")
    if extra := sorted(content.keys() - {"source", "provenance", "kept", "rates"}):
        raise ValueError(f"{path}: {', '.join(extra)} is no key of a rate file; keys are source, provenance, kept, rates.")
    return RateFile(content["source"], content["provenance"], content.get("kept", {}), content.get("rates", {}))


def prunable(model: nn.Module) -> list[str]:
    """Return the names of the weights that constraints apply to: those of linear, convolution and recurrent layers, biases aside."""
    return [
        f"{module_name}.{name}" if module_name else name
        for module_name, module in model.named_modules()
        if isinstance(module, PRUNABLE)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2
    ]


def matching(pattern: str, names: Sequence[str], key: str) -> list[str]:
    """Return the parameters a glob means, by parameter name or by module name (``conv1`` is ``conv1.weight``).

    Raises:
        ValueError: It means none; the message lists the nearest names.
    """
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)]
    if not found:
        near = difflib.get_close_matches(pattern, [*names, *(name.rpartition(".")[0] for name in names)], n=3, cutoff=0.3) or names
        raise ValueError(f"{key}: '{pattern}' matches no layer; nearest: {', '.join(near)}.")
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
    """Give every prunable weight its own constraint.

    Args:
        model: The network.
        make: Builds the set, ``make(rate=...)`` for sparse sets and ``make()`` for level sets.
        rate: All / kept, for the layers that ``rates`` and ``kept`` do not name.
        rates: Glob -> rate.
        kept: Glob -> weights to keep.
        include: Globs of the layers that take part.
        skip: Globs of the layers that do not.

    Raises:
        ValueError: A glob matches nothing, a kept count is out of range, a layer does not fit the structure, or none is left.
    """
    names = prunable(model)
    chosen = {name for pattern in include for name in matching(pattern, names, "constraint.include")}
    chosen -= {name for pattern in skip for name in matching(pattern, names, "constraint.skip")}
    per_layer: dict[str, float] = {}
    for pattern, value in (rates or {}).items():
        per_layer |= dict.fromkeys(matching(pattern, names, "constraint.rates"), float(value))
    for pattern, count in (kept or {}).items():
        for name in matching(pattern, names, "constraint.kept"):
            size = model.get_parameter(name).numel()
            if not 1 <= count <= size:
                raise ValueError(f"constraint.kept: {name} has {size} weights, so {count} cannot be kept; give 1 to {size}.")
            per_layer[name] = size / count
    parts: list[Part] = []
    for name in names:
        layer_rate = per_layer.get(name, rate)
        if name not in chosen or (layer_rate is None and (rates or kept)):
            continue
        constraint = make() if layer_rate is None else make(rate=layer_rate)
        target = Target(name)
        try:
            constraint.project({target: target.read(model)})
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        parts.append(((target,), constraint))
    if not parts:
        raise ValueError(f"no layer is left to constrain: include={list(include)}, skip={list(skip)}; the model has {', '.join(names)}.")
    return Assignment(parts)
