"""One helper that checks any sparsity set against the supports that its definition, in plain loops, allows."""

import io
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from espalier.constraints import Inside, Support, SupportSet, Target, frozen_from_state

Position = tuple[Target, tuple[int, ...]]
Shapes = Mapping[Target, tuple[int, ...]]
Supports = Iterable[frozenset[Position]]
A, B = Target("a.weight"), Target("b.weight", 0, 2, 4)


def drawn(shapes: Shapes, seed: int = 0) -> dict[Target, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {target: torch.randn(shape, generator=generator) for target, shape in shapes.items()}


def groups_by_hand(shapes: Shapes, key: Callable[[tuple[int, ...]], Hashable]) -> list[frozenset[Position]]:
    """Return the groups of weights with one key, in the order in which the keys appear, targets apart."""
    groups: dict[Hashable, list[Position]] = {}
    for target, shape in shapes.items():
        for position in itertools.product(*map(range, shape)):
            groups.setdefault((target, key(position)), []).append((target, position))
    return [*map(frozenset, groups.values())]


def choices(groups: Sequence[frozenset[Position]], num_keep: int) -> Iterator[frozenset[Position]]:
    """Return every union of ``num_keep`` groups."""
    for chosen in itertools.combinations(groups, num_keep):
        yield frozenset().union(*chosen)


def all_of(parts: Iterable[Iterable[frozenset[Position]]]) -> Iterator[frozenset[Position]]:
    """Return every union of one choice from each part."""
    for chosen in itertools.product(*map(list, parts)):
        yield frozenset().union(*chosen)


def energy(weights: Mapping[Target, Tensor], support: Iterable[Position]) -> float:
    return sum(weights[target][position].double().item() ** 2 for target, position in support)


def nonzero(weights: Mapping[Target, Tensor]) -> frozenset[Position]:
    return frozenset((target, tuple(position)) for target, weight in weights.items() for position in weight.nonzero().tolist())


def check_set(made: SupportSet, weights: Mapping[Target, Tensor], supports: Supports, *, exact: bool = True) -> None:
    """Check projection, frozen set, state and a step inside an earlier support; ``exact``: no feasible tensor is nearer."""
    supports = list(supports)
    before = {target: weight.clone() for target, weight in weights.items()}
    projected = made.project(weights)
    kept = nonzero(projected)
    assert all(torch.equal(weight, before[target]) for target, weight in weights.items()), "the argument changed"
    assert all(projected[t].dtype == w.dtype and projected[t].shape == w.shape for t, w in weights.items())
    assert all(torch.equal(part[part != 0], weights[target][part != 0]) for target, part in projected.items()), "a kept weight changed"
    assert any(kept <= support for support in supports), "not feasible"
    if exact:
        most = max(energy(weights, support) for support in supports)
        assert energy(weights, kept) == pytest.approx(most, rel=1e-5, abs=1e-7)
    for again in (made.project(weights), made.project(projected)):
        assert all(torch.equal(again[target], part) for target, part in projected.items()), "neither deterministic nor idempotent"
    _check_frozen(made, weights, projected, supports)
    _check_inside(made, weights, supports, exact=exact)


def _check_frozen(
    made: SupportSet, weights: Mapping[Target, Tensor], projected: Mapping[Target, Tensor], supports: Sequence[frozenset[Position]]
) -> None:
    frozen = made.freeze(weights)
    assert frozen.structure == made.label
    assert frozen.outside(projected) == 0
    assert nonzero(frozen.masks) in supports, "the mask is no support of the definition"
    assert all(torch.equal(part, projected[target]) for target, part in frozen.project(weights).items())
    rebuilt, state = frozen_from_state(saved(frozen.state_dict())), saved(made.state_dict())
    assert all(torch.equal(part, projected[target]) for target, part in rebuilt.project(weights).items())
    made.load_state_dict(state)
    with pytest.raises(ValueError, match=r"the checkpoint holds kind 'other'.*; start anew"):
        made.load_state_dict({**state, "kind": "other"})


def _check_inside(made: SupportSet, weights: Mapping[Target, Tensor], supports: Sequence[frozenset[Position]], *, exact: bool) -> None:
    generator = torch.Generator().manual_seed(7)
    free = {target: torch.rand(weight.shape, generator=generator) < 0.6 for target, weight in weights.items()}
    inside = Inside(Support(free, "unstructured"), made)
    projected, frozen = inside.project(weights), inside.freeze(weights)
    kept, allowed = nonzero(projected), nonzero(free)
    assert kept <= allowed
    assert any(kept <= support for support in supports)
    if exact:
        most = max(energy(weights, support & allowed) for support in supports)
        assert energy(weights, kept) == pytest.approx(most, rel=1e-5, abs=1e-7)
    assert isinstance(frozen, Support)
    assert nonzero(frozen.masks) <= allowed
    assert all(torch.equal(part, projected[target]) for target, part in frozen.project(weights).items())


def saved(state: object) -> dict[str, object]:
    """Return the state as a file gives it back, without pickle."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))
