"""How a rate is said: as a share of zeros, of what it counts, and in the steps that a recipe writes out."""

import pytest
import torch

from espalier.composing import composed, register_rows, resolved
from espalier.stepping import assigner, built
from espalier.workload import workload

NAME = "progressive-admm/lenet5"


def constraints(*overrides: str) -> dict[str, dict[str, object]]:
    register_rows(NAME, "smoke")
    steps = resolved(composed(NAME, ["scale=smoke", "seed=0", *overrides]))["recipe"]["steps"]
    return {name: step["constraint"] for name, step in steps.items() if "constraint" in step}


def test_sparsity_says_a_rate() -> None:
    row = "row=admm-70x"
    assert constraints(row, "constraint.rate_file=null", "sparsity=0.9")["constrain"]["rate"] == 10.0
    with pytest.raises(ValueError, match=r"rate=4 and sparsity=0\.5 are both given"):
        constraints(row, "constraint.rate_file=null", "sparsity=0.5", "rate=4")
    with pytest.raises(ValueError, match=r"sparsity=1\.5 is no"):
        constraints(row, "constraint.rate_file=null", "sparsity=1.5")


def test_what_a_rate_counts_and_gates_reach_the_first_step() -> None:
    words = ["row=progressive-70x", "constraint.rate_file=null", "recipe.first.rate_file=null", "recipe.first.rate=2", "rate=4"]
    found = constraints(*words, "rate_of=macs", "+constraint.gates=true")
    assert [(found[step]["rate"], found[step]["rate_of"], found[step]["gates"]) for step in ("constrain_1", "constrain_2")] == [
        (2, "macs", True),
        (4, "macs", True),
    ]


def test_a_first_step_by_file_keeps_its_own_rates() -> None:
    found = constraints("row=progressive-70x", "constraint.rate_file=null", "rate=4", "rate_of=macs")
    assert "rate_of" not in found["constrain_1"], "rates by layer count no model"
    assert found["constrain_2"]["rate_of"] == "macs"


@pytest.mark.parametrize("group", ["filter", "row_column"])
def test_multiply_adds_are_counted_where_the_rate_asks_for_them(group: str) -> None:
    words = ["row=admm-70x", f"constraint={group}", "rate=4", "rate_of=macs", "constraint.rate_file=null"]
    register_rows(NAME, "smoke")
    config = resolved(composed(NAME, ["scale=smoke", "seed=0", *words]))
    torch.manual_seed(0)
    model = built(config["model"])
    assignment = assigner(config["recipe"]["steps"]["constrain"]["constraint"], (1, 28, 28))(model)
    assignment.write(model, assignment.project(assignment.read(model)))
    counted = workload(model, torch.zeros(1, 1, 28, 28))
    assert counted.macs / counted.macs_effective == pytest.approx(4, rel=0.05)
