"""Auto-tuning (compiler spec, 4.4): which kernel of each layer is the fastest on this machine, found by trying, and kept.

The rule's program is the start. Layers that are alike (one key) are searched once, those with the most multiply-adds first, until the
budget ends; the rest keep the rule's kernels. What was found is kept in the user's cache folder after every layer, so that a search goes
on where another one ended, and one that ended is none the next time.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from espalier.compiler.kept import Kept
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.templates import lowered_by, templates_of
from espalier.compiler.masks import DETECTED
from espalier.compiler.program import Program, site_of, with_kernels
from espalier.compiler.runtime.building import HERE, SHIPPED, cache_folder
from espalier.compiler.runtime.probing import l2_bytes
from espalier.compiler.runtime.toolchain import FLAGS, compiler
from espalier.compiler.searching import Tuned, searched, way_of
from espalier.devices import BUSY_CPUS, OthersCpus, cpu, cpu_flags
from espalier.progress import late_bar

LOG = logging.getLogger(__name__)
BUDGET_S = 120.0  # a network of fifty layers, half of them alike, needs about that on two cores
FILE = "tuning.json"
CODE = ("bcrc.py", "isas.py", "layouts.py", "parts.py", "searching.py", "trials.py")  # beside templates, runtime and flags
DIGEST_LENGTH = 24


@dataclass(frozen=True)
class Tuning:
    """What tuning gave for a network.

    Args:
        found: Node -> what trying gave for it, now or earlier.
        left: Nodes that keep the rule's kernel because the budget ended.
        num_searched: Kinds of layers that were searched now; the others were known.
    """

    found: Mapping[str, Tuned] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    num_searched: int = 0


def tuned(
    made: Program, *, num_threads: int, budget_s: float = BUDGET_S, cache: Path | None = None, console: Console | None = None
) -> tuple[Program, Tuning]:
    """Return the program with the fastest kernels found, and what was found.

    Args:
        made: The rule's program.
        num_threads: Threads that will run it.
        budget_s: Seconds after which no further layer is searched; 0 takes what is known and searches nothing.
        cache: Folder of what was found before; None takes ``ESPALIER_CACHE``, else the user's cache folder.
        console: Where progress is shown after two seconds; None shows none.

    Raises:
        ValueError: The budget is below 0, or the machine has no C compiler.
    """
    if not budget_s >= 0:
        raise ValueError(f"tune_budget_s={budget_s} is no time; give seconds from 0 on.")
    deadline = time.monotonic() + budget_s
    kept = Kept((cache or cache_folder()) / FILE)
    streams = streaming(made, num_threads)
    kinds = _kinds(made, num_threads, streams=streams)
    kernels: dict[str, Kernel] = {}
    known = _known(kept.entries(), kinds, made, kernels)
    found: dict[str, Tuned] = {}
    left: list[str] = []
    num_searched, others = 0, OthersCpus()
    with late_bar(console, "layers tuned", total=len(kinds), transient=True) as told:
        for kind in kinds:
            result = known.get(kind.digest)
            if result is None and time.monotonic() >= deadline:
                left += kind.names
                continue
            if result is None:
                site, rule = site_of(made, kind.numbers[0]), made.steps[kind.numbers[0]].kernel
                result = searched(site, rule, num_threads=num_threads, other_bytes=2 * l2_bytes() * streams, deadline=deadline)
                if result is None:
                    continue
                num_searched += 1
                kept.add({kind.digest: {"layer": kind.facts, **result.as_json(), "when": datetime.now(UTC).isoformat(timespec="seconds")}})
            found |= dict.fromkeys(kind.names, result)
            told(made.steps[kind.numbers[0]].node.source)
    if num_searched and (used := others.used()) > BUSY_CPUS:
        words = "other processes used %.1f CPUs while kernels were tried. The choice is kept; delete %s to try again."
        LOG.warning(words, used, kept.path)
    return _with(made, found, kernels), Tuning(found, tuple(left), num_searched)


def streaming(made: Program, num_threads: int) -> bool:
    """Return whether the weights of all layers together exceed the second caches, so that each layer finds its own no longer there."""
    return sum(array.nbytes for step in made.steps for array in step.kernel.arrays.values()) > num_threads * l2_bytes()


@dataclass(frozen=True)
class Kind:
    """Layers that are alike: what is found for one holds for all.

    Args:
        facts: What they share.
        numbers: Their steps.
        names: Their nodes.
        macs: Multiply-adds of all of them.
    """

    facts: Mapping[str, Any]
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    macs: int

    @property
    def digest(self) -> str:
        """Return the key they are kept under."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:DIGEST_LENGTH]


