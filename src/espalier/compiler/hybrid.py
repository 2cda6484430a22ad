"""A network partly in native code, partly in PyTorch: what ``fallback='torch'`` gives where the compiler lacks operators.

Its time is not the compiler's alone: whatever shows it says *hybrid*.
"""

import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import TreeSpec, tree_unflatten
from torch.utils.flop_counter import FlopCounterMode

from espalier.compiler.compiling import CompiledNetwork
from espalier.compiler.explaining import Explanation, Line
from espalier.compiler.front import checked, read_program, tree_of
from espalier.compiler.graph import Graph
from espalier.compiler.hybrid_cutting import calls, cut, macs_of
from espalier.compiler.masks import frozen_masks
from espalier.compiler.runtime.arrays import Array, apart, as_tensor, storage, taken, written
from espalier.compiler.runtime.emitted import Port
from espalier.constraints.assignment import Assignment
from espalier.workload import exported

LABEL = "hybrid"
NUM_WARMUP = 3  # passes before operators are timed
SHOWN = 3  # operators that ``hybrid`` names


class HybridNetwork:
    """Native code for what the compiler can read, PyTorch for the rest; called like a module.

    Args:
        module: The network in PyTorch, which calls the regions.
        networks: Name of a region's call -> its native code.
        macs: Multiply-adds of all regions, zeros included.
        examples: What it was cut for.
        num_threads: Threads of native code and of PyTorch.
        tree: How the model wraps its outputs; None is one tensor, or a tuple.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        networks: Mapping[str, CompiledNetwork],
        macs: int,
        examples: Sequence[Tensor],
        num_threads: int,
        tree: TreeSpec | None = None,
    ) -> None:
        self.tree = tree
        self.module, self.networks, self.num_threads = module, dict(networks), num_threads
        self.inputs = [Port(f"input{number}", tuple(example.shape)) for number, example in enumerate(examples)]
        for name, network in self.networks.items():
            module.set_submodule(name, _Native(network))
        with _threads(num_threads), torch.no_grad():
            counting = _Watching(module, _multiply_adds)
            given = counting.run(*examples)
        self.outputs = [Port(f"output{number}", tuple(result.shape)) for number, result in enumerate(given)]
        self.no_floats = [f"output{number} is {result.dtype}" for number, result in enumerate(given) if result.dtype is not torch.float32]
        self.kept = {storage(tensor) for tensor in _held(module)}  # what no caller may get hold of
        self.torch_lines = {node: replace(_torch_line(node), macs=macs, macs_dense=macs) for node, macs in counting.found.items()}
        in_torch = sum(line.macs_dense for line in self.torch_lines.values())
        self.share = macs / (macs + in_torch) if macs + in_torch else 0.0

    def __repr__(self) -> str:
        return f"HybridNetwork({self.hybrid})"

    @property
    def hybrid(self) -> str:
        """Return what about it is not native code, in words."""
        names = list(dict.fromkeys(line.op for line in self.torch_lines.values()))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{self.share:.1%} of the multiply-adds compiled; {', '.join(names[:SHOWN])}{more} in PyTorch"

    @property
    def isa(self) -> str:
        """Return the instruction set of its native code."""
        return next(iter(self.networks.values())).isa

    @property
    def tuned(self) -> bool:
        """Return whether a search, now or earlier, had a say in its kernels."""
        return any(network.tuned for network in self.networks.values())

    def __call__(self, *inputs: Array, out: Array | Sequence[Array] | None = None) -> Any:
        """Run the network.

        Args:
            inputs: As the model takes them; NumPy arrays give NumPy arrays.
            out: Arrays to write to and to return, of a network whose results are all float32; None makes new ones, each of its own memory.

        Raises:
            ValueError: As ``CompiledModel`` raises it, or a result that ``out`` shall take is not float32.
        """
        placed = taken(inputs, self.inputs)
        if out is not None and self.no_floats:
            raise ValueError(f"{', '.join(self.no_floats)}; out= takes float32 alone: leave it away, and new arrays are returned.")
        outputs = None if out is None else written(out if isinstance(out, list | tuple) else [out], self.outputs, placed)
        given = [as_tensor(one.array) for one in placed]
        with _threads(self.num_threads), torch.no_grad():
            results = self.module(*given)
            if outputs is None:
                own = apart(results, self.kept | {storage(tensor) for tensor in given})
                arrays: tuple[Array, ...] = own if isinstance(inputs[0], Tensor) else tuple(result.numpy() for result in own)
            else:
                for one, result in zip(outputs, results, strict=True):
                    as_tensor(one.array).copy_(result)
                arrays = tuple(one.array for one in outputs)
        if self.tree is not None:
            return tree_unflatten(arrays, self.tree)
        return arrays[0] if len(arrays) == 1 else arrays

    def explain(self, *, num_runs: int = 0) -> Explanation:
        """Return a line for each kernel and each operator of PyTorch, in order; ``num_runs`` as ``CompiledNetwork`` has it."""
        taken: dict[fx.Node, float] = {}
        if num_runs:
            watching = _Watching(self.module, _microseconds)
            with _threads(self.num_threads), torch.no_grad():
                for number in range(NUM_WARMUP + num_runs):
                    watching.run(*(torch.zeros(port.shape) for port in self.inputs))
                    if number >= NUM_WARMUP:
                        taken = {node: taken.get(node, 0.0) + spent / num_runs for node, spent in watching.found.items()}
        lines: list[Line] = []
        regions = set(calls(self.module))
        for node in self.module.graph.nodes:
            if node in regions:
                lines += self.networks[str(node.target)].explain(num_runs=num_runs)
            elif node in self.torch_lines:
                lines.append(replace(self.torch_lines[node], microseconds=taken.get(node)))
        return Explanation(tuple(lines))

    def fork_join_ns(self) -> float:
        """Return how long handing work to all native threads and waiting for them takes."""
        return next(iter(self.networks.values())).fork_join_ns()

    def write(self, folder: Path) -> None:
        """Refuse: what PyTorch carries out cannot be written as C."""
        raise ValueError(f"cannot write {folder}: the network is a {LABEL} ({self.hybrid}), and its C would not be all of it.")

    def close(self) -> None:
        """End its native threads."""
        for network in self.networks.values():
            network.close()

    def __enter__(self) -> "HybridNetwork":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def with_torch(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    native: Callable[[Graph], CompiledNetwork],
    *,
    num_threads: int,
    frozen: Assignment | None = None,
) -> HybridNetwork:
    """Return ``model`` with all that can be compiled compiled, for a network that cannot be as a whole.

    Args:
        model: The network.
        example: Its argument, a batch of one.
        native: Graph -> native code.
        num_threads: Threads of native code and of PyTorch.
        frozen: The checkpoint's frozen sets; None detects masks from zeros.

    Raises:
        ValueError: No multiply-add of it can be compiled, or a region has no kernel.
    """
    examples = checked(example)
    program = exported(model, *examples)
    module, regions = cut(read_program(program), None if frozen is None else frozen_masks(model, frozen))
    if not regions:
        raise ValueError(f"fallback='torch' leaves nothing of {type(model).__name__} to compile; run it in PyTorch as it is.")
    networks = {region.call: native(region.graph) for region in regions}
    return HybridNetwork(module, networks, sum(macs_of(region.graph) for region in regions), examples, num_threads, tree_of(program))


class _Native(nn.Module):
    """A region's native code in its place; gives a tuple."""

    def __init__(self, network: CompiledNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        results = self.network(*inputs)
        return results if isinstance(results, tuple) else (results,)


class _Watching(fx.Interpreter):
    """Runs the network operator by operator and notes something of each that PyTorch carries out.

    Args:
        module: The network.
        watch: What to note: runs a call, returns its result and the figure.
    """

    def __init__(self, module: fx.GraphModule, watch: Callable[[Callable[[], Any]], tuple[Any, Any]]) -> None:
        super().__init__(module)
        self.watch = watch
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function" or n.target is operator.getitem:
            return super().run_node(n)
        result, self.found[n] = self.watch(lambda: super(_Watching, self).run_node(n))
        return result


def _multiply_adds(call: Callable[[], Any]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        result = call()
    return result, counter.get_total_flops() // 2


def _microseconds(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter_ns()
    result = call()
    return result, (time.perf_counter_ns() - start) / 1e3


def _torch_line(node: fx.Node) -> Line:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    value = node.meta.get("val")
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    return Line(stack[-1][0] if stack else "", str(node.target), shape, "", "torch", "PyTorch", 0, 0)


def _held(module: nn.Module) -> list[Tensor]:
    return [tensor for part in module.modules() for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Give PyTorch that many threads."""
    before = torch.get_num_threads()
    if before != number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if before != number:
            torch.set_num_threads(before)
