"""The git checkout that the code runs from, if it runs from one."""

import contextlib
import subprocess
from pathlib import Path


def git(*words: str) -> str | None:
    """Return what git says in this checkout; None without git, or where it fails."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(["git", "-C", str(root()), *words], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607
    return None


def root() -> Path:
    """Return the folder that would be the checkout's."""
    return Path(__file__).parents[2]


def is_checkout() -> bool:
    """Return whether the code lies in its repository, not in an installed package."""
    return (root() / "pyproject.toml").exists()
