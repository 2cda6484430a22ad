"""What this machine can reach: multiply-adds, reading by level of cache, beginning and ending a region. Rooflines are drawn from these.

Measured with the runtime, threads and flags of compiled networks. Whoever calls sees to it that the machine is otherwise idle.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espalier.compiler.isas import detect
from espalier.compiler.runtime.building import HERE, build
from espalier.compiler.runtime.emitted import HEADER, network_header
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.toolchain import known_isa
from espalier.compiler.runtime.weights import aligned_blob
from espalier.devices import moved

MULTIPLY_ADDS, READING = 0, 1  # what probing.c is asked for
CHAINS, STEPS = 12, 2  # of multiply-adds: vectors, and how often a repeat takes each further
LEAST_S = 0.01  # a timed stretch; of SAMPLES of them the fastest counts, because others only disturb
SAMPLES = 5
UNKNOWN_CACHES = {2: 1 << 20, 3: 8 << 20}  # bytes, where the system does not say
MIN_DRAM_BYTES, MAX_DRAM_BYTES = 256 << 20, 1 << 30
MAX_THREADS = 1024


@dataclass(frozen=True)
class Ceilings:
    """What this machine reached with so many threads; one multiply-add counts as two operations, as in GFLOP/s of data sheets.

    Args:
        isa: Instruction set.
        num_threads: Threads, one a core.
        fma_gflops_one: Multiply-adds from registers, one thread.
        fma_gflops: The same, all threads.
        l2_gb_s: Reading what half of each core's second cache holds, all threads.
        l3_gb_s: Reading three times what the second caches hold.
        dram_gb_s: Reading what no cache holds.
        fork_join_ns: Beginning a region on all threads and waiting for its end, the shorter of before and after the rest.
        moved: Whether these two say that CPUs changed places meanwhile: the figures are of two machines.
    """

    isa: str
    num_threads: int
    fma_gflops_one: float
    fma_gflops: float
    l2_gb_s: float
    l3_gb_s: float
    dram_gb_s: float
    fork_join_ns: float
    moved: bool = False

    def __str__(self) -> str:
        return (
            f"{self.isa}, {self.num_threads} threads: {self.fma_gflops:.0f} GFLOP/s ({self.fma_gflops_one:.0f} on one), reads L2 "
            f"{self.l2_gb_s:.0f}, L3 {self.l3_gb_s:.0f}, DRAM {self.dram_gb_s:.0f} GB/s, fork-join {self.fork_join_ns:.0f} ns"
        )


def probe(num_threads: int, isa: str | None = None) -> Ceilings:
    """Measure the ceilings; takes one to three seconds.

    Args:
        num_threads: Threads, at least 1.
        isa: Instruction set; None takes the widest that this machine runs.

    Raises:
        ValueError: There is no C compiler, or as ``CompiledModel`` says.
    """
    isa = known_isa(isa).name if isa else detect().name
    l2_bytes = _cache_bytes(2)
    memory = _memory(_dram_bytes() // 4)
    with _opened(isa, memory, 1) as alone:
        fma_gflops_one = _gflops(alone, memory, isa)
    with _opened(isa, memory, num_threads) as all_threads:
        before = all_threads.fork_join_ns()
        found = Ceilings(
            isa,
            num_threads,
            fma_gflops_one,
            _gflops(all_threads, memory, isa) if num_threads > 1 else fma_gflops_one,
            _gb_s(all_threads, memory, l2_bytes // 2),
            _gb_s(all_threads, memory, min(3 * l2_bytes, memory.nbytes // num_threads)),
            _gb_s(all_threads, memory, memory.nbytes // num_threads),
            before,
        )
        after = all_threads.fork_join_ns()
        return replace(found, fork_join_ns=min(before, after), moved=num_threads > 1 and moved(before, after))


def _memory(num_floats: int) -> NDArray[np.float32]:
    """Return ones from a multiple of 64 bytes on, where no vector lies in two cache lines."""
    room = np.ones(num_floats + 16, np.float32)
    start = -(room.ctypes.data // 4) % 16
    return room[start : start + num_floats]


def _opened(isa: str, memory: NDArray[np.float32], num_threads: int) -> CompiledModel:
    return CompiledModel(build(_sources(isa, len(memory)), isa), aligned_blob(b""), num_threads=num_threads)


def _sources(isa: str, num_floats: int) -> dict[str, str]:
    info = {"isa": isa, "inputs": [[3], [num_floats]], "outputs": [[1], [MAX_THREADS]]}
    return {HEADER: network_header(info, arena_floats=1), "network.c": (HERE / "probing.c").read_text(encoding="utf-8")}


def _gflops(model: CompiledModel, memory: NDArray[np.float32], isa: str) -> float:
    return 2e-9 * known_isa(isa).lanes * CHAINS * STEPS * model.num_threads * _repeats_a_second(model, memory, MULTIPLY_ADDS, 0)


def _gb_s(model: CompiledModel, memory: NDArray[np.float32], num_bytes: int) -> float:
    """Return the rate at which each thread reads so many bytes of its own, over all threads."""
    floats = num_bytes // 4 // 128 * 128  # whole steps of the widest vectors
    return 4e-9 * floats * model.num_threads * _repeats_a_second(model, memory, READING, floats)


def _repeats_a_second(model: CompiledModel, memory: NDArray[np.float32], what: int, floats: int) -> float:
    def seconds(repeats: int) -> float:
        return float(model(np.asarray([what, repeats, floats], np.float32), memory)[0][0])

    repeats = 1
    while (taken := seconds(repeats)) < LEAST_S and repeats < 1 << 22:
        repeats = min(1 << 22, max(2 * repeats, int(1.2 * repeats * LEAST_S / max(taken, 1e-7))))
    return repeats / min(seconds(repeats) for _ in range(SAMPLES))


def _cache_bytes(level: int) -> int:
    """Return the size of the first CPU's cache of that level, as the kernel has it."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        facts = {name: (folder / name).read_text(encoding="ascii").strip() for name in ("level", "size") if (folder / name).exists()}
        size = re.fullmatch(r"(\d+)K", facts.get("size", ""))
        if facts.get("level") == str(level) and size:
            return int(size[1]) << 10
    return UNKNOWN_CACHES[level]


def _dram_bytes() -> int:
    """Return about twice the last cache, within bounds and a quarter of what is free; a power of two, so that one build serves."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_AVPHYS_PAGES" in os.sysconf_names else MAX_DRAM_BYTES
    wanted = min(max(2 * _cache_bytes(3), MIN_DRAM_BYTES), MAX_DRAM_BYTES)
    return 1 << (max(min(wanted, free // 4), 64 << 20).bit_length() - 1)


def l2_bytes() -> int:
    """Return the size of a core's second cache."""
    return _cache_bytes(2)
