"""The git checkout that the code runs from, if it runs from one."""

import contextlib
import subprocess
from pathlib import Path


def git(*words: str) -> str | None:
    """Return what git says in this checkout; None without git, or where it fails."""
    said = _said(*words)
    return None if said is None else said.decode().strip()


def patch() -> bytes | None:
    """Return what `git apply` makes the last commit's tracked files into those of now, to the byte; None without git, or where it fails.

    The user's own settings of ``git diff`` (prefixes, colours, other programs) are left out of it.
    """
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-relative", "--src-prefix=a/", "--dst-prefix=b/")
    return _said("diff", "--binary", *plain, "HEAD")


def _said(*words: str) -> bytes | None:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(["git", "-C", str(root()), *words], check=True, capture_output=True).stdout  # noqa: S603, S607
    return None


def root() -> Path:
    """Return the folder that would be the checkout's."""
    return Path(__file__).parents[2]


def is_checkout() -> bool:
    """Return whether the code lies in its repository, not in an installed package."""
    return (root() / "pyproject.toml").exists()
