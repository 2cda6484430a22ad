"""Packed checkpoints: bit for bit back, as small as counted, and damage named."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from espalier.constraints import STRUCTURES, Assignment, Binary, PowerOfTwo, Sparse, Support, Target, UniformLevels, assign
from espalier.constraints.frozen import as_frozen
from espalier.models import LeNet5
from espalier.packing import content_digest, pack, unpack


def lenet5() -> LeNet5:
    torch.manual_seed(0)
    return LeNet5(width=1.0, num_classes=10, in_channels=1, batch_norm=False)


def settled(model: torch.nn.Module, assignment: Assignment) -> tuple[dict[str, Tensor], Assignment]:
    weights = assignment.read(model)
    frozen = assignment.freeze(weights)
    assignment.write(model, frozen.project(assignment.project(weights)))
    return model.state_dict(), frozen


SETS = {
    **{name: partial(Sparse, structure, 4.0) for name, structure in STRUCTURES.items()},
    "3 bits": partial(UniformLevels, 3, zero=False),
    "4 bits with zero": partial(UniformLevels, 4, zero=True),
    "powers of two": partial(PowerOfTwo, 3, zero=False),
    "binary": Binary,
}


@pytest.mark.parametrize("name", SETS)
def test_what_is_packed_comes_back_bit_for_bit_at_the_counted_size(tmp_path: Path, name: str) -> None:
    model = lenet5()
    assignment = Assignment([((Target(layer),), SETS[name]()) for layer in ("conv2.weight", "fc1.weight", "fc2.weight")])
    weights, frozen = settled(model, assignment)
    report = pack(tmp_path / "model.safetensors", weights, frozen, {"note": name})
    assert report.file_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert report.digest == content_digest(tmp_path / "model.safetensors")
    assert 0 <= report.file_bytes - report.counted_bytes <= 4096
    back, sets, meta = unpack(tmp_path / "model.safetensors")
    assert meta == {"note": name}
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)
    assert sets is not None
    read = {target: back[target.parameter] for target in sets.targets}
    assert sets.outside(read) == 0
    assert all(torch.equal(value, read[target]) for target, value in sets.project(read).items())
    held = {target: as_frozen(part) for targets, part in frozen.parts for target in targets}
    assert all(torch.equal(as_frozen(part).kept(target), held[target].kept(target)) for (target,), part in sets.parts)


def test_lenet5_at_246x_is_at_least_60_times_smaller(tmp_path: Path) -> None:
    model = lenet5()
    kept = {"conv1": 100, "conv2": 500, "fc1": 800, "fc2": 350}
    weights, frozen = settled(model, assign(model, partial(Sparse, STRUCTURES["unstructured"]), kept=kept))
    small, dense = tmp_path / "small.safetensors", tmp_path / "dense.safetensors"
    pack(small, weights, frozen, {})
    pack(dense, weights, None, {})
    assert sum(int(weights[f"{layer}.weight"].count_nonzero()) for layer in kept) == 1750
    assert dense.stat().st_size > 60 * small.stat().st_size


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 510, 65534, 65535, 65536, 131070])
def test_every_gap_between_kept_weights_survives(tmp_path: Path, gap: int) -> None:
    mask = torch.zeros(3 + 2 * gap, dtype=torch.bool)
    mask[[gap, 1 + 2 * gap]] = True
    weight = torch.where(mask, torch.arange(1.0, mask.numel() + 1), 0.0)
    frozen = Assignment([((Target("weight"),), Support({Target("weight"): mask}, "unstructured"))])
    pack(tmp_path / "w.safetensors", {"weight": weight}, frozen, {})
    assert torch.equal(unpack(tmp_path / "w.safetensors")[0]["weight"], weight)


def test_a_weight_outside_its_set_is_refused(tmp_path: Path) -> None:
    frozen = Assignment([((Target("weight"),), Support({Target("weight"): torch.tensor([True, False])}, "unstructured"))])
    with pytest.raises(ValueError, match="1 weights of weight lie outside"):
        pack(tmp_path / "w.safetensors", {"weight": torch.ones(2)}, frozen, {})
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "truncated at the end", "empty", "text", "another format"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.safetensors"
    pack(path, {"weight": torch.ones(64)}, None, {})
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(
            {
                "truncated": content[:100],
                "truncated at the end": content[:-1],
                "empty": b"",
                "text": b"hello",
                "another format": content.replace(b"packed-1", b"packed-9"),
            }[damage]
        )
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        unpack(path)
