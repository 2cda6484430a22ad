"""The weights file of a compiled network: a header of 64 bytes, then the blob as the kernels read it.

Header, little-endian: magic ``ESPALIER``, version (4 bytes), 4 reserved, bytes of the blob (8), checksum (8), zeros. The blob is mapped,
not copied, and starts at a multiple of 64 bytes, so that arrays aligned inside it are aligned in memory.
"""

import mmap
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espalier.files import replacing

MAGIC = b"ESPALIER"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ32x")
ALIGNMENT = HEADER.size  # 64
CHUNK_WORDS = 1 << 20

Blob = NDArray[np.uint8]


def aligned_blob(data: bytes | Blob) -> Blob:
    """Return the bytes at an address that is a multiple of 64, as the library wants them; a copy where they lie elsewhere."""
    data = np.frombuffer(data, np.uint8)
    if data.ctypes.data % ALIGNMENT == 0:
        return data
    room = np.empty(len(data) + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    room[start : start + len(data)] = data
    return room[start : start + len(data)]


def write_weights(path: Path, blob: Blob) -> None:
    """Write a weights file, all or nothing.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(HEADER.pack(MAGIC, VERSION, 0, blob.nbytes, checksum(blob)))
        stream.write(blob.tobytes())


def read_weights(path: Path) -> Blob:
    """Map a weights file and return its blob; only read, and shared with whoever maps it too.

    Raises:
        ValueError: The file is missing, damaged, or no weights file.
    """
    try:
        with path.open("rb") as stream:
            header = stream.read(HEADER.size)
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if header else b""
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; export the network again.") from error
    if len(header) < HEADER.size or header[:8] != MAGIC:
        raise ValueError(f"{path} is no weights file of a compiled network; export the network again.")
    _, version, _, num_bytes, wanted = HEADER.unpack(header)
    if version != VERSION:
        raise ValueError(f"{path} is of version {version}, this espalier reads {VERSION}; export the network again.")
    if len(mapped) != HEADER.size + num_bytes:
        raise ValueError(f"{path} has {len(mapped)} bytes, its header says {HEADER.size + num_bytes}: it is damaged; copy it anew.")
    blob = np.frombuffer(mapped, np.uint8)[HEADER.size :]
    if (found := checksum(blob)) != wanted:
        raise ValueError(f"{path} is damaged: its checksum is {found:016x}, its header says {wanted:016x}; copy it anew.")
    return blob


def checksum(blob: Blob) -> int:
    """Return the sum of the blob's 8-byte words, the k-th times 2k + 1, modulo 2^64: a changed word changes it, and two swapped do."""
    whole = blob.nbytes // 8
    words = blob[: 8 * whole].view("<u8")
    total = 0
    for start in range(0, whole, CHUNK_WORDS):
        part = words[start : start + CHUNK_WORDS]
        odd = 2 * np.arange(start, start + len(part), dtype=np.uint64) + np.uint64(1)
        total += int((part * odd).sum(dtype=np.uint64))
    last = int.from_bytes(blob[8 * whole :].tobytes(), "little")
    return (total + last * (2 * whole + 1)) % (1 << 64)
