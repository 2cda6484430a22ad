"""Shares of templates F and V: every block of every tile belongs to one thread, in portions, and no thread has much more than another."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from espalier.compiler.lowering.filters_shares import SHARE_OF_FILTERS, SHARE_OF_PIXELS, shared
from espalier.compiler.lowering.kernel import NAME
from espalier.compiler.runtime.toolchain import compiler

LISTS = {
    "even": [36] * 8,
    "uneven": [150, 130, 147, 139, 141, 160, 128, 144],
    "one long": [0, 0, 90, 1, 0],
    "empty": [0, 0, 0],
    "one": [17],
}


def pieces(folder: Path, lists: Sequence[int], tiles: int, portion: int, num_threads: int, *, by_filters: bool) -> np.ndarray:
    """Return when each thread computes each block of each tile, ``(threads, blocks, tiles)``: 1 for the first, 0 for never.

    A piece that is computed twice reads -1.
    """
    blocks = len(lists)
    count = f"int64_t *one = found + p * {tiles} + t; *one = *one ? -1 : ++number;"
    loops = shared(blocks, tiles, portion, [f"for (int64_t p = low; p < high; ++p) {{ {count} }}"], by_filters=by_filters)
    share = (SHARE_OF_FILTERS if by_filters else SHARE_OF_PIXELS).replace(NAME, "test")
    text = f"""#include <stdint.h>
struct es_context {{ int threads; }};
{share}
void take(int threads, int tid, const int32_t *start, int64_t *found)
{{
  const struct es_context one = {{threads}}, *c = &one;
  int64_t number = 0;
{loops.replace(NAME, "test")}
}}
"""
    (folder / "take.c").write_text(text)
    compiler().call(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", "take.so", "take.c"], folder, "take.c")
    take = ctypes.CDLL(str(folder / "take.so")).take
    start = np.concatenate([[0], np.cumsum(lists)]).astype(np.int32)
    found = np.zeros((num_threads, blocks, tiles), np.int64)
    for tid in range(num_threads):
        take(num_threads, tid, ctypes.c_void_p(start.ctypes.data), ctypes.c_void_p(found[tid].ctypes.data))
    return found


@pytest.mark.parametrize("by_filters", [True, False], ids=["filters", "pixels"])
@pytest.mark.parametrize("tiles", [1, 2, 7])
@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
def test_threads_share_all_pieces_evenly(lists: list[int], tiles: int, tmp_path: Path, *, by_filters: bool) -> None:
    costs = np.array(lists)[:, None] + np.ones(tiles)
    for num_threads, portion in ((1, 1), (2, 3), (3, 2), (4, 100)):
        folder = tmp_path / str(num_threads)
        folder.mkdir()
        found = pieces(folder, lists, tiles, portion, num_threads, by_filters=by_filters)
        assert (found >= 0).all()
        assert ((found > 0).sum(0) == 1).all()
        loads = ((found > 0) * costs).sum((1, 2))
        assert abs(loads - costs.sum() / num_threads).max() <= costs.max()  # half a piece at either end


def test_a_thread_of_whole_blocks_may_begin_within_one(tmp_path: Path) -> None:
    found = pieces(tmp_path, [10, 10, 10], 4, 8, 2, by_filters=True)
    assert (found[0] > 0).tolist() == [[True] * 4, [True, True, False, False], [False] * 4]
    assert (found[1] > 0).tolist() == [[False] * 4, [False, False, True, True], [True] * 4]


def test_a_thread_of_whole_tiles_may_begin_within_one(tmp_path: Path) -> None:
    found = pieces(tmp_path, [10, 10, 10, 10], 3, 8, 2, by_filters=False)
    assert (found[0] > 0).tolist() == [[True, True, False], [True, True, False], [True, False, False], [True, False, False]]
    assert ((found > 0).sum(0) == 1).all()


def test_a_portion_of_blocks_passes_over_all_tiles_before_the_next_one(tmp_path: Path) -> None:
    (when,) = pieces(tmp_path, [5] * 5, 3, 2, 1, by_filters=False)
    assert when.tolist() == [[1, 3, 5], [2, 4, 6], [7, 9, 11], [8, 10, 12], [13, 14, 15]]
