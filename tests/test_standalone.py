"""The reader that every card carries gives what espalier's own gives, for every form of a packed weight."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from espalier.constraints import Assignment, Pinned, Support, Target
from espalier.packing import pack, unpack
from espalier.standalone import state_dict

pytestmark = pytest.mark.tiny


def support(weight: Tensor) -> Support:
    return Support({Target("w"): weight != 0}, "unstructured")


def pinned(weight: Tensor) -> Pinned:
    return Pinned({Target("w"): weight}, {Target("w"): torch.ones_like(weight, dtype=torch.bool)})


def pinned_and_pruned(weight: Tensor) -> Pinned:
    return Pinned({Target("w"): weight}, {Target("w"): torch.ones_like(weight, dtype=torch.bool)}, {Target("w"): weight != 0})


@pytest.mark.parametrize("every", [1, 2, 40, 700, 70_000])
@pytest.mark.parametrize("held", [None, support, pinned, pinned_and_pruned])
def test_the_card_reads_what_espalier_reads(tmp_path: Path, held: Callable[[Tensor], Support | Pinned] | None, every: int) -> None:
    generator = torch.Generator().manual_seed(every)
    weight = torch.randint(1, 6, (300, 500), generator=generator).float() / 4
    weight.view(-1)[torch.arange(weight.numel()) % every != 0] = 0
    frozen = None if held is None else Assignment([((Target("w"),), held(weight))])
    pack(tmp_path / "w.safetensors", {"w": weight, "bias": torch.ones(3, dtype=torch.bfloat16)}, frozen, {})
    found = state_dict(str(tmp_path / "w.safetensors"))
    expected = unpack(tmp_path / "w.safetensors")[0]
    assert found.keys() == expected.keys() == {"w", "bias"}
    assert all(torch.equal(found[name], expected[name]) and found[name].dtype == expected[name].dtype for name in found)
    assert torch.equal(found["w"], weight)
