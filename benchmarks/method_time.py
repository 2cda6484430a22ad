"""Time that a method adds to a training step of ResNet-20 (batch 64, 32x32): the aim is 5 % for EM&S.

Run by hand: ``python benchmarks/method_time.py [steps] [steps an epoch]``. Every step is timed in two parts, the network's and the
method's, so that a slow minute falls on both; medians over the steps, of CPU time, which a busy machine changes least. Masks mutate ten
times over the run, and the time of a mutation, spread over the steps of an epoch (704 on the 45,000 images of CIFAR's training split),
joins the method's.
"""

import platform
import statistics
import sys
import time
from functools import partial

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from espalier.constraints import UNSTRUCTURED, Sparse, assign
from espalier.methods import MutationSchedule, RandomGrowth, SparseTraining
from espalier.models import CifarResNet

BATCH = 64


def main(num_steps: int = 200, steps_an_epoch: int = 704) -> None:
    """Time the steps and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = CifarResNet(depth=20, width=1.0, shortcut="pad", num_classes=10, in_channels=3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    assignment = assign(model, partial(Sparse, UNSTRUCTURED), rate=10.0, include=["conv3x3"], skip=["first_conv"])
    schedule = MutationSchedule(1 / 10, [0.5625, 0.75], [0.0, 0.0, 0.0], [0.05, 0.025, 0.0])
    method = SparseTraining(assignment, epochs=10, schedule=schedule, regrowth=RandomGrowth(), gradient_weight=0.0, seed=0)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,))
    method.start(model)
    step_s, method_s, mutation_s = [], [], []
    for step in range(num_steps + 10):  # the first ten warm up
        begun = time.process_time()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        reached = time.process_time()
        method.add_penalty_grad(model)
        added = time.process_time() - reached
        optimizer.step()
        reached = time.process_time()
        method.after_step(model)
        done = time.process_time()
        added += done - reached
        if step >= 10:
            method_s.append(added)
            step_s.append(done - begun - added)
        if step >= 10 and (step - 10) % (num_steps // 10) == num_steps // 10 - 1:
            reached = time.process_time()
            method.epoch_end(model)
            mutation_s.append(time.process_time() - reached)
    plain, masks, mutation = (statistics.median(times) for times in (step_s, method_s, mutation_s))
    title = f"torch {torch.__version__}, 1 thread, median of {num_steps} steps, {platform.machine()}, {time.strftime('%Y-%m-%d')}"
    table = Table("part", "CPU time [ms]", "of a step [%]", title=title)
    for name, seconds in (
        ("step without the method", plain),
        ("masks on gradients and weights", masks),
        ("end of an epoch and mutation", mutation),
        (f"method in a step, mutation spread over {steps_an_epoch}", masks + mutation / steps_an_epoch),
    ):
        table.add_row(name, f"{1e3 * seconds:.2f}", f"{100 * seconds / plain:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
