"""What this machine is, and what else it is doing: plain data for records and timings."""

import os
import platform
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RELEVANT_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_bf16",
    "avx512_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "neon",
    "asimd",
)


STAT = Path("/proc/stat")
BUSY_CPUS = 0.1  # that others use: above it, times are not those of this machine alone
MOVED = 1.5  # ratio of the fork-join times before and after from which threads are said to have moved


@dataclass(frozen=True)
class CpuDevice:
    """A CPU as the kernel describes it.

    Args:
        name: Model name.
        flags: Instruction sets that our kernels or the engines care about.
        num_cores: Cores this process may use.
    """

    name: str
    flags: tuple[str, ...]
    num_cores: int

    def __str__(self) -> str:
        return f"{self.name} ({self.num_cores} cores; {' '.join(self.flags)})"


def allowed_cpus() -> frozenset[int]:
    """Return the CPUs that this process may use; all of them where the system cannot tell."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def num_cores() -> int:
    """Return the cores that this process may use."""
    return len(allowed_cpus())


def check_threads(num_threads: int, word: str = "num_threads") -> None:
    """Check that threads which wait by spinning would each have a core.

    Args:
        num_threads: Threads.
        word: What the message calls them.

    Raises:
        ValueError: They are no whole number, none, or more than the cores that this process may use.
    """
    most = num_cores()
    if type(num_threads) is not int or not 1 <= num_threads <= most:
        raise ValueError(f"{word}={num_threads!r}: this process may use {most} core{'s' * (most > 1)}; give 1 to {most}.")


def check_cpus(cpus: Sequence[int]) -> None:
    """Check that threads which wait by spinning would each have one of these CPUs to themselves.

    Args:
        cpus: CPU of each thread.

    Raises:
        ValueError: One is named twice, or this process may not use it.
    """
    if twice := sorted({one for one in cpus if list(cpus).count(one) > 1}):
        raise ValueError(f"cpus={list(cpus)} names {twice} more than once: threads wait by spinning; give each a CPU of its own.")
    if beyond := sorted(set(cpus) - allowed_cpus()):
        raise ValueError(f"cpus={list(cpus)} names {beyond}, which this process may not use; it may use {sorted(allowed_cpus())}.")


def cpu() -> CpuDevice:
    """Return the CPU of this machine; detected, never assumed."""
    facts = _facts()
    name = " ".join(filter(None, [facts.get("model name") or platform.processor() or platform.machine(), _family(facts)]))
    present = cpu_flags()
    return CpuDevice(name, tuple(flag for flag in RELEVANT_FLAGS if flag in present), num_cores())


def cpu_flags() -> frozenset[str]:
    """Return all instruction sets that the kernel lists for this CPU, by its names."""
    facts = _facts()
    return frozenset(facts.get("flags", facts.get("Features", "")).split())


def others_cpu_s() -> float | None:
    """Return the CPU seconds that other processes and other guests have used since the start; None where the kernel is not Linux."""
    if not STAT.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, STAT.read_text(encoding="ascii").split(maxsplit=9)[1:9])
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]  # children that ended, as C compilers do
    busy_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy_s - sum(one.ru_utime + one.ru_stime for one in own)


class OthersCpus:
    """How many CPUs other processes and guests use, from its making on."""

    def __init__(self) -> None:
        self._begun, self._before_s = time.monotonic(), others_cpu_s()

    def used(self) -> float:
        """Return how many they used on average until now; 0 where the kernel does not tell."""
        after_s, seconds = others_cpu_s(), time.monotonic() - self._begun
        return 0.0 if after_s is None or self._before_s is None or seconds <= 0 else (after_s - self._before_s) / seconds


def moved(*fork_join_ns: float) -> bool:
    """Return whether CPUs changed places between two fork-join times, as hypervisors have them do."""
    return max(fork_join_ns) > MOVED * min(fork_join_ns)


def _facts() -> dict[str, str]:
    """Return what the kernel says of the first CPU."""
    facts: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    return facts


def _family(facts: dict[str, str]) -> str:
    if "cpu family" not in facts:
        return ""
    return f"family {facts['cpu family']} model {facts.get('model', '?')}"
