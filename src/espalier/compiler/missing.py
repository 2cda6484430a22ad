"""What the compiler refuses: all operators of a model that it cannot read, with their places and weight."""

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.workload import Operator

SHOWN = 3  # module paths that a line of the message names


@dataclass(frozen=True)
class Missing:
    """One call that cannot be read.

    Args:
        operator: ATen name, such as ``aten.sort.default``.
        source: Path of the module that makes it; empty for the model itself.
        line: Where it stands in the model's source; empty where unknown.
        reason: What about the call is out of reach; empty where the operator as such is.
    """

    operator: str
    source: str
    line: str
    reason: str


class MissingOperatorsError(ValueError):
    """A model with operators that the compiler lacks.

    Args:
        model: Its class.
        missing: The calls, in the order of the program.
        operators: All operators of the model, which carry the counts.
    """

    def __init__(self, model: str, missing: Sequence[Missing], operators: Sequence[Operator]) -> None:
        self.missing = tuple(missing)
        self.share = share_of({call.source for call in missing}, operators)
        lines = [f"  {line}" for line in _listed(self.missing, operators)]
        super().__init__(
            f"{model} has operators that the compiler cannot read:\n"
            + "\n".join(lines)
            + f"\nThe modules that hold them do {self.share:.0%} "
            "of its multiply-adds. fallback='torch' leaves them to PyTorch and compiles the rest."
        )


def share_of(modules: set[str], operators: Sequence[Operator]) -> float:
    """Return the share of the multiply-adds that these modules do with all below them; the model itself counts without its children."""
    total = sum(operator.macs for operator in operators)
    held = sum(operator.macs for operator in operators if any(_within(operator.source, module) for module in modules))
    return held / total if total else 0.0


def _within(source: str, module: str) -> bool:
    return source == module or bool(module and source.startswith(f"{module}."))


def _listed(missing: Sequence[Missing], operators: Sequence[Operator]) -> list[str]:
    """Return one line for the calls that share operator, place and reason."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for call in missing:
        places.setdefault((call.operator, call.line, call.reason), []).append(call.source)
    lines = []
    for (operator, line, reason), sources in places.items():
        named = [source or "the model itself" for source in dict.fromkeys(sources)]
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        what = f"{operator} ({reason})" if reason else operator
        where = f" at {line}" if line else ""
        lines.append(f"{what} in {', '.join(named[:SHOWN])}{more}{where}; {share_of({*sources}, operators):.0%} of the multiply-adds")
    return lines
