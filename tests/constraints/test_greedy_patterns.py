"""Libraries out of a network's own kernels: greedy coverage by its definition in plain loops."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from espalier.constraints import GreedyPatterns, Patterns, assign, greedy_library, library
from espalier.constraints.patterns import best_pattern
from espalier.packing import pack, unpack


def kernels(count: int = 40) -> torch.Tensor:
    return torch.randn(count, 9, generator=torch.Generator().manual_seed(0)).double()


def by_hand(drawn: torch.Tensor, size: int) -> list[tuple[int, ...]]:
    candidates = [tuple(sorted((4, *others))) for others in itertools.combinations([0, 1, 2, 3, 5, 6, 7, 8], 3)]
    natural = []
    for kernel in drawn.tolist():
        order = sorted((position for position in range(9) if position != 4), key=lambda position: -abs(kernel[position]))
        natural.append(tuple(sorted((4, *order[:3]))))
    chosen = [max(candidates, key=lambda pattern: (natural.count(pattern), -candidates.index(pattern)))]

    def kept(patterns: list[tuple[int, ...]]) -> float:
        return sum(max(sum(kernel[at] ** 2 for at in pattern) for pattern in patterns) for kernel in drawn.tolist())

    while len(chosen) < size:
        chosen.append(max((pattern for pattern in candidates if pattern not in chosen), key=lambda pattern: kept([*chosen, pattern])))
    return chosen


@pytest.mark.parametrize("size", [1, 4, 6])
def test_the_library_is_the_greedy_one(size: int) -> None:
    assert list(greedy_library(kernels(), size).patterns) == by_hand(kernels(), size)


def test_energy_rises_with_the_size_up_to_all_with_the_centre() -> None:
    drawn = kernels(500)
    energies = [float(best_pattern(drawn, greedy_library(drawn, size).masks())[1].sum()) for size in (1, 4, 8, 12, 56)]
    assert energies == sorted(set(energies))
    assert set(map(frozenset, greedy_library(drawn, 56).patterns)) == set(map(frozenset, library("all56").patterns))
    assert energies[2] > float(best_pattern(drawn, library("std8").masks())[1].sum())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3))


def test_one_library_serves_all_layers_and_its_frozen_supports_survive_the_disk(tmp_path) -> None:
    model = network()
    sets = assign(model, GreedyPatterns(3), include=["conv3x3"])
    parts = [part for _, part in sets.parts]
    assert all(isinstance(part, Patterns) for part in parts)
    assert parts[0].library == parts[1].library
    assert parts[0].library == greedy_library(torch.cat([model[0].weight.detach().view(-1, 9), model[2].weight.detach().view(-1, 9)]), 3)
    spelled = " ".join("".join(map(str, pattern)) for pattern in parts[0].library.patterns)
    assert parts[0].label == f"pattern greedy3 ({spelled})"
    assert sets.freeze(sets.read(model)).state_dict()["parts"][0]["set"]["structure"] == parts[0].label
    weights = sets.read(model)
    frozen, projected = sets.freeze(weights), sets.project(weights)
    assert frozen.outside(projected) == 0
    assert {int(count) for weight in projected.values() for count in (weight != 0).flatten(2).sum(2).flatten()} == {4}
    assert all(torch.equal(again, projected[target]) for target, again in sets.project(projected).items())
    sets.write(model, projected)
    pack(tmp_path / "model.safetensors", model.state_dict(), frozen, {})
    assert torch.equal(unpack(tmp_path / "model.safetensors")[0]["0.weight"], model[0].weight)


def test_a_checkpoint_of_other_kernels_is_refused() -> None:
    first, second = network(), network()
    with torch.no_grad():
        second[0].weight.mul_(torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(1)))
    sets = [assign(model, GreedyPatterns(3), include=["conv3x3"]) for model in (first, second)]
    assert sets[0].parts[0][1].library != sets[1].parts[0][1].library
    with pytest.raises(ValueError, match=r"the checkpoint holds library .greedy3 .*start anew"):
        sets[1].load_state_dict(sets[0].state_dict())


@pytest.mark.parametrize(("size", "kept"), [(0, 4), (57, 4), (1, 0), (1, 10), (2, 1)])
def test_libraries_that_do_not_exist_are_refused(size: int, kept: int) -> None:
    with pytest.raises(ValueError, match="is no library of 3x3 kernels"):
        GreedyPatterns(size, kept)


def test_layers_without_3x3_kernels_and_no_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.weight: greedy patterns are for 3x3 kernels, not for .*\(4, 4, 1, 1\).*conv3x3"):
        assign(network(), GreedyPatterns(3))
    with pytest.raises(ValueError, match="no layer is left to constrain"):
        assign(network(), GreedyPatterns(3), skip=["*"])
    with pytest.raises(ValueError, match="has no structure"):
        assign(network(), GreedyPatterns(3), blocks=[2])
    with pytest.raises(ValueError, match="takes no rate"):
        assign(network(), GreedyPatterns(3), rate=2.0, include=["conv3x3"])


def test_a_network_without_values_gets_a_library_of_that_size() -> None:
    with torch.device("meta"):
        model = nn.Conv2d(2, 2, 3)
    (_, part), *_ = assign(model, GreedyPatterns(5)).parts
    assert len(part.library.patterns) == 5


def test_masks_stay_while_the_weights_move() -> None:
    model = network()
    make = partial(assign, make=GreedyPatterns(2), include=["conv3x3"])
    sets = make(model)
    patterns = sets.parts[0][1].library.patterns
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter))
    found = sets.project(sets.read(model))[sets.targets[0]].flatten(0, 1)
    supports = {tuple(kernel.flatten().nonzero().flatten().tolist()) for kernel in found}
    assert supports <= set(patterns)
