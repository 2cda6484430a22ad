"""Files and folders written all or nothing, even if the process or the disk dies meanwhile."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

WAY_OUT = "nothing was left behind; name a folder with room that can be written (of runs: ESPALIER_STORE)"


def write_once(path: Path, text: str) -> None:
    """Write a file that must not exist yet, all or nothing, even if the process or the disk dies meanwhile.

    Raises:
        FileExistsError: The file is there already; it is left as it was.
        OSError: The folder cannot be written or the disk is full; nothing is left behind.
    """
    _write(path, text, replace=False)


def write_over(path: Path, text: str) -> None:
    """Write or replace a file, all or nothing."""
    _write(path, text, replace=True)


def _write(path: Path, text: str, *, replace: bool) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)
    except FileExistsError as error:
        raise FileExistsError(error.errno, f"{path} exists already and is never overwritten; move it away or run another seed") from error
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}; {WAY_OUT}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OSError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {path}: {error.strerror}; {WAY_OUT}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there takes its place once it is on the disk, or, if that fails, is removed.

    Raises:
        OSError: The folder cannot be written or the disk is full; ``path`` is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # the last two are how torch and safetensors say that a disk is full
        raise OSError(f"cannot write {path}: {error}; {WAY_OUT}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
