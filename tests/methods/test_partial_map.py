"""Partial maps: which share of the weights is pinned when."""

import pytest
import torch
from torch import nn

from espalier.constraints import Assignment, Target, UniformLevels
from espalier.methods import PartialMap


@pytest.mark.parametrize(
    ("epochs", "shares"),
    [(3, [0.3, 0.6, 0.9]), (6, [0.3, 0.3, 0.6, 0.6, 0.9, 0.9]), (2, [0.6, 0.9]), (1, [0.9])],
)
def test_the_last_round_has_its_epochs_however_short_the_step(epochs: int, shares: list[float]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(50, 40)
    sets = Assignment([((Target("weight"),), UniformLevels(bits=2, zero=False))])
    method = PartialMap(sets, epochs=epochs, fractions=[0.3, 0.6, 0.9])
    method.start(model)
    pinned = []
    for _ in range(epochs):
        pinned.append(float(method.held.pinned[Target("weight")].float().mean()))
        method.epoch_end(model)
    assert pinned == pytest.approx(shares, abs=0.003)  # per level, rounded up
