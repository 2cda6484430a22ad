"""Rates of layers: the papers' rate files, and the one layer rate that brings a whole model to a rate."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from espalier.constraints.support_set import Rated

RateOf = Literal["groups", "weights", "macs", "bytes"]


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


def rate_of_sparsity(sparsity: float) -> float:
    """Return all / kept for a share of zeros, 0.9 -> 10 exactly.

    Raises:
        ValueError: It is not in 0..1 (1 aside).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"constraint.sparsity={sparsity} is not a share of zeros; it lies from 0 to below 1 (0.9 is rate 10).")
    return float(1 / (1 - Fraction(str(float(sparsity)))))


class Layer(NamedTuple):
    """A layer whose rate is to be found."""

    shape: tuple[int, ...]
    cost: float  # of one weight


def uniform_rate(rate: float, make: Callable[..., Rated], layers: Sequence[Layer], *, fixed: float, rest: float) -> float:
    """Return the layer rate, one for all ``layers``, that brings the cost of a whole model to ``1 / rate``.

    Layers keep whole groups, at least one each, so that the cost is met within one group a layer: of the two layer rates between which the
    cost steps over the budget, the nearer is returned.

    Args:
        rate: Cost of the dense model / cost of what is kept.
        make: Builds the set of a layer, ``make(rate=...)``.
        layers: The layers that take the layer rate.
        fixed: Cost of what is kept elsewhere: dense layers, and layers with a rate of their own.
        rest: Cost of these other layers when dense.

    Raises:
        ValueError: No layer rate gives it; the message says which rates can be had.
    """

    def kept(inverse: float) -> float:
        layer_set = make(rate=1 / inverse)
        return fixed + sum(layer.cost * layer_set.weights_kept(layer.shape) for layer in layers)

    unpruned = make(rate=1.0)
    steepest = max(unpruned.max_rate(layer.shape) for layer in layers)
    total = rest + sum(layer.cost * math.prod(layer.shape) for layer in layers)
    budget, low, high = total / rate, 1 / steepest, 1.0
    if budget < kept(low) * (1 - 1e-9):
        raise ValueError(
            f"rate={rate:g} for the whole model cannot be had: dense layers, those with a rate of their own and one group in each of "
            f"{len(layers)} layers are left; the largest possible is {total / kept(low):.6g}."
        )
    if budget > kept(high) * (1 + 1e-9):
        raise ValueError(
            f"rate={rate:g} for the whole model cannot be had: the set keeps no more even at layer rate 1; the smallest possible is "
            f"{total / kept(high):.6g}."
        )
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if kept(middle) <= budget else (low, middle)
    return 1 / min(low, high, key=lambda inverse: abs(kept(inverse) - budget))
