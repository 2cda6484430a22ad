"""The layers of the compiler's studies, and one contest over a layer: other engines' dense code beside our code, dense and pruned.

Our dense code takes part twice. ``dense`` is template F at rate 1, the kernel of the sparse layers with nothing left out: the share of a
rate that becomes speed is counted against it. ``dense (as compiled)`` is what a user gets of a dense layer, Winograd's filtering where the
compiler finds it faster: speed-ups are counted against the best dense code there is, this and other engines' alike.

A layer is timed as a chain of ``CHAIN`` like it, so that bringing the input to an engine's own format and the output back counts little;
a layer with other channels than filters alternates with its reverse, which takes as many operations. Masks are drawn at random with a
seed, and rates are counted in what the compiler's passes leave: channels that nobody reads are gone. Every contestant's output is checked
before it is timed, and all take turns.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from suite_results import Entry
from torch import Tensor, nn

from espalier import bench_result
from espalier.compiler import CompiledNetwork, compile_model
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.constraints import Sparse, Structure, assign
from espalier.frames.contending import Contention, Contestant, contend, explained
from espalier.frames.engines import ENGINES, TOLERANCES, Unable, named
from espalier.frames.engines.engine import affinity_kept, stdout_held
from espalier.frames.machine import machine_lock
from espalier.untrained import prune_at_random

PEERS = ("onnxruntime", "openvino", "mnn")
LEFT_OUT = "To save time, pytorch-eager and torch-compile take no part unless `--engines` names them; either could be the best engine."
CHAIN = 4  # layers
BIAS_STD = 0.01  # small, so that the input still tells in the output of a pruned chain
RATE_ONE, AS_COMPILED = "dense", "dense (as compiled)"
MIN_TURNS = 5
RUNS_A_TURN = 8  # runs of a network whose kernels are timed, before the next one takes its turn


@dataclass(frozen=True)
class Layer:
    """A convolution of stride 1 that keeps the map's size.

    Args:
        channels: Of its input.
        filters: Of its result.
        kernel: Sizes; two axes or three.
        size: Of the map.
    """

    channels: int
    filters: int
    kernel: tuple[int, ...]
    size: tuple[int, ...]

    def __str__(self) -> str:
        kernel, size = ("x".join(map(str, sizes)) for sizes in (self.kernel, self.size))
        return f"{self.channels}-{self.filters}_{kernel}_{size}"

    @property
    def gflop(self) -> float:
        """Return its 1e9 floating-point operations, two for a multiply-add, those on the border's zeros included."""
        return 2e-9 * self.num_weights * torch.Size(self.size).numel()

    @property
    def num_weights(self) -> int:
        """Return how many weights it has, without biases."""
        return self.channels * self.filters * torch.Size(self.kernel).numel()

    def chain(self, seed: int) -> nn.Module:
        """Return ``CHAIN`` of it with seeded weights, there and back, and ReLUs between them.

        There is none behind the last: MNN's converter loses the weights of a 3-D convolution whose ReLU is the network's output.
        """
        generator = torch.Generator().manual_seed(seed)
        conv: Callable[..., nn.Conv2d | nn.Conv3d] = nn.Conv2d if len(self.kernel) == 2 else nn.Conv3d
        padding = tuple(size // 2 for size in self.kernel)
        ways = [(self.channels, self.filters), (self.filters, self.channels)] * (CHAIN // 2)
        convs = [conv(channels, filters, self.kernel, padding=padding) for channels, filters in ways]
        for layer in convs:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.normal_(layer.bias, 0.0, BIAS_STD, generator=generator)
        chain = [module for layer in convs for module in (layer, nn.ReLU())][:-1]
        return nn.Sequential(*chain).eval().requires_grad_(requires_grad=False)


THREE, CUBE, ONE = (3, 3), (3, 3, 3), (1, 1)
LAYERS: dict[str, Layer] = {
    str(layer): layer
    for layer in (
        Layer(64, 64, THREE, (32, 32)),
        Layer(256, 256, THREE, (8, 8)),
        Layer(512, 512, THREE, (4, 4)),
        Layer(512, 512, THREE, (2, 2)),
        Layer(64, 64, THREE, (56, 56)),
        Layer(256, 256, THREE, (14, 14)),
        Layer(256, 64, ONE, (56, 56)),
        Layer(512, 2048, ONE, (7, 7)),
        Layer(96, 576, ONE, (14, 14)),
        Layer(24, 144, ONE, (56, 56)),
        Layer(64, 128, CUBE, (16, 56, 56)),  # C3D's conv2
        Layer(256, 256, CUBE, (8, 28, 28)),  # its conv3b
        Layer(512, 512, CUBE, (4, 14, 14)),  # its conv4b
    )
}


def contest(
    layer: Layer,
    masked: Mapping[str, tuple[Structure, float]],
    *,
    num_threads: int,
    peers: Sequence[str],
    num_runs: int,
    budget_s: float,
    turns: int = 0,
) -> Entry:
    """Return the times of the peers, of our two dense codes, and of our code for each mask, of a chain of a layer.

    Args:
        layer: What is timed.
        masked: Name -> structure and rate of its mask.
        num_threads: Threads of every contestant.
        peers: Engines that run the dense chain.
        num_runs: Rounds.
        budget_s: Seconds after which no further round begins, once there have been ten.
        turns: How often the kernels of each of our codes whose outputs are right are timed by themselves; 0 leaves them out.
    """
    dense = layer.chain(seed=0)
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(1, layer.channels, *layer.size, generator=generator) for _ in range(2)]
    contestants, absent = _peers(dense, inputs[0], peers, num_threads)
    rates: dict[str, float] = {}
    with ExitStack() as stack, torch.inference_mode():
        templates: dict[str, str] = {}
        codes: dict[str, CompiledNetwork] = {}
        for name, winograd in ((AS_COMPILED, True), (RATE_ONE, False)):
            ours = stack.enter_context(compile_model(dense, inputs[0], num_threads=num_threads, dense=True, winograd=winograd))
            contestants[name], templates[name], codes[name] = Contestant(ours, TOLERANCES["fp32"]), _template(ours), ours
        for name, (structure, rate) in masked.items():
            model = layer.chain(seed=0)
            sets = prune_at_random(model, assign(model, partial(Sparse, structure), rate=rate), generator)
            compiled = stack.enter_context(compile_model(model, inputs[0], num_threads=num_threads, frozen=sets))
            left = _non_zeros(compiled)
            if not left:
                absent[name] = "its masks leave no path through the chain"
                continue
            rates[name] = CHAIN * layer.num_weights / left
            templates[name], codes[name] = _template(compiled), compiled
            contestants[name] = Contestant(compiled, TOLERANCES["fp32"], [model(x) for x in inputs])
        wanted = [dense(x) for x in inputs]
        found = contend(
            contestants, inputs, wanted, num_threads=num_threads, num_runs=num_runs, budget_s=budget_s, fork_join=ours.fork_join_ns
        )
        right = {name: compiled for name, compiled in codes.items() if found.outcomes[name].status == "ok"}
        kernels = _kernels(right, turns, budget_s) if turns else {}
    entry = _entry(layer, found, absent, rates, templates) | {"num_threads": num_threads, "precision": "fp32"}
    for name, lines in kernels.items():
        entry["ours"][name]["kernels"] = lines
    return entry


def _peers(model: nn.Module, x: Tensor, names: Sequence[str], num_threads: int) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Return the engines that took the layer, and why the others did not."""
    ready: dict[str, Contestant] = {}
    absent: dict[str, str] = {}
    for engine in named(names):
        reason = engine.missing()
        if reason is None:
            try:
                with affinity_kept(), stdout_held():
                    ready[engine.name] = Contestant(engine.prepare(model, x, num_threads=num_threads), TOLERANCES[engine.precision])
            except Unable as unable:
                reason = str(unable)
            except Exception as failure:  # noqa: BLE001  whatever a peer raises is shown as its reason
                reason = explained(failure)
        if reason is not None:
            absent[engine.name] = reason
    return ready, absent


def _kernels(codes: Mapping[str, CompiledNetwork], turns: int, budget_s: float) -> dict[str, list[Entry]]:
    """Return what each convolution of each code takes by itself, barrier included: the median over turns that they take in order.

    Turns in which other processes disturbed a code do not count for it; a code that none is left for has no entry.
    """
    microseconds: dict[str, list[list[float]]] = {name: [] for name in codes}
    with machine_lock():
        start = time.monotonic()
        for turn in range(turns):
            if turn >= MIN_TURNS and time.monotonic() - start > budget_s:
                break
            for name, compiled in codes.items():
                told = compiled.explain(num_runs=RUNS_A_TURN)
                if not told.note:
                    microseconds[name].append([line.microseconds for line in told if line.op == "conv" and line.microseconds is not None])
    found = {}
    for name, compiled in codes.items():
        steps = [step.kernel for step in compiled.program.steps if step.node.op == "conv"]
        if microseconds[name]:
            medians = [statistics.median(times) for times in zip(*microseconds[name], strict=True)]
            found[name] = [
                {"microseconds": us, "macs": kernel.macs, "columns": _columns(kernel)} for us, kernel in zip(medians, steps, strict=True)
            ]
    return found


def _columns(kernel: Kernel) -> float | None:
    """Return how many columns a block of template F keeps, the mean; None for another template."""
    return float(np.diff(kernel.arrays["start"]).mean()) * kernel.choice.channels if isinstance(kernel.choice, Choice) else None


def _template(compiled: CompiledNetwork) -> str:
    return " / ".join(dict.fromkeys(f"{line.template} {line.detail}" for line in compiled.explain() if line.op == "conv"))


def _non_zeros(compiled: CompiledNetwork) -> int:
    """Return how many weights of convolutions are not zero after the passes."""
    graph = compiled.program.graph
    return sum(int(graph.constants[node.constants["weight"]].count_nonzero()) for node in graph if node.op == "conv")


def _entry(layer: Layer, found: Contention, absent: Mapping[str, str], rates: Mapping[str, float], templates: Mapping[str, str]) -> Entry:
    peers, ours = {}, {}
    for name, outcome in found.outcomes.items():
        if name in templates:
            facts = asdict(bench_result.Entry.of(name, version("espalier"), "fp32", outcome))
            ours[name] = facts | {"rate": rates.get(name, 1.0), "template": templates[name]}
        else:
            peers[name] = asdict(bench_result.Entry.of(name, ENGINES[name].version(), ENGINES[name].precision, outcome))
    dense = {name: median_ms(one) for name, one in [*peers.items(), (AS_COMPILED, ours[AS_COMPILED])]}
    timed = {name: ms for name, ms in dense.items() if ms is not None}
    timed_peers = [name for name in timed if name in peers]
    best = min(timed, key=timed.__getitem__) if timed else None
    return {
        "gflop": layer.gflop,
        "chain": CHAIN,
        "peers": peers,
        "ours": ours,
        "best_peer": min(timed_peers, key=timed.__getitem__) if timed_peers else None,
        "best_dense": None if best is None else {"name": _shown(best), "ms": timed[best]},
        "reasons": {**absent, **{name: f"{one['status']}: {one['reason']}" for name, one in {**peers, **ours}.items() if one["reason"]}},
        "fork_join_ns": None if found.fork_join_ns is None else list(found.fork_join_ns),
        "moved": found.moved,
        "others_cpus": found.others_cpus,
    }


def median_ms(one: Entry | None) -> float | None:
    """Return the median of a contestant; None where it took no part or has no time."""
    return None if one is None else one["latency_ms_p50"]


def _shown(name: str) -> str:
    return f"espalier, {name}" if name == AS_COMPILED else name


def machine_state(entry: Entry) -> list[str]:
    """Return what a page says of the machine during an entry: fork-join before and after, whether CPUs moved, what others used of them."""
    before, after = entry["fork_join_ns"]
    others = entry["others_cpus"]
    return [f"{before:.0f} / {after:.0f}", "moved" if entry["moved"] else "no", "-" if others is None else f"{others:.2f}"]
