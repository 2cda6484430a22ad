"""fp32 against bf16 autocast, contiguous against channels_last, on this CPU: time of a training step, accuracy after equal training.

    python benchmarks/precision.py steps --to benchmarks/precision_steps.md          # a minute on one core; needs ESPALIER_DATA/cifar10
    python benchmarks/precision.py accuracy --to benchmarks/precision_accuracy.md

Steps of all settings are timed in turn, round after round, so that other load on the machine meets all alike; compare ratios. At one thread
they are taken from CPU time, which leaves out what other processes took; at more from the fastest step.
"""

import argparse
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import nn

from espalier.composing import config_dir
from espalier.data import ImageData
from espalier.devices import cpu
from espalier.frames.cpu import machine_lock
from espalier.runner import built
from espalier.tasks import accuracy
from espalier.tasks.journal import reseed

MODELS = ("resnet20_cifar", "vgg_tiny")
PRECISIONS = ("fp32", "bf16")
LAYOUTS = ("contiguous", "channels_last")
Step = Callable[[], Any]
Times = dict[tuple[str, int, str, str], list[tuple[float, float]]]


def config(group: str, name: str) -> dict[str, Any]:
    """Return a config file, models with CIFAR-10's classes and channels."""
    content: dict[str, Any] = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    return content | {"num_classes": 10, "in_channels": 3} if group == "model" else content


def autocast(precision: str) -> torch.autocast:
    """Return what Lightning's ``bf16-mixed`` puts around the forward pass; nothing for fp32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, precision: str) -> None:
    """Train on one batch."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(precision):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()


def prepared(name: str, data: ImageData, precision: str, layout: str) -> Step:
    """Return a function that does one training step of a network on one batch."""
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    reseed("precision")
    model: nn.Module = built(config("model", name)).to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = next(iter(data.train_loader(0)))
    images = images.contiguous(memory_format=memory_format)
    return lambda: step_of(model, optimizer, images, labels, precision)


def step_times(data: ImageData, rounds: int, threads_tried: list[int]) -> Times:
    """Return (wall, CPU) milliseconds of each timed step by (model, threads, precision, layout)."""
    times: Times = defaultdict(list)
    steps = {
        (name, precision, layout): prepared(name, data, precision, layout)
        for name, precision, layout in itertools.product(MODELS, PRECISIONS, LAYOUTS)
    }
    for turn in range(rounds + 1):
        for threads, (key, step) in itertools.product(threads_tried, steps.items()):
            torch.set_num_threads(threads)
            with machine_lock():  # step by step: other measurements need not wait for all rounds
                taken = timed(step)
            if turn:  # the first round warms up
                times[key[0], threads, key[1], key[2]].append(taken)
    return times


def timed(step: Step) -> tuple[float, float]:
    """Return the milliseconds on the clock and those of this process's CPU time."""
    wall, processor = time.perf_counter_ns(), time.process_time_ns()
    step()
    return (time.perf_counter_ns() - wall) / 1e6, (time.process_time_ns() - processor) / 1e6


def loader_times(data: ImageData, rounds: int) -> list[float]:
    """Return the CPU milliseconds of an augmented training batch, one thread."""
    torch.set_num_threads(1)
    batches = iter(data.train_loader(0))
    return [timed(lambda: next(batches))[1] for _ in range(rounds)]


def typical(found: list[tuple[float, float]], threads: int) -> float:
    """Return the milliseconds that ratios are taken from."""
    return statistics.median(processor for _, processor in found) if threads == 1 else min(wall for wall, _ in found)


def trained(data: ImageData, precision: str, seed: int, epochs: int) -> float:
    """Return ResNet-8's test accuracy in percent, in fp32, after ``epochs`` of SGD 0.1 with a cosine."""
    torch.set_num_threads(1)
    reseed(f"precision/{seed}")
    model: nn.Module = built(config("model", "resnet8_cifar")).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loader = data.train_loader(seed)
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for images, labels in loader:
            step_of(model, optimizer, images, labels, precision)
        schedule.step()
    return accuracy(model, data.test_loader())


def steps_part(data: ImageData, rounds: int, threads_tried: list[int]) -> list[str]:
    """Time steps and batches; return the figures as lines of Markdown."""
    times, batch = step_times(data, rounds, threads_tried), loader_times(data, max(rounds, 20))
    lines = [
        "# Precision and memory format: time of a training step",
        "",
        f"Batch of 64, 3x32x32, milliseconds, {rounds} rounds in turn. The ratio is fp32 contiguous over this setting: above 1 is",
        "faster. It is taken from the median CPU time at one thread, from the fastest step at more.",
        "",
        "| model | threads | precision | layout | fastest | median | CPU median | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, threads, precision, layout), found in sorted(times.items()):
        wall = [one for one, _ in found]
        processor = statistics.median(one for _, one in found)
        ratio = typical(times[name, threads, "fp32", "contiguous"], threads) / typical(found, threads)
        cells = f"{min(wall):.1f} | {statistics.median(wall):.1f} | {processor:.1f} | {ratio:.2f}"
        lines.append(f"| {name} | {threads} | {precision} | {layout} | {cells} |")
    one, step = statistics.median(batch), typical(times["resnet20_cifar", 1, "fp32", "channels_last"], 1)
    return [
        *lines,
        "",
        f"The loader alone, one thread: an augmented batch takes {one:.2f} ms of CPU time (median of {len(batch)}),",
        f"{64_000 / one:,.0f} images/s, {100 * one / step:.1f} % of a ResNet-20 step (fp32, channels_last).",
    ]


def accuracy_part(data: ImageData, epochs: int, seeds: int) -> list[str]:
    """Train in both precisions; return the accuracies as lines of Markdown."""
    lines = [
        "# Precision: test accuracy after equal training",
        "",
        f"ResNet-8 on cifar10_5k, {epochs} epochs of SGD 0.1 with a cosine, batch 64, channels_last, one thread; evaluated in fp32 (%).",
        "",
        "| precision | " + " | ".join(f"seed {seed}" for seed in range(seeds)) + " | mean | CPU s / epoch |",
        "|---" * (seeds + 3) + "|",
    ]
    for precision in PRECISIONS:
        start = time.process_time()
        reached = [trained(data, precision, seed, epochs) for seed in range(seeds)]
        cost = (time.process_time() - start) / (seeds * epochs)
        lines.append(
            f"| {precision} | " + " | ".join(f"{one:.2f}" for one in reached) + f" | {statistics.fmean(reached):.2f} | {cost:.1f} |"
        )
    return lines


def main() -> None:
    """Measure one part, write its page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("part", choices=["steps", "accuracy"])
    arguments.add_argument("--to", type=Path, required=True, help="Markdown file to write.")
    arguments.add_argument("--rounds", type=int, default=15, help="Timed steps of each setting.")
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=2)
    chosen = arguments.parse_args()
    data: ImageData = built(config("data", "cifar10_5k"))
    lines = steps_part(data, chosen.rounds, chosen.threads) if chosen.part == "steps" else accuracy_part(data, chosen.epochs, chosen.seeds)
    lines[1:1] = ["", f"{cpu()}; torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}; benchmarks/precision.py {chosen.part}."]
    chosen.to.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
