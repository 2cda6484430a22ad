"""Which weights are held at zero: told and checked, or read from zeros and said so."""

import pytest
import torch
from torch import nn

from espalier.compiler.front import read_model
from espalier.compiler.masks import DETECTED, structure_of
from espalier.constraints import Assignment, Pinned, Support, Target, structure

SHAPES = {"linear": (70, 50), "conv2d": (70, 20, 3, 3), "conv3d": (80, 24, 3, 3, 3)}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 32, 3), nn.Flatten(), nn.Linear(32 * 4, 10)).eval()


EXAMPLE = torch.zeros(1, 8, 4, 4)


def random_mask(label: str, shape: tuple[int, ...], share: float = 0.4) -> torch.Tensor:
    grouping = structure(label)
    kept = torch.rand(grouping.num_groups(shape), generator=torch.Generator().manual_seed(1)) < share
    return grouping.mask(shape, kept)


@pytest.mark.parametrize(
    ("label", "shape"),
    [
        ("filter", "conv2d"),
        ("channel", "conv2d"),
        ("column", "conv2d"),
        ("column", "linear"),
        ("kernel", "conv2d"),
        ("unstructured", "conv2d"),
        ("unstructured", "linear"),
        ("block_punched 16x4", "conv2d"),
        ("block_punched 32x4", "conv2d"),
        ("block_punched 8x4", "linear"),
        ("kgs 8x4", "conv3d"),
        ("vanilla 16x4", "conv3d"),
        ("block_column 16", "conv2d"),
        ("block_column 32", "linear"),
        ("block_row 8x32", "conv2d"),
    ],
)
def test_the_coarsest_structure_that_explains_the_zeros_is_found(label: str, shape: str) -> None:
    assert structure_of(random_mask(label, SHAPES[shape])).label == label


def test_zeros_of_a_foreign_checkpoint_are_a_mask_and_said_to_be_detected() -> None:
    net = model()
    mask = random_mask("block_punched 16x4", (32, 8, 3, 3))
    with torch.no_grad():
        net[0].weight.mul_(mask)
    graph = read_model(net, EXAMPLE)
    (conv,) = [node for node in graph if node.op == "conv"]
    (linear,) = [node for node in graph if node.op == "linear"]
    assert torch.equal(graph.masks[conv.constants["weight"]], mask)
    assert graph.structures == {conv.constants["weight"]: f"block_punched 16x4{DETECTED}"}
    assert graph.mask(linear) is None


def test_a_few_zeros_are_chance() -> None:
    net = model()
    with torch.no_grad():
        net[0].weight.view(-1)[:40] = 0  # of 2304
    assert not read_model(net, EXAMPLE).masks


def test_a_frozen_set_says_what_is_kept_even_where_it_is_zero() -> None:
    net = model()
    mask = random_mask("block_punched 8x4", (32, 8, 3, 3))
    frozen = Assignment([((Target("0.weight"),), Support({Target("0.weight"): mask}, "block_punched 8x4"))])
    with torch.no_grad():
        net[0].weight.mul_(mask)
        net[0].weight[:16] = 0
        net[2].weight[:5] = 0  # what no set names is dense
    graph = read_model(net, EXAMPLE, frozen=frozen)
    (conv,) = [node for node in graph if node.op == "conv"]
    assert torch.equal(graph.masks[conv.constants["weight"]], mask)
    assert graph.structures == {conv.constants["weight"]: "block_punched 8x4"}
    assert len(graph.masks) == 1


def test_slices_of_a_parameter_join_into_one_mask() -> None:
    net = model()
    first, second = Target("2.weight", 0, 0, 5), Target("2.weight", 0, 5, 10)
    masks = {first: random_mask("column", (5, 128)), second: torch.ones(5, 128, dtype=torch.bool)}
    with torch.no_grad():
        net[2].weight[:5].mul_(masks[first])
    pinned = Pinned({second: torch.zeros(5, 128)}, {second: torch.zeros(5, 128, dtype=torch.bool)})
    frozen = Assignment([((first,), Support({first: masks[first]}, "column")), ((second,), pinned)])
    graph = read_model(net, EXAMPLE, frozen=frozen)
    assert torch.equal(next(iter(graph.masks.values())), torch.cat([masks[first], masks[second]]))


def test_weights_outside_their_sets_are_named_and_counted() -> None:
    net = model()
    masks = {Target("0.weight"): torch.ones(32, 8, 3, 3, dtype=torch.bool), Target("2.weight"): torch.ones(10, 128, dtype=torch.bool)}
    masks[Target("0.weight")][0] = False
    masks[Target("2.weight")][0, :3] = False
    frozen = Assignment([((target,), Support({target: mask}, "unstructured")) for target, mask in masks.items()])
    with pytest.raises(ValueError, match=r"0\.weight has 72 of 2304, 2\.weight has 3 of 1280"):
        read_model(net, EXAMPLE, frozen=frozen)


def test_a_mask_of_another_model_is_refused() -> None:
    frozen = Assignment([((Target("0.weight"),), Support({Target("0.weight"): torch.ones(3, 3, dtype=torch.bool)}, "unstructured"))])
    with pytest.raises(ValueError, match=r"mask of 0\.weight is \(3, 3\), the weight \(32, 8, 3, 3\)"):
        read_model(model(), EXAMPLE, frozen=frozen)


def test_a_weight_that_is_no_parameter_as_it_is_is_detected_beside_frozen_sets() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(40, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    net, mask = Turned(), random_mask("column", (40, 64))
    with torch.no_grad():
        net.weight.mul_(mask)
    frozen = Assignment([((Target("weight"),), Support({Target("weight"): mask}, "column"))])
    graph = read_model(net, torch.zeros(1, 40), frozen=frozen)
    assert [*graph.structures.values()] == [f"filter{DETECTED}"]
