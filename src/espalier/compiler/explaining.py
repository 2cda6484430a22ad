"""What a compiled network consists of, kernel by kernel: structure, template, expected and measured speed, and why it is no higher."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, overload

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.filters_search import SCHEDULE
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.program import Program, site_of
from espalier.compiler.reasons import Machine, expected_share, reasons
from espalier.compiler.searching import Tuned

WIDTH = 160  # characters of the table as text


@dataclass(frozen=True)
class Line:
    """What ``explain`` says of one kernel.

    Args:
        source: Module path it came from.
        op: Operator of the graph.
        shape: Its result.
        structure: What pruning left of its weight: a label, ``dense``, or nothing where it has none.
        template: Kernel template.
        detail: Its knobs.
        macs: Multiply-adds it carries out, stored zeros included; of template W those in the transform domain, fewer than ``macs_dense``.
        macs_dense: Those of the dense layer.
        expected_share: Of the peak that its kernel should reach; None for kernels that multiply nothing.
        expected_gflops: The same of the measured peak; None where this machine's was not measured.
        reasons: Why it is not faster, the worst first.
        gain: How many times as fast as the rule's kernel it was when it was tuned; None where it was not.
        microseconds: Median time, barrier included, of an operator of PyTorch the mean; None where it was not measured.
    """

    source: str
    op: str
    shape: tuple[int, ...]
    structure: str
    template: str
    detail: str
    macs: int
    macs_dense: int
    expected_share: float | None = None
    expected_gflops: float | None = None
    reasons: tuple[str, ...] = ()
    gain: float | None = None
    microseconds: float | None = None

    @property
    def gflops(self) -> float | None:
        """Return 1e9 floating-point operations a second, two for each of ``macs``, so that none lies above the machine's peak.

        None where nothing was timed or multiplied.
        """
        return 2e-3 * self.macs / self.microseconds if self.microseconds and self.macs else None


@dataclass(frozen=True)
class Explanation(Sequence[Line]):
    """The lines of a network, which print as a table.

    Args:
        lines: One a kernel, in order.
        note: What disturbed its times and expectations; empty where nothing did.
    """

    lines: tuple[Line, ...]
    note: str = ""

    @overload
    def __getitem__(self, index: int) -> Line: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Line]: ...

    def __getitem__(self, index: int | slice) -> Line | Sequence[Line]:
        return self.lines[index]

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def as_json(self) -> list[dict[str, Any]]:
        """Return plain values, those that lines compute among them."""
        return [{**asdict(line), "gflops": line.gflops} for line in self.lines]

    def __rich__(self) -> Table:
        table = Table(
            "layer", "op", "result", "structure", "kernel", "us", "GFLOP/s", "expected", "why not more", caption=escape(self.note) or None
        )
        for column in table.columns[5:8]:
            column.no_wrap, column.justify = True, "right"
        for line in self.lines:
            tuned = "" if line.gain is None else f" tuned {line.gain:.2f}x" if line.gain > 1 else " tuned, rule stays"
            kernel = f"{line.template} {line.detail}{tuned}"
            cells = (line.source, line.op, "x".join(map(str, line.shape)), line.structure, kernel)
            figures = (_number(line.microseconds, ".1f"), _number(line.gflops, ".0f"), _expected(line))
            table.add_row(*map(escape, cells), *figures, escape("; ".join(line.reasons)))
        return table

    def __str__(self) -> str:
        console = Console(width=WIDTH, color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip("\n")


def explanation(made: Program, machine: Machine, tuned: Mapping[str, Tuned], seconds: Sequence[float] | None = None) -> Explanation:
    """Return the lines of a program.

    Args:
        made: The program.
        machine: What it runs on.
        tuned: Node -> what tuning found.
        seconds: Measured time of each step; None where nothing was timed.
    """
    times = [None] * len(made.steps) if seconds is None else seconds
    return Explanation(tuple(_line(made, number, machine, tuned, time) for number, time in enumerate(times)))


def _line(made: Program, number: int, machine: Machine, tuned: Mapping[str, Tuned], seconds: float | None) -> Line:
    node, kernel, site = made.steps[number].node, made.steps[number].kernel, site_of(made, number)
    key = node.constants.get("weight", "")
    multiplies = node.op in ("conv", "linear")
    weight = made.graph.constants.get(key)
    positions = math.prod(node.shape[2:] if node.op == "conv" else node.shape[:-1]) * (4 if node.attributes.get("pool") else 1)
    share = expected_share(site, kernel, machine)
    found = tuned.get(node.name)
    return Line(
        node.source,
        node.op,
        node.shape,
        made.graph.structures.get(key, "dense") if multiplies else "",
        kernel.template,
        " ".join(filter(None, [kernel.detail, *_schedule(kernel)])),
        kernel.macs,
        weight.numel() * positions if multiplies and weight is not None else kernel.macs,
        share,
        None if share is None or machine.ceilings is None else share * machine.ceilings.fma_gflops,
        tuple(reason.text for reason in reasons(site, kernel, machine)),
        None if found is None else found.gain,
        None if seconds is None else 1e6 * seconds,
    )


def _schedule(kernel: Kernel) -> list[str]:
    """Return the knobs that leave blocks and tile as they are, where they are not the rule's."""
    if not isinstance(kernel.choice, Choice):
        return []
    usual = {one.name: one.default for one in fields(Choice)}
    return [f"{name}={value}" for name in SCHEDULE if (value := getattr(kernel.choice, name)) != usual[name]]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _expected(line: Line) -> str:
    if line.expected_gflops is not None:
        return f"{line.expected_gflops:.0f}"
    return "" if line.expected_share is None else f"{100 * line.expected_share:.0f} % of peak"
