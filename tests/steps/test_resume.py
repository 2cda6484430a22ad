"""A step killed after any of its epochs and resumed ends bit for bit as an undisturbed one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from surroundings import TRAINING, admm, context, network, pruned, sparse
from torch import nn

from espalier.constraints import Assignment, UniformLevels, assign
from espalier.methods import PartialMap
from espalier.steps import Context, State, constrain, retrain, train

EPOCHS = 4
levels = partial(assign, make=partial(UniformLevels, 3, zero=False))
partial_map = partial(PartialMap, fractions=[0.3, 0.6, 0.9])


def constrained(constraint: Callable[[nn.Module], Assignment], method: Callable, state: State, surroundings: Context) -> State:
    return constrain(state, surroundings, epochs=EPOCHS, **TRAINING, method=method, constraint=constraint, freeze=True)


STEPS: dict[str, tuple[bool, Callable[[State, Context], State]]] = {  # whether it starts from a pruned network, the step
    "train": (False, partial(train, epochs=EPOCHS, **TRAINING)),
    "admm": (False, partial(constrained, sparse, admm)),
    "admm within frozen zeros": (True, partial(constrained, partial(sparse, rate=6.0), admm)),
    "partial map": (False, partial(constrained, levels, partial_map)),
    "partial map within frozen zeros": (True, partial(constrained, levels, partial_map)),
    "masked retraining": (True, partial(retrain, epochs=EPOCHS, **TRAINING)),
}


def started(from_pruned: bool, folder: Path) -> State:
    return pruned(context(folder, batch_norm=True)) if from_pruned else State(network(batch_norm=True).state_dict())


@pytest.mark.parametrize("killed_after", range(1, EPOCHS + 1))
@pytest.mark.parametrize("name", STEPS)
def test_a_killed_step_ends_as_an_undisturbed_one(tmp_path: Path, name: str, killed_after: int) -> None:
    from_pruned, step = STEPS[name]
    start = started(from_pruned, tmp_path)

    def kill(progress: int, _: dict[str, float]) -> None:
        if progress == killed_after:
            raise KeyError("killed")

    undisturbed = step(start, context(tmp_path / "undisturbed", batch_norm=True, bn_images=32))
    with pytest.raises(KeyError, match="killed"):
        step(start, context(tmp_path / "killed", batch_norm=True, bn_images=32, on_epoch=kill))
    resumed = step(start, context(tmp_path / "killed", batch_norm=True, bn_images=32))
    assert resumed.series == undisturbed.series
    assert resumed.metrics == undisturbed.metrics
    assert resumed.epochs == undisturbed.epochs
    assert all(torch.equal(value, resumed.weights[key]) for key, value in undisturbed.weights.items())
    if undisturbed.frozen is not None:
        assert resumed.frozen is not None
        resumed.save(tmp_path / "a")
        undisturbed.save(tmp_path / "b")
        assert (tmp_path / "a" / "state.safetensors").read_bytes() == (tmp_path / "b" / "state.safetensors").read_bytes()
