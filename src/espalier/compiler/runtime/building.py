"""Emitted C to a shared library: compiled in parallel, kept in a cache, whole or not at all.

An entry of the cache is a folder named by the digest of its sources, flags and compiler. It holds the sources, the library and
``build.json`` with the library's own digest. It is made under another name and renamed, so that no half-made one is ever seen; two
processes that make the same one at once both end with a good one. ``keeping`` says when it goes.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from espalier.compiler.runtime.keeping import MANIFEST, limit_bytes, make_room, mark_used
from espalier.compiler.runtime.toolchain import FLAGS, SANITIZERS, BuildError, Compiler, compiler, known_isa
from espalier.devices import num_cores
from espalier.progress import late_bar

HERE = Path(__file__).parent
SHIPPED = ("espalier_isa.h", "espalier_runtime.h", "espalier_runtime.c", "espalier_pool.h", "espalier_pool.c")  # compiled beside a network
PROGRAM = ("main.c", "espalier_record.h", "espalier_record.c", "espalier_words.c")  # of a stand-alone folder, no part of the library
POOL = "espalier_pool.c"
LIBRARY = "network.so"
DIGEST_LENGTH = 24  # hex digits in an entry's name
_NAME = re.compile(r"[A-Za-z0-9_]+\.[ch]")


@dataclass(frozen=True)
class Recipe:
    """How a library is made.

    Args:
        sources: File name -> text, those of the runtime among them.
        isa: Instruction set.
        compiler: The C compiler.
        flags: All its flags.
        openmp: Whether OpenMP's threads run the network, not our own.
    """

    sources: Mapping[str, str]
    isa: str
    compiler: Compiler
    flags: tuple[str, ...]
    openmp: bool

    @property
    def digest(self) -> str:
        """Return the hash of all that decides what the library does."""
        facts = [sorted(self.sources.items()), self.isa, self.compiler.command, self.compiler.version, self.flags, self.openmp]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:DIGEST_LENGTH]


def cache_folder() -> Path:
    """Return where libraries are kept: ``ESPALIER_CACHE``, else ``espalier`` in the user's cache folder."""
    if named := os.environ.get("ESPALIER_CACHE"):
        return Path(named)
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "espalier"


def build(
    sources: Mapping[str, str] | Path,
    isa: str,
    *,
    cache: Path | None = None,
    flags: Sequence[str] = (),
    sanitize: bool = False,
    openmp: bool = False,
    console: Console | None = None,
) -> Path:
    """Return the shared library of emitted C, compiled now unless the cache has it.

    Args:
        sources: File name -> text, or a folder of them; the runtime's files join where they are not among them.
        isa: Instruction set, a key of ``ISAS``.
        cache: Folder of the cache; None takes ``ESPALIER_CACHE``, else the user's cache folder.
        flags: More flags for the compiler, such as warnings.
        sanitize: Whether address and undefined-behaviour checks are compiled in; such a library loads only where ASan's is preloaded.
        openmp: Whether OpenMP's threads are used. They also are where our own pool does not compile.
        console: Where progress is shown after two seconds; None shows none.

    Raises:
        BuildError: The C compiler failed; nothing is kept.
        ValueError: There is no C compiler, the instruction set is unknown, a file's name is none of ours, or ``ESPALIER_CACHE_GB`` no size.
        OSError: The cache cannot be written, or its disk is full; nothing is kept.
    """
    texts = {name: (HERE / name).read_text(encoding="utf-8") for name in SHIPPED} | emitted_texts(sources)
    every = (*FLAGS, *known_isa(isa).gcc, *(SANITIZERS if sanitize else ()), *flags)
    recipe = Recipe(texts, isa, compiler(), every, openmp)
    root, limit = cache or cache_folder(), limit_bytes()
    entry = root / recipe.digest
    mark_used(entry)  # before it is looked at, so that no other process takes it away behind that
    if not _whole(entry):
        try:
            _make(recipe, entry, console)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(f"cannot keep a compiled network in {root}: {reason}; set ESPALIER_CACHE to a folder with room.") from error
        make_room(root, limit)
    return entry / LIBRARY


