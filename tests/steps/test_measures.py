"""Steps that time this machine are kept by CPU, they and what follows; all others as before."""

from typing import Any

import pytest

from espalier import runner
from espalier.composing import composed, identity_of, register_rows, resolved, step_keys
from espalier.devices import CpuDevice


def identity(table: str, row: str) -> dict[str, Any]:
    register_rows(table, "smoke")
    return identity_of(resolved(composed(table, [f"row={row}", "scale=smoke", "seed=0"])), "data")


def folders(found: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(runner, "cpu", lambda: CpuDevice(device, (), 1))
    return runner.step_folders(found)


def test_a_measurement_is_not_taken_from_another_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = identity("prm/lenet5", "shrunk")
    one, other = (folders(found, device, monkeypatch) for device in ("one", "other"))
    assert [name for name in one if one[name] != other[name]] == ["shrink"]
    keys = step_keys(found)
    assert all(folder.startswith(keys[name][:16]) for name, folder in one.items())
    found["steps"].append(["after", found["steps"][-2][1]])  # its State holds the measurement too
    one, other = (folders(found, device, monkeypatch) for device in ("one", "other"))
    assert [name for name in one if one[name] != other[name]] == ["shrink", "after"]


@pytest.mark.parametrize(
    "step",
    ["ablation", "block_sizes", "kernel_errors", "product_latency", "pruning_to_performance", "search_gain", "shrink", "trained_masks"],
)
def test_steps_that_time_are_marked(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"steps": [["check", {"_target_": f"espalier.steps.{step}"}]]}
    one, other = (folders(found, device, monkeypatch) for device in ("one", "other"))
    assert one["check"] != other["check"]
