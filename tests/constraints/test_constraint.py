import pytest
import torch
from torch import nn

from espalier.constraints import Binary, Constraint, Target


@pytest.mark.parametrize(
    "target",
    [
        Target("weight"),
        Target("block.0.conv1.weight"),
        Target("gru.weight_ih_l0", 0, 64, 128),
        Target("qkv.weight", -1, 0, 3),
        Target("w", 1),
    ],
    ids=str,
)
def test_a_target_reads_back_from_its_text(target: Target) -> None:
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize("text", ["", "weight[0:1]", "weight[a:0:1]", "[0:1:2]", "weight[0:1:2]x"])
def test_a_text_that_is_no_target_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no target; write a parameter's name, or name\[axis:start:stop\]"):
        Target.parse(text)


def test_a_slice_reads_a_copy_and_writes_only_itself() -> None:
    model = nn.Linear(3, 4, bias=False)
    before = model.weight.detach().clone()
    gate = Target("weight", 0, 1, 3)
    part = gate.read(model)
    assert torch.equal(part, before[1:3])
    part.zero_()
    assert torch.equal(model.weight, before)
    gate.write(model, part)
    assert torch.equal(model.weight[1:3], torch.zeros(2, 3))
    assert torch.equal(model.weight[[0, 3]], before[[0, 3]])


def test_a_slice_without_its_ends_says_so() -> None:
    with pytest.raises(ValueError, match=r"weight\[1:None:None\] slices axis 1 without start and stop"):
        Target("weight", 1).read(nn.Linear(2, 2))


def test_the_sets_are_constraints() -> None:
    assert isinstance(Binary(), Constraint)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        (Target("a"), Target("b"), False),
        (Target("a"), Target("a", 0, 0, 2), True),
        (Target("a", 0, 0, 2), Target("a", 0, 2, 4), False),
        (Target("a", 0, 0, 3), Target("a", 0, 2, 4), True),
        (Target("a", 0, 0, 2), Target("a", 1, 2, 4), True),
    ],
    ids=str,
)
def test_targets_overlap_where_they_share_weights(first: Target, second: Target, overlap: bool) -> None:
    assert first.overlaps(second) == second.overlaps(first) == overlap
