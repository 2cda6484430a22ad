"""The thread team and the library's functions, through the network written by hand."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import toy
from numpy.typing import NDArray

from espalier.compiler.runtime.toolchain import compiler

Build = Callable[..., Path]
BUSY, FORKED = 1, 2


class Opened:
    """A handle, by the library's C functions alone."""

    def __init__(self, path: Path, threads: int, cpus: list[int] | None = None, blob: NDArray[np.float32] | None = None) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.es_open.restype = ctypes.c_void_p
        self.library.es_fork_join_ns.restype = ctypes.c_double
        self.library.es_status_text.restype = self.library.es_info.restype = ctypes.c_char_p
        self.blob = toy.weights() if blob is None else blob  # used in place: kept alive
        said = ctypes.create_string_buffer(256)
        wanted = (ctypes.c_int * threads)(*cpus) if cpus else None
        where, size = ctypes.c_void_p(self.blob.ctypes.data), ctypes.c_size_t(self.blob.nbytes)
        self.handle = ctypes.c_void_p(self.library.es_open(where, size, threads, wanted, said, ctypes.c_size_t(256)))
        self.error = said.value.decode()

    def run(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        z, total = np.full((toy.ROWS, toy.COLUMNS), np.nan, np.float32), np.full((1, 1), np.nan, np.float32)
        pointers = [(ctypes.c_void_p * 2)(*(array.ctypes.data for array in pair)) for pair in ((x, y), (z, total))]
        return self.library.es_run(self.handle, *pointers), z, total

    def close(self) -> None:
        self.library.es_close(self.handle)


@contextmanager
def opened(path: Path, threads: int, cpus: list[int] | None = None) -> Iterator[Opened]:
    one = Opened(path, threads, cpus)
    assert one.handle, one.error
    yield one
    one.close()


def check(found: tuple[int, NDArray[np.float32], NDArray[np.float32]], seed: int = 1) -> None:
    wanted = toy.expected(*toy.inputs(seed))
    assert found[0] == 0
    assert np.array_equal(found[1], wanted[0])
    assert np.allclose(found[2], wanted[1], rtol=1e-6)


@pytest.mark.parametrize("openmp", [False, True], ids=["pool", "openmp"])
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_any_number_of_threads_gives_the_same(toy_library: Build, threads: int, openmp: bool) -> None:
    """More threads than cores nap instead of spinning, and still finish."""
    with opened(toy_library(openmp=openmp), threads) as one:
        for seed in range(8):
            check(one.run(*toy.inputs(seed)), seed)


def test_every_isa_gives_the_same(toy_library: Build, isa: str) -> None:
    with opened(toy_library(isa), 2) as one:
        check(one.run(*toy.inputs()))
        assert f'"isa": "{isa}"' in one.library.es_info().decode()


def test_two_python_threads_call_two_handles_at_once(toy_library: Build) -> None:
    failures: list[BaseException] = []

    def calls(seed: int) -> None:
        try:
            with opened(toy_library(), 2) as one:
                for _ in range(100):
                    check(one.run(*toy.inputs(seed)), seed)
        except BaseException as error:  # noqa: BLE001  shown below
            failures.append(error)

    team = [threading.Thread(target=calls, args=(seed,)) for seed in (1, 2)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not failures


def resident_kb() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_ten_thousand_calls_give_the_same_and_take_no_memory(toy_library: Build) -> None:
    x, y = toy.inputs()
    for threads, calls in [(1, 10_000), (2, 1000)]:  # on a busy machine each call of two threads may wait for a time slice
        with opened(toy_library(), threads) as one:
            for _ in range(calls // 10):
                one.run(x, y)
            before = resident_kb()
            for _ in range(calls):
                check(one.run(x, y))
            assert resident_kb() - before < 256
    before = resident_kb()
    for _ in range(200):
        with opened(toy_library(), 2) as one:
            one.run(x, y)
    assert resident_kb() - before < 512


def test_workers_that_sleep_are_woken(toy_library: Build) -> None:
    with opened(toy_library(), 2) as one:
        for _ in range(20):
            time.sleep(0.002)  # ten times a worker's patience
            check(one.run(*toy.inputs()))


SLOW_NETWORK = """
#include <time.h>
#include "network.h"
void es_load_zero(float *arena) { arena[0] = 0.0f; }
void es_run_thread(const struct es_context *c, int tid) {
    struct timespec nap = {0, 50000000};
    if (tid == 0) nanosleep(&nap, NULL);
    es_barrier(c->team, tid);
}
"""


def test_a_handle_entered_twice_says_so(tmp_path: Path) -> None:
    from espalier.compiler.runtime.building import build

    with opened(build({**toy.sources(), "network.c": SLOW_NETWORK}, "generic"), 2) as one:
        done = threading.Event()

        def again_and_again() -> None:
            while not done.is_set():
                one.run(*toy.inputs())

        other = threading.Thread(target=again_and_again)
        other.start()
        while (status := one.run(*toy.inputs())[0]) == 0:
            time.sleep(0.01)  # the other one's turn
        fork_join = one.library.es_fork_join_ns(one.handle, 10)
        done.set()
        other.join()
        assert status == BUSY
        assert fork_join in (-BUSY, abs(fork_join))  # as the other one happens to be inside
        assert "another thread" in one.library.es_status_text(status).decode()
        assert one.run(*toy.inputs())[0] == 0


def test_a_fork_is_told_that_the_threads_stayed_behind(toy_library: Build) -> None:
    code = f"""
import os, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import test_pool, toy
path = test_pool.Path({str(toy_library())!r})
many, alone = test_pool.Opened(path, 2), test_pool.Opened(path, 1)
test_pool.check(many.run(*toy.inputs()))
child = os.fork()
if child == 0:
    assert many.run(*toy.inputs())[0] == test_pool.FORKED
    test_pool.check(alone.run(*toy.inputs()))
    many.close()
    test_pool.check(test_pool.Opened(path, 2).run(*toy.inputs()))
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
test_pool.check(many.run(*toy.inputs()))
many.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no threads")
def test_the_caller_gets_its_affinity_back(toy_library: Build) -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one CPU: nothing is pinned")
    first, second = sorted(before)[:2]
    with opened(toy_library(), 2, [second, first]) as one:
        os.sched_setaffinity(0, {first})
        try:
            check(one.run(*toy.inputs()))
            assert os.sched_getaffinity(0) == {first}
        finally:
            os.sched_setaffinity(0, before)
        tasks = {int(path.name) for path in Path("/proc/self/task").iterdir()}
        assert {first} in [os.sched_getaffinity(task) for task in tasks if task != threading.get_native_id()]
        check(one.run(*toy.inputs()))
        assert os.sched_getaffinity(0) == before


def test_fork_and_join_are_timed(toy_library: Build) -> None:
    with opened(toy_library(), 1) as one:
        assert 0 < one.library.es_fork_join_ns(one.handle, 100) < 1e3
    with opened(toy_library(), 2) as one:
        assert 0 < one.library.es_fork_join_ns(one.handle, 100) < 1e9


def test_what_cannot_be_opened_says_why(toy_library: Build) -> None:
    path = toy_library()
    assert "the weights have 316 bytes, the network wants 320" in Opened(path, 1, blob=toy.weights()[:-1]).error
    assert "no multiple of 64" in Opened(path, 1, blob=np.zeros(200, np.float32)[_misaligned() :][:80]).error
    assert "0 threads asked for; a network runs on 1 to 1024" in Opened(path, 0).error
    assert "2000 threads asked for" in Opened(path, 2000).error


def _misaligned() -> int:
    return 1 + -(np.zeros(200, np.float32).ctypes.data // 4) % 16 % 2  # an odd number of floats behind any address


SHARES = """
#include "espalier_runtime.h"
void es_t(int64_t n, int tid, int threads, int64_t *out) { es_split(n, tid, threads, out, out + 1); }
"""


def test_shares_are_contiguous_and_even(tmp_path: Path) -> None:
    (tmp_path / "t.c").write_text(SHARES)
    from espalier.compiler.runtime.building import HERE

    compiler().call(["-std=gnu11", *toy.STRICT, f"-I{HERE}", "-fPIC", "-shared", "-o", "t.so", "t.c"], tmp_path, "t.c")
    library = ctypes.CDLL(str(tmp_path / "t.so"))
    for n in (0, 1, 5, 16, 17):
        for threads in (1, 2, 3, 7):
            ends = []
            for tid in range(threads):
                out = (ctypes.c_int64 * 2)()
                library.es_t(ctypes.c_int64(n), tid, threads, out)
                ends.append((out[0], out[1]))
            assert [index for begin, end in ends for index in range(begin, end)] == list(range(n))
            assert max(end - begin for begin, end in ends) - min(end - begin for begin, end in ends) <= 1


DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include "espalier_runtime.h"
#include "network.h"
int main(int count, char **words) {
    char error[200] = "";
    float x[74], y[5], z[74], total[1];
    float *blob = aligned_alloc(64, 4 * ES_WEIGHTS_FLOATS);
    for (int i = 0; i < 74; ++i) x[i] = (float)i;
    for (int i = 0; i < 5; ++i) y[i] = 1.0f;
    for (int i = 0; i < 80; ++i) blob[i] = 1.0f;
    const float *inputs[] = {x, y};
    float *outputs[] = {z, total};
    struct es_model *model = es_open(blob, 4 * ES_WEIGHTS_FLOATS, count > 1 ? atoi(words[1]) : 1, NULL, error, sizeof error);
    if (model == NULL) { puts(error); return 1; }
    for (int i = 0; i < 50; ++i) if (es_run(model, inputs, outputs) != ES_OK) return 2;
    printf("%g %g %g\\n", z[0], z[73], total[0]);
    es_close(model);
    free(blob);
    return z[0] == 73.0f + 3.0f && z[73] == 3.0f && total[0] == 8.0f ? 0 : 3;
}
"""


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(tmp_path: Path, sanitizer: str, threads: int) -> None:
    from espalier.compiler.runtime.building import HERE, SHIPPED

    texts = {name: (HERE / name).read_text() for name in SHIPPED} | toy.sources() | {"driver.c": DRIVER}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = [name for name in texts if name.endswith(".c")]
    words = ["-std=gnu11", "-O1", "-g", *toy.STRICT, "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-o", "t", *files]
    compiler().call(words, tmp_path, "driver.c")
    done = subprocess.run([tmp_path / "t", str(threads)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
