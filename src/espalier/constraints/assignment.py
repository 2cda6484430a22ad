"""Assignments: which target takes which constraint.  An assignment is the product of its sets, hence a constraint itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from espalier.constraints.constraint import Constraint, Target, Weights
from espalier.constraints.frozen import as_frozen, frozen_from_state, joined
from espalier.constraints.inside import Inside

Part = tuple[tuple[Target, ...], Constraint]
PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase, nn.RNNCellBase)


class Assignment:
    """The product of constraints over disjoint targets.

    Args:
        parts: Pairs of the targets and the set they share.

    Raises:
        ValueError: A target is assigned twice, or two targets share weights.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = [(tuple(targets), constraint) for targets, constraint in parts]
        self.targets = tuple(target for targets, _ in self.parts for target in targets)
        if twice := sorted({str(target) for target in self.targets if self.targets.count(target) > 1}):
            raise ValueError(f"{', '.join(twice)} is assigned twice; a weight lies in one set.")
        by_parameter: dict[str, list[Target]] = {}
        for target in self.targets:
            others = by_parameter.setdefault(target.parameter, [])
            if shared := [other for other in others if target.overlaps(other)]:
                raise ValueError(f"{target} and {shared[0]} share weights; a weight lies in one set, so take the whole or disjoint slices.")
            others.append(target)

    def read(self, model: nn.Module) -> dict[Target, Tensor]:
        """Return copies of the targeted weights.

        Raises:
            ValueError: The model lacks one of them.
        """
        try:
            return {target: target.read(model) for target in self.targets}
        except AttributeError as error:
            names = dict(model.named_parameters(remove_duplicate=False)).keys()
            missing = sorted({target.parameter for target in self.targets} - names)
            raise ValueError(f"the assignment names {', '.join(missing)}, which the model lacks; it has {', '.join(names)}.") from error

    def write(self, model: nn.Module, weights: Weights) -> None:
        """Overwrite the targeted weights of the model."""
        for target, weight in weights.items():
            target.write(model, weight)

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest weights, part by part.

        Raises:
            ValueError: ``weights`` lacks a target of the assignment or has another one.
        """
        projected: dict[Target, Tensor] = {}
        for given, constraint in self._split(weights):
            projected |= constraint.project(given)
        return projected

    def freeze(self, weights: Weights) -> "Assignment":
        """Return the product of the frozen sets."""
        return Assignment([(tuple(given), constraint.freeze(given)) for given, constraint in self._split(weights)])

    def outside(self, weights: Weights) -> int:
        """Return how many weights lie outside their frozen sets; every part must be frozen."""
        return sum(as_frozen(constraint).outside(given) for given, constraint in self._split(weights))

    def within(self, frozen: "Assignment | None") -> "Assignment":
        """Return this assignment inside what earlier steps froze, target by target.

        Raises:
            ValueError: An earlier step froze only some targets of a set, or another slice of a parameter.
        """
        if frozen is None:
            return self
        held = {target: constraint for targets, constraint in frozen.parts for target in targets}
        parts: list[Part] = []
        for targets, constraint in self.parts:
            for target in targets:
                if target not in held and (crossed := [other for other in held if other.overlaps(target)]):
                    raise ValueError(f"an earlier step froze {crossed[0]}, this one takes {target}; constrain the same targets in both.")
            if shared := [target for target in targets if target in held]:
                if len(shared) != len(targets):
                    raise ValueError(
                        f"{', '.join(map(str, targets))} share a set of which an earlier step froze only a part; give each a set."
                    )
                constraint = Inside(joined({target: as_frozen(held[target]) for target in targets}), constraint)
            parts.append((targets, constraint))
        return Assignment(parts)

    def merged(self, newer: "Assignment") -> "Assignment":
        """Return this frozen assignment with the targets of ``newer`` taken from there: all that must hold after ``newer`` was frozen."""
        kept = [(tuple(target for target in targets if target not in newer.targets), constraint) for targets, constraint in self.parts]
        return Assignment([*((targets, constraint) for targets, constraint in kept if targets), *newer.parts])

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

    def _split(self, weights: Weights) -> list[tuple[dict[Target, Tensor], Constraint]]:
        if weights.keys() != set(self.targets):
            given, asked = (", ".join(sorted(map(str, names))) for names in (weights, self.targets))
            raise ValueError(f"weights hold {given}, the assignment {asked}; give exactly its targets, as assignment.read(model) does.")
        return [({target: weights[target] for target in targets}, constraint) for targets, constraint in self.parts]


def prunable(model: nn.Module) -> list[str]:
    """Return the names of the weights that constraints apply to: those of linear, convolution and recurrent layers, biases aside.

    Transposed convolutions (their axes are in, out) and embeddings are not among them; a weight that modules share appears once.
    """
    weights: dict[str, nn.Parameter] = {}
    for module_name, module in model.named_modules():
        if isinstance(module, PRUNABLE):
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim >= 2 and not any(parameter is known for known in weights.values()):
                    weights[f"{module_name}.{name}" if module_name else name] = parameter
    return [*weights]
