"""The C compiler of this machine: which one it is, its flags, and its errors with the line of C they speak of."""

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from espalier.compiler.isas import ISAS, Isa

ARITHMETIC = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
FLAGS = (*ARITHMETIC, "-fPIC", "-fvisibility=hidden", "-pthread", "-pipe")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g")
CANDIDATES = ("cc", "gcc", "clang")  # in this order, where CC names none
INSTALL = (
    "install one: apt-get install gcc libc6-dev (Debian, Ubuntu), dnf install gcc (Fedora, RHEL), brew install gcc (macOS; or "
    "xcode-select --install), conda install -c conda-forge c-compiler; CC names one that is not on the PATH"
)
CONTEXT = 3  # lines shown before and behind the one an error speaks of
_PLACE = re.compile(r"^(?P<file>[^\s:][^:\n]*):(?P<line>\d+):(?:\d+:)? (?P<message>(?:fatal |internal compiler )?error: .*)$", re.MULTILINE)


class BuildError(ValueError):
    """The C compiler did not take emitted code.

    Args:
        message: What it said, with the lines of C it speaks of.
        file: The file it stopped at.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


@dataclass(frozen=True)
class Compiler:
    """A C compiler.

    Args:
        command: How it is called.
        version: First line of what it says of itself.
    """

    command: tuple[str, ...]
    version: str

    def call(self, words: Sequence[str], folder: Path, file: str) -> None:
        """Run it in ``folder``, which holds its temporary files as well.

        Args:
            words: Its arguments.
            folder: Where the sources are.
            file: What is being made, for the message.

        Raises:
            BuildError: It failed or crashed; the message shows what it said and the source line.
            OSError: The disk is full.
        """
        environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(folder)}
        done = subprocess.run(  # noqa: S603  the user's own compiler
            [*self.command, *words], cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode == 0:
            return
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise BuildError(_explained(done.returncode, done.stderr, folder, file, [*self.command, *words]), file)


def compiler() -> Compiler:
    """Return the C compiler that ``CC`` names, else the first one on the PATH.

    Raises:
        ValueError: There is none, or it does not run; the message says what to install.
    """
    return _compiler(os.environ.get("CC", ""), os.environ.get("PATH", ""))


@lru_cache
def _compiler(named: str, path: str) -> Compiler:
    words = shlex.split(named) or [name for name in CANDIDATES if shutil.which(name, path=path)][:1]
    if not words or shutil.which(words[0], path=path) is None:
        missing = (
            f"CC={named} names no program: correct or unset it, or"
            if words
            else f"there is no C compiler on the PATH ({', '.join(CANDIDATES)});"
        )
        raise ValueError(f"{missing} {INSTALL}.")
    try:
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, errors="replace", check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"the C compiler '{shlex.join(words)}' does not run ({error}); {INSTALL}.") from error
    return Compiler(tuple(words), (done.stdout.splitlines() or [""])[0])


def known_isa(isa: str) -> Isa:
    """Return an instruction set by name.

    Raises:
        ValueError: We emit no code for it; the message lists those we do.
    """
    if isa not in ISAS:
        raise ValueError(f"isa={isa} is not known; code is emitted for {', '.join(ISAS)}.")
    return ISAS[isa]


def _explained(status: int, said: str, folder: Path, file: str, command: Sequence[str]) -> str:
    """Return an error's message: what the compiler said first, the source around that line, the rest of its words, the command."""
    place = _PLACE.search(said)
    ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"stopped with status {status}"
    complaints = [line for line in said.splitlines() if "error: " in line] or said.strip().splitlines() or ["it said nothing"]
    lines = [f"the C compiler {ended} at {file}: {place['message'] if place else complaints[0]}"]
    if place is not None:
        lines += _excerpt(folder / place["file"], int(place["line"]))
    return "\n".join([*lines, "It said:", *said.strip().splitlines()[:20], f"It was called as: {shlex.join(command)}"])


def _excerpt(path: Path, number: int) -> list[str]:
    if not path.is_file():
        return []
    source = path.read_text(encoding="utf-8", errors="replace").splitlines()
    first, last = max(1, number - CONTEXT), min(len(source), number + CONTEXT)
    return [f"{'>' if line == number else ' '} {path.name}:{line:<5} {source[line - 1]}" for line in range(first, last + 1)]
