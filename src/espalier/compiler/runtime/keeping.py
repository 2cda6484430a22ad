"""How much the cache of compiled libraries keeps: the least recently used go first, and what a killed build left behind.

Nothing here waits for anything: an entry goes by being renamed, so that other processes see all of it or none, and one that was used a
moment ago stays, because its library may not be loaded yet. A library that is loaded outlives its entry.
"""

import contextlib
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "build.json"
LIMIT, LIMIT_GB = "ESPALIER_CACHE_GB", 2.0  # the variable, and 10^9 bytes that hold without it; ResNet-50 takes 0.6 MB
FRESH_S = 600  # an entry used since then stays
ABANDONED_S = 3600  # a folder of a build in which nothing was made since then is nobody's
_ENTRY = re.compile(r"[0-9a-f]{24}")
_UNFINISHED = re.compile(r"\.[0-9a-f]{24}\.[0-9a-f]{12}")


@dataclass(frozen=True)
class Entry:
    """A library that was kept.

    Args:
        path: Its folder.
        num_bytes: Of its files.
        used: When it was asked for last, in seconds since 1970.
    """

    path: Path
    num_bytes: int
    used: float


def limit_bytes() -> int:
    """Return how much the cache may hold: ``ESPALIER_CACHE_GB``, else ``LIMIT_GB``.

    Raises:
        ValueError: The variable holds no positive number.
    """
    named = os.environ.get(LIMIT) or str(LIMIT_GB)
    try:
        limit = float(named)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ValueError(f"{LIMIT}={named} is no size; give 10^9 bytes as a number above 0, such as {LIMIT}={LIMIT_GB:g}.")
    return int(limit * 1e9)


def mark_used(entry: Path) -> None:
    """Note that an entry was asked for now; of a cache that cannot be written nothing goes anyway."""
    with contextlib.suppress(OSError):
        os.utime(entry / MANIFEST)


def make_room(root: Path, limit: int) -> list[Path]:
    """Remove the least recently used entries until the rest is no larger than ``limit``, and builds that nobody will finish.

    Args:
        root: The cache.
        limit: Bytes.

    Returns:
        What went. Entries younger than ``FRESH_S`` stay, whatever their size.
    """
    now, gone = time.time(), list[Path]()
    with contextlib.suppress(OSError):
        unfinished = [path for path in root.iterdir() if _UNFINISHED.fullmatch(path.name)]
        gone += [path for path in unfinished if now - _modified(path) > ABANDONED_S and _removed(path)]
    entries = sorted(_entries(root), key=lambda entry: entry.used)
    held = sum(entry.num_bytes for entry in entries)
    for entry in entries:
        if held <= limit or now - entry.used < FRESH_S:
            break
        if not _fresh(entry.path) and _removed(entry.path, unless=_fresh):
            held -= entry.num_bytes
            gone.append(entry.path)
    return gone


def _entries(root: Path) -> list[Entry]:
    found = []
    with contextlib.suppress(OSError):
        for path in [path for path in root.iterdir() if _ENTRY.fullmatch(path.name)]:
            with contextlib.suppress(OSError):  # another process removes it
                num_bytes = sum(file.stat().st_blocks * 512 for file in path.iterdir())
                found.append(Entry(path, num_bytes, _modified(path / MANIFEST)))
    return found


def _modified(path: Path) -> float:
    """Return when a file changed last; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _fresh(entry: Path) -> bool:
    """Return whether an entry was asked for a moment ago."""
    return time.time() - _modified(entry / MANIFEST) < FRESH_S


def _removed(path: Path, unless: Callable[[Path], bool] = lambda _: False) -> bool:
    """Take a folder out of the cache and delete it, unless it then shows that it must stay; return whether this process did."""
    name = path.name if path.name.startswith(".") else f".{path.name}"
    aside = path.with_name(f"{name[:25]}.{uuid.uuid4().hex[:12]}")
    try:
        path.rename(aside)
    except OSError:
        return False
    if unless(aside):
        with contextlib.suppress(OSError):  # another process has made it anew
            aside.rename(path)
            return False
    shutil.rmtree(aside, ignore_errors=True)
    return True
