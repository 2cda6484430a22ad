"""Unused path removal: the same logits, a fixed point, what is in use stays, and what is not known is left alone."""

import itertools

import pytest
import torch
from networks import MASKS, NETWORKS, PUBLISHED, Concatenated, chain, images, lenet5, masked, nonzero, resnet18
from torch import Tensor, nn

from espalier.rewrites import remove_unused_paths, silence

TOLERANCE = 1e-4  # prm, What must hold 1


@pytest.mark.parametrize(("name", "mask"), [*itertools.product(NETWORKS, MASKS)])
@torch.no_grad()
def test_the_logits_stay_and_weights_go(name: str, mask: str) -> None:
    model = masked(NETWORKS[name], mask)
    inputs = images(model)
    silent, _ = silence(model, inputs)
    before = {key: value.clone() for key, value in silent.state_dict().items()}
    removal = remove_unused_paths(silent, inputs)
    assert float((removal.model(inputs) - silent(inputs)).abs().max()) < TOLERANCE
    assert all(torch.equal(value, before[key]) for key, value in silent.state_dict().items())
    assert removal.sweeps <= 5
    if mask != "column":  # scattered columns may leave every channel a weight
        assert removal.empty_groups > 0
        assert nonzero(removal.model) < nonzero(silent)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mask"), [*itertools.product(PUBLISHED, MASKS)])
@torch.no_grad()
def test_the_logits_stay_at_the_published_widths(name: str, mask: str) -> None:
    model = masked(PUBLISHED[name], mask)
    inputs = images(model)
    silent, _ = silence(model, inputs)
    removal = remove_unused_paths(silent, inputs)
    assert float((removal.model(inputs) - silent(inputs)).abs().max()) < TOLERANCE
    assert nonzero(removal.model) < nonzero(silent)
    assert removal.sweeps <= 5


@torch.no_grad()
def test_what_is_left_is_a_fixed_point_and_lies_in_its_masks() -> None:
    silent, _ = silence(masked(resnet18, "both"), images(resnet18()))
    once = remove_unused_paths(silent, images(silent))
    twice = remove_unused_paths(once.model, images(silent))
    assert twice.sweeps == 1
    assert all(torch.equal(value, once.model.state_dict()[name]) for name, value in twice.model.state_dict().items())
    for name, mask in once.kept.items():
        parameter = once.model.get_parameter(name)
        assert mask.shape == parameter.shape
        assert not parameter[~mask].any()
        assert torch.equal(parameter[mask], silent.get_parameter(name)[mask])


@torch.no_grad()
def test_half_of_the_filters_leave_a_quarter_of_an_inner_layer() -> None:
    silent, _ = silence(masked(chain, "filter"), images(chain()))
    removed = remove_unused_paths(silent, images(silent)).model
    inner = [module.weight for module in removed.modules() if isinstance(module, nn.Conv2d)][1:]
    assert [int(weight.count_nonzero()) * 4 for weight in inner] == [weight.numel() for weight in inner]


def by_hand(weights: list[Tensor]) -> list[Tensor]:
    """Return a chain's weights without unused paths: rows and columns dropped in turn until nothing changes."""
    weights = [weight.clone() for weight in weights]
    while True:
        before = [weight.clone() for weight in weights]
        for first, second in itertools.pairwise(weights):
            second[:, ~first.any(1)] = 0
            first[~second.any(0)] = 0
        if all(map(torch.equal, before, weights)):
            return weights


@torch.no_grad()
def test_a_chain_is_what_rows_and_columns_dropped_in_turn_give() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        layers = [nn.Linear(9, 9, bias=False) for _ in range(4)]
        for layer in layers:
            layer.weight.mul_(torch.rand(9, 9) < 0.15)
        removal = remove_unused_paths(nn.Sequential(*layers), torch.zeros(1, 9))
        expected = by_hand([layer.weight for layer in layers])
        found = [parameter.detach() for parameter in removal.model.parameters()]
        inner = zip(found[1:-1], expected[1:-1], strict=True)
        assert all(torch.equal(one, other) for one, other in inner)
        assert torch.equal(found[-1], expected[-1])


@torch.no_grad()
def test_a_stream_is_dead_only_where_all_its_producers_are() -> None:
    model = masked(resnet18, "filter", dropped=0.0)
    inputs = images(model)
    stem, inner, reader = (model.get_submodule(name) for name in ("conv1", "layer1.0.conv2", "layer1.1.conv1"))
    stem.weight[:4] = 0
    inner.weight[2:6] = 0
    silent, _ = silence(model, inputs)
    removed = remove_unused_paths(silent, inputs).model
    first = removed.get_parameter("layer1.0.conv1.weight").flatten(2).any(2).any(0)
    second = removed.get_parameter("layer1.1.conv1.weight").flatten(2).any(2).any(0)
    assert (~first).nonzero().flatten().tolist() == [0, 1, 2, 3]  # the stem alone feeds it
    assert (~second).nonzero().flatten().tolist() == [2, 3]  # both must be zero
    assert reader.weight.any()


@torch.no_grad()
def test_a_producer_goes_only_when_nobody_later_reads_its_map() -> None:
    model = masked(resnet18, "filter", dropped=0.0)
    inputs = images(model)
    readers = ("layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.0.downsample.0")
    for number, name in enumerate(readers):
        model.get_parameter(f"{name}.weight")[:, : 4 - number] = 0
    removed = remove_unused_paths(model, inputs).model
    assert float((removed(inputs) - model(inputs)).abs().max()) < TOLERANCE
    for name in ("conv1", "layer1.0.conv2", "layer1.1.conv2"):
        assert (~removed.get_parameter(f"{name}.weight").flatten(1).any(1)).nonzero().flatten().tolist() == [0], name
        norm = removed.get_submodule(name.replace("conv", "bn"))
        assert norm.weight[0] == norm.bias[0] == 0


@torch.no_grad()
def test_an_empty_filter_that_writes_a_constant_is_in_use() -> None:
    model = masked(lenet5, "filter")
    inputs = images(model)
    loud = remove_unused_paths(model, inputs).model
    assert float((loud(inputs) - model(inputs)).abs().max()) < TOLERANCE
    silent, kept = silence(model, inputs)
    assert float((silent(inputs) - model(inputs)).abs().max()) > TOLERANCE  # why it belongs before the retraining
    assert nonzero(remove_unused_paths(silent, inputs).model) < nonzero(loud)
    empty = ~model.conv1.weight.flatten(1).any(1)
    assert torch.equal(~kept["conv1.bias"], empty)
    assert not silent.conv1.bias[empty].any()
    assert "fc2.bias" not in kept  # a logit is no map


class Mixed(nn.Module):
    """Channels go through a softmax, which mixes them, and a weight is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.second(self.second(self.first(x).softmax(1))))
        return result


@torch.no_grad()
def test_what_is_not_known_is_left_alone() -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    model.first.weight[:3] = 0
    model.first.bias.zero_()
    model.last.weight[:, :2] = 0
    inputs = torch.randn(4, 6)
    removed = remove_unused_paths(model, inputs).model
    assert torch.equal(removed(inputs), model(inputs))
    assert torch.equal(removed.second.weight, model.second.weight)


def test_an_example_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"cannot follow Concatenated on an example of shape \(1, 5, 8, 8\)"):
        remove_unused_paths(Concatenated(), torch.zeros(1, 5, 8, 8))
