"""The weights file: mapped in place, and refused where a byte of it is another."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from espalier.compiler.runtime.weights import aligned_blob, checksum, read_weights, write_weights


@pytest.mark.parametrize("num_bytes", [0, 8, 20, 64, 100_003, 9 << 20])
def test_what_is_written_is_read_at_an_aligned_address(tmp_path: Path, num_bytes: int) -> None:
    blob = np.random.default_rng(0).integers(0, 256, num_bytes, np.uint8)
    write_weights(tmp_path / "weights.bin", blob)
    found = read_weights(tmp_path / "weights.bin")
    assert np.array_equal(found, blob)
    assert found.ctypes.data % 64 == 0
    assert not found.flags.writeable
    assert (tmp_path / "weights.bin").stat().st_size == 64 + num_bytes


def test_the_checksum_by_hand() -> None:
    words = np.asarray([3, 2**64 - 1, 5], np.uint64)
    blob = np.concatenate([words.view(np.uint8), np.asarray([7, 1], np.uint8)])
    assert checksum(blob) == (3 + 3 * (2**64 - 1) + 5 * 5 + 7 * (7 + 256)) % 2**64


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    write_weights(path, np.arange(100, dtype=np.uint8))
    whole = path.read_bytes()
    for place in [*range(12), *range(16, 32), *range(64, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"weights\.bin"):
            read_weights(path)
    swapped = np.frombuffer(whole[64:], np.uint8).copy()
    swapped[:16] = np.roll(swapped[:16], 8)
    path.write_bytes(whole[:64] + swapped.tobytes())
    with pytest.raises(ValueError, match=r"is damaged: its checksum is [0-9a-f]{16}, its header says"):
        read_weights(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="has 163 bytes, its header says 164"):
        read_weights(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no weights file"):
        read_weights(path)
    with pytest.raises(ValueError, match=r"other\.bin is missing"):
        read_weights(tmp_path / "other.bin")


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_weights(small_disk / "weights.bin", np.zeros(1 << 20, np.uint8))
    assert list(small_disk.iterdir()) == []


def test_a_blob_in_memory_is_moved_only_where_it_must_be() -> None:
    room = np.frombuffer(hashlib.sha512(b"").digest() * 4, np.uint8).copy()
    start = -room.ctypes.data % 64
    assert aligned_blob(room[start:]).ctypes.data == room[start:].ctypes.data
    moved = aligned_blob(room[start + 1 :])
    assert moved.ctypes.data % 64 == 0
    assert np.array_equal(moved, room[start + 1 :])
