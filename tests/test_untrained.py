"""Random weights and masks: seeded, with nothing left at a constant, and groups drawn whole."""

from functools import partial

import pytest
import torch
from torch import nn

from espalier.constraints import BLOCK_PUNCHED, Binary, Sparse, assign
from espalier.untrained import LEAST_VARIANCE, calibrate, prune_at_random, randomise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16))


def test_no_parameter_stays_constant_and_the_seed_decides() -> None:
    model, twin, other = network(), network(), network()
    for one in (model, twin, other):
        nn.init.zeros_(one[4].weight)  # as timm starts the branches of residual blocks
        nn.init.zeros_(one[3].weight)
    randomise(model, seeded())
    randomise(twin, seeded())
    randomise(other, seeded(1))
    assert all(parameter.std() > 0 for parameter in model.parameters())
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), twin.parameters(), strict=True))
    assert not torch.equal(model[4].weight, other[4].weight)


def test_masks_keep_whole_groups_in_the_asked_number() -> None:
    model, structure = network(), BLOCK_PUNCHED.sized([4, 4])
    frozen = prune_at_random(model, assign(model, partial(Sparse, structure), rate=3), seeded())
    for name in ("0.weight", "3.weight"):
        weight = model.get_parameter(name)
        kept = structure.scores(weight.detach()).count_nonzero()
        num_groups = structure.num_groups(weight.shape)
        assert kept == round(num_groups / 3)
        assert weight.count_nonzero() == kept * weight.numel() // num_groups
    assert frozen.outside(frozen.read(model)) == 0
    by_block = (model[3].weight.detach() != 0).reshape(4, 4, -1).float().mean((1, 2))
    assert by_block.std() > 0  # groups are drawn from the whole layer


def test_a_set_without_groups_is_refused() -> None:
    model = network()
    levels = assign(model, Binary, include=["0"])
    with pytest.raises(ValueError, match=r"Binary on 0.weight has no groups"):
        prune_at_random(model, levels, seeded())


def test_batch_norm_is_scaled_to_what_reaches_it() -> None:
    model, example = network(), torch.rand(1, 8, 12, 12, generator=seeded())
    with torch.no_grad():
        model[0].weight[0] = 0.0  # a channel that is always zero
        model[0].bias[0] = 0.0
    calibrate(model, example, seeded())
    with torch.no_grad():
        reached_C = model[0](example).square().mean((0, 2, 3))
    assert torch.allclose(model[1].running_var[1:], reached_C[1:], rtol=1e-5)
    assert model[1].running_var[0] == pytest.approx(LEAST_VARIANCE * float(reached_C.mean()))
    assert (model[1].running_mean.abs() <= 0.5 * model[1].running_var.sqrt()).all()
    assert model[1].running_mean.std() > 0
    assert not any(module.training for module in model.modules())
    assert not model[1]._forward_pre_hooks
    assert model[1].momentum == 0.1


def test_a_deep_network_stays_within_range_and_does_not_blow_up_rounding_errors() -> None:
    torch.manual_seed(0)
    blocks = [layer for _ in range(20) for layer in (nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())]
    model, example = nn.Sequential(*blocks), torch.randn(1, 16, 8, 8, generator=seeded())
    randomise(model, seeded())
    calibrate(model, example, seeded())
    with torch.no_grad():
        output = model(example)
        exact = model.double()(example.double())
    assert 0.1 < output.abs().max() < 100.0
    assert (output - exact).abs().max() < 1e-5 * exact.abs().max()
