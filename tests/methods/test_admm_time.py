"""What ADMM adds to a training step of ResNet-20: the penalty's gradient and the hook after the step, against all the rest."""

import statistics
import time

import pytest
import torch
import torch.nn.functional as F

from espalier.constraints import UNSTRUCTURED, PatternKernels, Sparse, assign
from espalier.methods import ADMM, RhoSchedule
from espalier.models import CifarResNet

STEPS = 200
SHARE = 0.10  # of a step, at most
SETS = {
    "unstructured": lambda model: assign(model, lambda rate: Sparse(UNSTRUCTURED, rate), rate=8.0),
    "patterns": lambda model: assign(model, PatternKernels, rate=2.0, include=["conv3x3"], skip=["first_conv"]),
}


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.parametrize("name", SETS)
def test_admm_takes_at_most_a_tenth_of_a_step(name: str) -> None:
    """Steps with the method and without take turns, and medians are compared: a slow minute falls on both."""
    torch.manual_seed(0)
    model = CifarResNet(depth=20, width=1.0, shortcut="pad", num_classes=10, in_channels=3).to(memory_format=torch.channels_last)
    images = torch.randn(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (16,))
    admm = ADMM(SETS[name](model), epochs=2, num_periods=2, rho=RhoSchedule(1e-3, 1.0))
    admm.start(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    with_method, without, added = [], [], []
    for index in range(2 * STEPS + 4):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        if index % 2:
            admm.add_penalty_grad(model)
        optimizer.step()
        if index % 2:
            admm.after_step(model)
        spent = time.perf_counter() - start
        if index >= 4:  # the first fill caches
            (with_method if index % 2 else without).append(spent)
    for _ in range(STEPS):
        start = time.perf_counter()
        admm.add_penalty_grad(model)
        admm.after_step(model)
        added.append(time.perf_counter() - start)
    assert len(with_method) == len(without) == STEPS
    assert statistics.median(added) <= SHARE * statistics.median(without)
    assert statistics.median(with_method) <= (1 + SHARE) * statistics.median(without)
