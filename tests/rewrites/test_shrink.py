"""Physical shrinking: smaller tensors, the same outputs, replayed on load, and really smaller and faster."""

import itertools
import statistics
import time
from pathlib import Path

import pytest
import torch
from networks import MASKS, NETWORKS, PUBLISHED, Concatenated, images, lenet5, masked, padded, resnet18
from torch import Tensor, nn

import espalier
from espalier.rewrites import rewritten, shrink, shrunk, silence
from espalier.workload import workload

TOLERANCE = 1e-4  # prm, What must hold 1


@pytest.mark.parametrize(("name", "mask"), [*itertools.product(NETWORKS, MASKS)])
@torch.no_grad()
def test_the_small_network_computes_the_same_and_is_rebuilt_from_its_sizes(name: str, mask: str) -> None:
    silent, _ = silence(masked(NETWORKS[name], mask), images(NETWORKS[name]()))
    inputs = images(silent)
    small = shrunk(silent, inputs)
    assert float((small.model(inputs) - silent(inputs)).abs().max()) < TOLERANCE
    rebuilt = rewritten(NETWORKS[name](), [small.rewrite])
    rebuilt.load_state_dict(small.model.state_dict())
    assert torch.equal(rebuilt.eval()(inputs), small.model(inputs))
    if mask != "column":
        assert sum(map(Tensor.numel, small.model.parameters())) < 0.8 * sum(map(Tensor.numel, silent.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mask"), [*itertools.product(PUBLISHED, MASKS)])
@torch.no_grad()
def test_the_published_widths_compute_the_same(name: str, mask: str) -> None:
    model = masked(PUBLISHED[name], mask)
    inputs = images(model)
    silent, _ = silence(model, inputs)
    small = shrunk(silent, inputs)
    assert float((small.model(inputs) - silent(inputs)).abs().max()) < TOLERANCE
    assert sum(map(Tensor.numel, small.model.parameters())) < sum(map(Tensor.numel, silent.parameters()))


def dense_bytes(model: nn.Module, path: Path) -> int:
    return espalier.save(model, path).file_bytes


@pytest.mark.slow
@pytest.mark.timed
@torch.no_grad()
def test_the_shrunk_resnet18_is_smaller_on_disk_and_faster(tmp_path: Path) -> None:
    """Interleaved passes of both networks, one thread: at a quarter of the filters an inner layer has a sixteenth of its weights."""
    silent, _ = silence(masked(lambda: resnet18(1.0), "filter", dropped=0.75), images(resnet18(1.0)))
    example = images(silent, num=1)
    small = shrunk(silent, example).model
    assert dense_bytes(small, tmp_path / "small") < 0.6 * dense_bytes(silent, tmp_path / "large")
    assert workload(small, example).macs < 0.6 * workload(silent, example).macs
    times: dict[nn.Module, list[float]] = {silent: [], small: []}
    with torch.inference_mode():
        for _ in range(12):
            for model, taken in times.items():
                start = time.perf_counter()
                model(example)
                taken.append(time.perf_counter() - start)
    large_s, small_s = (statistics.median(taken[2:]) for taken in times.values())
    assert small_s < 0.8 * large_s


@torch.no_grad()
def test_a_shrunk_network_is_saved_and_loaded_with_its_masks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pruned = espalier.prune(lenet5().eval(), constraint="filter", rate=2, skip=("fc2",))
    loud = espalier.shrink(pruned, images(pruned))
    assert float((loud(images(pruned)) - pruned(images(pruned))).abs().max()) < TOLERANCE
    assert loud.conv2.weight.shape[:2] == (25, 10)  # its empty filters write their bias
    small = espalier.shrink(pruned, images(pruned), silent=True)
    silent, _ = silence(pruned, images(pruned))
    assert float((small(images(pruned)) - silent(images(pruned))).abs().max()) < TOLERANCE
    espalier.save(small, tmp_path / "small.safetensors")
    loaded = espalier.load(tmp_path / "small.safetensors", lenet5())
    assert torch.equal(loaded(images(pruned)), small(images(pruned)))
    assert [tuple(parameter.shape) for parameter in loaded.parameters()] == [
        (5, 1, 5, 5), (5,), (13, 5, 5, 5), (13,), (125, 208), (125,), (10, 125), (10,),
    ]  # fmt: skip
    sets = espalier.frozen(loaded)
    assert sets is not None
    assert sets.outside(sets.read(loaded)) == 0


@torch.no_grad()
def test_a_layer_without_a_used_channel_keeps_one() -> None:
    model = masked(padded, "filter", dropped=0.0)
    model.get_parameter("layer2.0.conv1.weight").zero_()
    silent, _ = silence(model, images(model))
    small = shrunk(silent, images(model))
    assert small.model.get_parameter("layer2.0.conv1.weight").shape[0] == 1
    assert float((small.model(images(model)) - silent(images(model))).abs().max()) < TOLERANCE


@torch.no_grad()
def test_a_network_in_use_everywhere_stays_whole() -> None:
    model = masked(Concatenated, "filter", dropped=0.0)
    small = shrunk(model, images(model))
    assert small.rewrite == {"_target_": "espalier.rewrites.shrink", "sizes": {}}
    assert small.change == 0


def test_sizes_of_another_network_are_named() -> None:
    with pytest.raises(ValueError, match="names layer 'conv9', which LeNet5 lacks"):
        shrink(lenet5(), sizes={"conv9": [1, 1]})
    with pytest.raises(ValueError, match=r"layer conv2 has size \[25, 10, 5, 5\], less than \[40, 10\]"):
        shrink(lenet5(), sizes={"conv2": [40, 10]})


class Hidden(nn.Module):
    """Reads a weight where the graph shows none: outputs depend on the size of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.first(x)) * self.first.out_features
        return result


@torch.no_grad()
def test_outputs_that_change_are_refused() -> None:
    torch.manual_seed(0)
    model = Hidden()
    model.last.weight[:, :3] = 0
    with pytest.raises(RuntimeError, match="shrinking Hidden changed an output"):
        shrunk(model, torch.randn(4, 4))
