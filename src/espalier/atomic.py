"""Files that are written whole or not at all, by writers that take a path."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

WAY_OUT = "nothing was left behind; point ESPALIER_STORE at a folder with room that can be written"


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
    """Yield a temporary path beside ``path``; what is written there takes its place, or, if that fails, is removed.

    Raises:
        OSError: The folder cannot be written or the disk is full; ``path`` is left as it was.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # the last two are how torch and safetensors say that a disk is full
        raise OSError(f"cannot write {path}: {error}; {WAY_OUT}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