def _kinds(made: Program, num_threads: int, *, streams: bool) -> list[Kind]:
    """Return the kinds of layers that can be tuned, those with the most multiply-adds first."""
    kinds: dict[str, Kind] = {}
    for number, step in enumerate(made.steps):
        site = site_of(made, number)
        if not templates_of(site):
            continue
        new = Kind(
            {**facts_of(site, step.kernel, num_threads), "weights": "L3" if streams else "L2"},
            (number,),
            (step.node.name,),
            step.kernel.macs,
        )
        old = kinds.get(new.digest)
        kinds[new.digest] = new if old is None else replace(
            old, numbers=old.numbers + new.numbers, names=old.names + new.names, macs=old.macs + new.macs
        )  # fmt: skip
    return sorted(kinds.values(), key=lambda kind: -kind.macs)


def facts_of(site: Site, rule: Kernel, num_threads: int) -> dict[str, Any]:
    """Return all that what is found for a layer depends on."""
    node, graph = site.node, site.graph
    weight, mask = graph.constants[node.constants["weight"]], graph.mask(node)
    rate = 1.0 if mask is None else mask.numel() / max(1, int(mask.count_nonzero()))
    way = way_of(rule)
    return {
        "op": node.op,
        "shape": list(weight.shape),
        "inputs": [list(graph[name].shape) for name in node.inputs],
        "result": list(node.shape),
        "attributes": dict(sorted(node.attributes.items())),
        "line": getattr(site.inputs[0], "line", None),
        "structure": graph.structures.get(node.constants["weight"], "dense").removesuffix(DETECTED),
        "rate_bucket": round(2 * math.log2(rate)),  # half octaves
        "templates": templates_of(site),
        "rule": None if way is None else asdict(way),
        "isa": site.isa.name,
        "num_threads": num_threads,
        "cpu": cpu().name,
        "cpu_flags": _digest(" ".join(sorted(cpu_flags()))),
        "compiler": compiler().version,
        "code": _code(),
    }


@lru_cache
def _code() -> str:
    """Return the digest of what emits, compiles, runs and times kernels: a change of it ends what was found before."""
    folder = Path(__file__).parent
    sources = [*sorted((folder / "lowering").glob("*.py")), *(folder / name for name in CODE), *(HERE / name for name in SHIPPED)]
    return _digest("".join([*(path.read_text(encoding="utf-8") for path in sources), *FLAGS]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _known(entries: Mapping[str, Any], kinds: list[Kind], made: Program, kernels: dict[str, Kernel]) -> dict[str, Tuned]:
    """Return what the file has for these layers, and put their kernels into ``kernels``; an entry that does not fit counts for nothing."""
    found = {}
    for kind in kinds:
        if kind.digest not in entries:
            continue
        try:
            known = Tuned.of(entries[kind.digest])
            if known.way is not None:
                for name, number in zip(kind.names, kind.numbers, strict=True):
                    kernels[name] = lowered_by(site_of(made, number), known.way)
        except (KeyError, TypeError, ValueError) as error:
            LOG.warning("what was tuned for a %s is unreadable (%s): it is searched anew.", kind.facts["op"], error)
            continue
        found[kind.digest] = known
    return found


def _with(made: Program, found: Mapping[str, Tuned], kernels: Mapping[str, Kernel]) -> Program:
    """Return the program with what was found; ``kernels`` has those that are lowered already."""
    ways = {step.node.name: found[step.node.name].way for step in made.steps if step.node.name in found}
    chosen = {
        name: kernels.get(name) or lowered_by(site_of(made, number), way)
        for number, step in enumerate(made.steps)
        if (way := ways.get(name := step.node.name)) is not None
    }
    return with_kernels(made, chosen)
