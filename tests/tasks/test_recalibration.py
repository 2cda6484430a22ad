"""Batch-norm statistics: what they are, and that the network is left as it was."""

import pytest
import torch
from torch import Tensor, nn

from espalier.tasks import batch_norms, recalibrated

Batches = list[tuple[Tensor, Tensor]]


def network(**norm: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, **norm), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))


def batches(*sizes: int) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 1, 8, 8, generator=generator), torch.zeros(size)) for size in sizes]


def test_mean_and_variance_are_those_of_the_first_images() -> None:
    model, given = network(), batches(8, 8, 8)
    found = recalibrated(model, given, num_images=12)
    with torch.no_grad():
        activations = [model[0](given[0][0]), model[0](given[1][0][:4])]
    torch.testing.assert_close(found["1.running_mean"], torch.cat(activations).mean((0, 2, 3)))
    variances = [value.transpose(0, 1).flatten(1).var(1) for value in activations]
    torch.testing.assert_close(found["1.running_var"], (8 * variances[0] + 4 * variances[1]) / 12)
    assert torch.equal(found["1.running_mean"], recalibrated(model, given, num_images=12)["1.running_mean"])


def test_the_network_is_left_as_it_was() -> None:
    model = network(momentum=0.3)
    model[3].eval()  # a mode of its own
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    found = recalibrated(model, batches(8), num_images=8)
    assert not torch.equal(found["1.running_mean"], before["1.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model[1].momentum, model[1].training, model[3].training, model.training) == (0.3, True, False, True)
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_network_whose_forward_fails_is_left_as_it_was() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        recalibrated(model, [(torch.randn(4, 1, 9, 9), torch.zeros(4))], num_images=4)
    assert not model[1].running_mean.any()
    assert model[1].momentum == 0.1
    assert model[3].training


def test_a_last_batch_of_one_image_is_left_out() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4))
    found = recalibrated(model, batches(4, 1), num_images=5)
    assert torch.equal(found["2.running_mean"], recalibrated(model, batches(4), num_images=4)["2.running_mean"])


def test_networks_without_running_statistics_have_none() -> None:
    assert recalibrated(nn.Linear(2, 2), batches(4), num_images=4) == {}
    assert batch_norms(nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False), nn.GroupNorm(2, 4))) == {}