def emitted_texts(sources: Mapping[str, str] | Path) -> dict[str, str]:
    """Return file name -> text of emitted C, from a folder too; of a stand-alone one's, what is the library's.

    Raises:
        ValueError: A part is missing, or a file's name is none of ours.
    """
    if isinstance(sources, Path):
        files = [path for path in sorted(sources.glob("*.[ch]")) if path.name not in (*PROGRAM, "espalier_facts.h")]
        sources = {path.name: path.read_text(encoding="utf-8") for path in files}
    if "network.c" not in sources or "network.h" not in sources:
        raise ValueError(f"emitted C consists of network.c, network.h and kernels; found {', '.join(sorted(sources)) or 'nothing'}.")
    if wrong := [name for name in sources if not _NAME.fullmatch(name)]:
        raise ValueError(f"a file of emitted C is named by letters, digits and _, with .c or .h behind; found {', '.join(wrong)}.")
    return dict(sources)


def _whole(entry: Path) -> bool:
    """Return whether the library is there and as it was when it was made."""
    try:
        kept = json.loads((entry / MANIFEST).read_bytes())
        return bool(kept["sha256"] == _sha256(entry / LIBRARY))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make(recipe: Recipe, entry: Path, console: Console | None) -> None:
    making = entry.with_name(f".{entry.name}.{uuid.uuid4().hex[:12]}")
    try:
        making.mkdir(parents=True)
        for name, text in recipe.sources.items():
            (making / name).write_text(text, encoding="utf-8")
        openmp = _compile(recipe, making, console)
        manifest = {
            "sha256": _sha256(making / LIBRARY),
            "isa": recipe.isa,
            "compiler": recipe.compiler.version,
            "flags": recipe.flags,
            "openmp": openmp,
        }
        (making / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        _take_place(making, entry)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _compile(recipe: Recipe, folder: Path, console: Console | None) -> bool:
    """Compile and link in ``folder``; return whether OpenMP's threads are in."""
    names = sorted(name for name in recipe.sources if name.endswith(".c"))
    openmp = recipe.openmp
    with late_bar(console, "files", total=len(names), transient=True) as told, ThreadPoolExecutor(num_cores()) as team:
        waiting = {team.submit(_object, recipe, folder, name, openmp=openmp): name for name in names}
        try:
            for done in as_completed(waiting):
                try:
                    done.result()
                except BuildError as error:
                    if openmp or error.file != POOL:
                        raise
                    openmp = True  # no threads, or no pinning, as we know them
                    _object(recipe, folder, POOL, openmp=True)
                told(waiting[done])
        except BaseException:
            team.shutdown(cancel_futures=True)
            raise
    objects = [f"{name.removesuffix('.c')}.o" for name in names]
    threads = ["-fopenmp"] if openmp else []
    recipe.compiler.call([*recipe.flags, *threads, "-shared", "-o", LIBRARY, *objects, "-lm"], folder, LIBRARY)
    for name in objects:
        (folder / name).unlink()
    return openmp


def _object(recipe: Recipe, folder: Path, name: str, *, openmp: bool) -> None:
    threads = ["-fopenmp", "-DES_OPENMP"] if openmp and name == POOL else []
    recipe.compiler.call([*recipe.flags, *threads, "-c", name, "-o", f"{name.removesuffix('.c')}.o"], folder, name)


def _take_place(making: Path, entry: Path) -> None:
    """Rename, over whatever is broken; where another process was faster, its entry stays."""
    for _ in range(2):
        try:
            making.rename(entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if _whole(entry):
                return
            broken = entry.with_name(f".{entry.name}.{uuid.uuid4().hex[:12]}")
            with contextlib.suppress(FileNotFoundError):  # another process moved it
                entry.rename(broken)
            shutil.rmtree(broken, ignore_errors=True)
        else:
            return
    if not _whole(entry):
        raise OSError(f"{entry} is broken, and something breaks it anew")
