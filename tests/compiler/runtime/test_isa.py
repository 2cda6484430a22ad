"""The ISA header's functions against torch, for each instruction set this machine runs: dense ranges and special values."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from toy import STRICT

from espalier.compiler.isas import ISAS
from espalier.compiler.runtime import building
from espalier.compiler.runtime.toolchain import ARITHMETIC, compiler

INF, NAN = float("inf"), float("nan")
SPECIALS = [0.0, INF, NAN, 1e-45, 1.2e-38, 3.4e38, 0.625, 3.0, 6.0, 88.7, 88.8, 87.4, 104.5]
SPECIALS += [-value for value in SPECIALS]
FUNCTIONS = ["exp", "sigmoid", "tanh", "erf", "gelu", "gelu_tanh", "silu", "relu", "relu6", "hardsigmoid", "hardswish", "abs", "sqrt"]
REST = """
float es_t_sum(const float *a) { return es_sum(es_loadu(a)); }
float es_t_max_lane(const float *a) { return es_max_lane(es_loadu(a)); }
void es_t_max(const float *a, const float *b, float *out) { es_storeu(out, es_max(es_loadu(a), es_loadu(b))); }
void es_t_min(const float *a, const float *b, float *out) { es_storeu(out, es_min(es_loadu(a), es_loadu(b))); }
void es_t_fma(const float *a, const float *b, float *out) { es_storeu(out, es_fma(es_loadu(a), es_loadu(b), es_splat(2.0f))); }
void es_t_leaky(const float *a, const float *b, float *out) { es_storeu(out, es_leaky_relu(es_loadu(a), *b)); }
void es_t_first(const float *a, float *out, int n) { es_store_first(out, es_load_first(a, n), n); }
void es_t_load_first(const float *a, float *out, int n) { es_storeu(out, es_load_first(a, n)); }
void es_t_aligned(const float *a, float *out) { es_store(out, es_load(a)); }
int es_t_lanes(void) { return ES_LANES; }
const char *es_t_isa(void) { return ES_ISA; }
"""


def by_torch(name: str, x: Tensor) -> Tensor:
    """Return what the function should give, computed in double precision."""
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "relu6": F.relu6,
        "hardsigmoid": F.hardsigmoid,
        "hardswish": F.hardswish,
    }
    return known.get(name, getattr(torch, name, None))(x)  # type: ignore[misc]


@dataclass(frozen=True)
class Header:
    """The header, compiled for one instruction set."""

    library: ctypes.CDLL
    lanes: int

    def map(self, name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        x = np.ascontiguousarray(np.pad(x, (0, -len(x) % 16)), np.float32)
        out = np.empty_like(x)
        getattr(self.library, f"es_t_{name}")(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_long(len(x)))
        return out

    def two(self, name: str, a: list[float], b: list[float]) -> NDArray[np.float32]:
        arrays = [np.resize(np.asarray(part, np.float32), 16) for part in (a, b)]
        out = np.empty(16, np.float32)
        getattr(self.library, f"es_t_{name}")(*(ctypes.c_void_p(array.ctypes.data) for array in (*arrays, out)))
        return out[: min(len(a), self.lanes)]


@pytest.fixture(scope="module")
def header(isa: str, tmp_path_factory: pytest.TempPathFactory) -> Header:
    folder = tmp_path_factory.mktemp(isa)
    loops = "".join(
        f"void es_t_{name}(const float *in, float *out, long n) {{ for (long i = 0; i < n; i += ES_LANES) "
        f"es_storeu(out + i, es_{name}(es_loadu(in + i))); }}\n"
        for name in FUNCTIONS
    )
    (folder / "t.c").write_text(f'#include "espalier_isa.h"\n{loops}{REST}')
    words = [*ARITHMETIC, *ISAS[isa].gcc, *STRICT, f"-I{building.HERE}", "-fPIC", "-shared", "-nostdlib", "-o", "t.so", "t.c"]
    compiler().call(words, folder, "t.c")  # -nostdlib: what would call libm does not link
    library = ctypes.CDLL(str(folder / "t.so"))
    library.es_t_sum.restype = library.es_t_max_lane.restype = ctypes.c_float
    library.es_t_isa.restype = ctypes.c_char_p
    assert library.es_t_isa().decode() == isa
    return Header(library, library.es_t_lanes())


RANGES = [np.linspace(-12, 12, 400_001), np.linspace(-110, 90, 400_001)]
RANGES += [sign * np.logspace(-44, 38, 100_001) for sign in (1, -1)]

RELATIVE = {"exp": 2e-7, "sigmoid": 2e-7, "tanh": 2e-7, "silu": 2.5e-7, "relu": 0, "relu6": 0, "abs": 0, "sqrt": 1e-7}
RELATIVE |= {"hardsigmoid": 2e-7, "hardswish": 2.5e-7, "erf": 5e-7}
ABSOLUTE = {"gelu": 2.5e-7, "gelu_tanh": 2.5e-7}  # torch's own double results cancel in the tails


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_match_torch(header: Header, name: str) -> None:
    for values in RANGES:
        x = values.astype(np.float32)
        wanted = by_torch(name, torch.from_numpy(x).double()).numpy()
        found = header.map(name, x)[: len(x)].astype(np.float64)
        finite = np.abs(wanted) < 3.4028234e38
        with np.errstate(over="ignore"):
            assert np.array_equal(found[~finite], wanted[~finite].astype(np.float32), equal_nan=True)
        error = np.abs(found[finite] - wanted[finite])
        size = np.abs(wanted[finite])
        if name in RELATIVE:
            sized = size > (0 if RELATIVE[name] == 0 else 1e-34)  # where exp(-x) is infinite, sigmoid is 0
            assert (error / np.where(sized, size, 1))[sized].max(initial=0) <= RELATIVE[name]
            assert error[~sized].max(initial=0) < 1e-34
        else:
            assert (error / np.maximum(size, 1)).max(initial=0) < ABSOLUTE[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(header: Header, name: str) -> None:
    x = np.asarray(SPECIALS, np.float32)
    wanted = by_torch(name, torch.from_numpy(x).double()).numpy()  # in single precision its own steps overflow sooner
    found = header.map(name, x)[: len(x)]
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, wanted.astype(np.float32), rtol=2e-6, atol=2e-7, equal_nan=True)


@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "gelu_tanh", "silu", "hardswish"])
def test_zeros_keep_their_sign(header: Header, name: str) -> None:
    found = header.map(name, np.asarray([0.0, -0.0], np.float32))[:2]
    assert found.tolist() == [0, 0]
    assert np.signbit(found).tolist() == [False, True]


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_a_bounded_function_reaches_its_bound_and_keeps_within(header: Header, name: str) -> None:
    x = np.concatenate([np.linspace(3, 30, 300_000), [1e3, 1e9, 1e20, 3.4e38]]).astype(np.float32)
    above, below = header.map(name, x)[: len(x)], header.map(name, -x)[: len(x)]
    assert above.max() == 1
    assert (above[x > 10] == 1).all()
    assert np.array_equal(below, -above)


def test_gelu_is_the_identity_above_and_its_tail_below(header: Header) -> None:
    far = np.concatenate([np.linspace(7.5, 100, 10_000), [1e9, 1e20, 3.4e38]]).astype(np.float32)
    assert np.array_equal(header.map("gelu", far)[: len(far)], far)
    assert (header.map("gelu", -far)[: len(far)] == 0).all()
    x = np.linspace(-3, 0, 100_001).astype(np.float32)[:-1]
    wanted = torch.from_numpy(x).double() * torch.special.ndtr(torch.from_numpy(x).double())
    np.testing.assert_allclose(header.map("gelu", x)[: len(x)], wanted.numpy(), rtol=5e-6)


def test_large_negative_gives_zero_and_large_positive_infinity(header: Header) -> None:
    found = header.map("exp", np.asarray([-104.5, -1e30, -INF, 89.0, 1e30, INF], np.float32))[:6]
    assert found.tolist() == [0, 0, 0, INF, INF, INF]


def test_maximum_and_minimum_keep_a_nan_of_the_first(header: Header) -> None:
    a, b = [1.0, -INF, NAN, 3.0], [2.0, 5.0, 0.0, -INF]
    assert header.two("max", a, b)[:2].tolist() == [2, 5]
    assert header.two("min", a, b)[:2].tolist() == [1, -INF]
    assert np.isnan(header.two("max", a, b)[2])
    assert np.isnan(header.two("min", a, b)[2])
    assert header.two("max", a, b)[3] == 3


@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0, 1.5, -0.5])
def test_leaky_relu_has_any_slope(header: Header, slope: float) -> None:
    x = [-2.0, 3.0, INF, NAN, -INF] if header.lanes > 4 else [-2.0, 3.0, INF, NAN]
    wanted = F.leaky_relu(torch.tensor(x), slope).numpy()
    assert np.array_equal(header.two("leaky", x, [slope]), wanted[: header.lanes], equal_nan=True)


def test_multiply_and_add(header: Header) -> None:
    assert header.two("fma", [1.0, 2.0, -3.0, 0.0], [4.0, 5.0, 6.0, 7.0]).tolist() == [6, 12, -16, 2]


def test_sums_and_maxima_over_the_lanes(header: Header) -> None:
    for _ in range(20):
        x = np.random.default_rng(0).standard_normal(16).astype(np.float32)
        place = ctypes.c_void_p(x.ctypes.data)
        assert header.library.es_t_sum(place) == pytest.approx(x[: header.lanes].sum(dtype=np.float64), rel=1e-6)
        assert header.library.es_t_max_lane(place) == x[: header.lanes].max()


def test_parts_of_a_vector_touch_nothing_else(header: Header) -> None:
    """The last n floats before a page that cannot be read; the floats behind those written stay."""
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    assert libc.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    for n in range(header.lanes + 1):
        last = np.frombuffer(pages, np.float32, count=n, offset=mmap.PAGESIZE - 4 * n)
        last[:] = np.arange(1, n + 1)
        out = np.full(16, -1, np.float32)
        place = ctypes.c_void_p(start + mmap.PAGESIZE - 4 * n)
        header.library.es_t_load_first(place, ctypes.c_void_p(out.ctypes.data), n)
        assert out[: header.lanes].tolist() == [*range(1, n + 1), *[0] * (header.lanes - n)]
        out[:] = -1
        header.library.es_t_first(place, ctypes.c_void_p(out.ctypes.data), n)
        assert out.tolist() == [*range(1, n + 1), *[-1] * (16 - n)]


def test_aligned_moves(header: Header) -> None:
    room = np.arange(64, dtype=np.float32)
    start = -(room.ctypes.data // 4) % 16
    ins, outs = room[start : start + 16], room[start + 16 : start + 32]
    header.library.es_t_aligned(ctypes.c_void_p(ins.ctypes.data), ctypes.c_void_p(outs.ctypes.data))
    assert outs[: header.lanes].tolist() == ins[: header.lanes].tolist()


def test_every_isa_compiles(tmp_path: Path) -> None:
    (tmp_path / "t.c").write_text('#include "espalier_isa.h"\nint es_t(void) { return ES_LANES; }\n')
    for isa in ISAS.values():
        compiler().call([*ARITHMETIC, *isa.gcc, *STRICT, f"-I{building.HERE}", "-c", "t.c", "-o", f"{isa.name}.o"], tmp_path, "t.c")
        assert (tmp_path / f"{isa.name}.o").exists()
