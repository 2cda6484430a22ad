"""Pattern checks: energies against plain sums, records against the quoted figures."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import context, sparse
from torch import nn

from espalier.constraints import GreedyPatterns, PatternKernels, Patterns, assign, library
from espalier.metrics import unknown
from espalier.steps import State, index_storage, library_energy, pattern_energy
from espalier.steps.check_patterns import energies
from espalier.storage import relative_size
from espalier.tables.published import table

SETTINGS: dict[str, Any] = {"filters": 256, "channels": 256, "rate": 3.56, "library_name": "std8", "weight_bits": 8}


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 4))


def test_energies_are_shares_of_sums() -> None:
    drawn = torch.randn(30, 9, generator=torch.Generator().manual_seed(0))
    squares = drawn.double().square().tolist()
    kept = sum(max(sum(kernel[at] for at in pattern) for pattern in library("tee4").patterns) for kernel in squares)
    best = sum(sum(sorted(kernel)[-4:]) for kernel in squares)
    assert energies(drawn, library("tee4")) == pytest.approx((kept / sum(map(sum, squares)), kept / best))


def test_the_quoted_energies_come_out(tmp_path: Path) -> None:
    for row in table("privacy-pruning/library_energy").rows:
        after = library_energy(State(), context(tmp_path), library_name=row, num_kernels=20_000)
        quoted = table("privacy-pruning/library_energy").rows[row].cells
        assert {name: cell.value for name, cell in quoted.items()} == pytest.approx(after.metrics, abs=0.005)
        assert unknown(after.metrics) == []


@pytest.mark.parametrize("make", [partial(Patterns, "std8"), partial(PatternKernels, 2.0, "std8"), GreedyPatterns(6)])
def test_the_energy_of_a_network_is_that_of_all_its_kernels(tmp_path: Path, make: Any) -> None:
    model = build()
    after = pattern_energy(
        State(model.state_dict()), context(tmp_path, model=build), constraint=lambda model: assign(model, make, include=["conv3x3"])
    )
    drawn = torch.cat([model[0].weight.detach().view(-1, 9), model[2].weight.detach().view(-1, 9)])
    (_, first), *_ = assign(model, make, include=["conv3x3"]).parts
    assert after.metrics["patterns/energy_vs_best4_pct"] == pytest.approx(100 * energies(drawn, first.library)[1])
    shared = set(map(frozenset, first.library.patterns)) & set(map(frozenset, library("std8").patterns))
    assert after.metrics["patterns/shared_with_std8"] == len(shared)
    assert unknown(after.metrics) == []


def test_sets_without_patterns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0\.weight takes Sparse, which has no patterns; give constraint=pattern"):
        pattern_energy(State(), context(tmp_path, model=build), constraint=partial(sparse, rate=2.0))


@pytest.mark.parametrize("row", ["kernel", "csr-absolute"])
def test_the_quoted_storage_comes_out(tmp_path: Path, row: str) -> None:
    layout: Any = row.replace("-", "_")
    after = index_storage(State(), context(tmp_path), layout=layout, **SETTINGS)
    for name, cell in table("privacy-pruning/storage").rows[row].cells.items():
        assert after.metrics[name] == pytest.approx(cell.value, rel=0.02), name
    assert unknown(after.metrics) == []
    assert ("check/index_vs_csr_relative" in after.metrics) == (row == "kernel")


def test_relative_csr_comes_out_as_quoted_where_weights_are_scattered_and_larger_where_kernels_are_gone(tmp_path: Path) -> None:
    quoted = {name: float(cell.value) for name, cell in table("privacy-pruning/storage").rows["csr-relative"].cells.items()}
    scattered = torch.rand(256, 256, 3, 3, generator=torch.Generator().manual_seed(0)) < 1 / 8
    found = relative_size(scattered, 8)
    assert found.bits / 8 / 1024 == pytest.approx(quoted["storage/total_kib"], rel=0.02)
    assert found.places / 1000 == pytest.approx(quoted["storage/index_kbit"], rel=0.02)
    after = index_storage(State(), context(tmp_path), layout="csr_relative", **SETTINGS)
    assert after.metrics["storage/index_ratio"] > quoted["storage/index_ratio"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout=csr is not one of kernel, csr_relative, csr_absolute"):
        index_storage(State(), context(tmp_path), layout="csr", **SETTINGS)  # type: ignore[arg-type]
