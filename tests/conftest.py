"""What every test shares: one thread, a store and a data folder of its own, and the golden files."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from golden_files import Golden


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-write", action="store_true", help="rewrite tests/golden from what the code gives now; the commit says what moved and why"
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the lock of measurements to this run of the tests: what else is timed on the machine does not hold them up."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.fixture(autouse=True)
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the store at a folder of the test's own; no test reads or writes the user's runs or data."""
    monkeypatch.setenv("ESPALIER_STORE", str(tmp_path / "runs"))
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "disabled")  # tests of the tracker set it
    monkeypatch.delenv("ESPALIER_CONFIG", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Golden:
    """Return the golden files of tests/golden."""
    return Golden(Path(__file__).parent / "golden", write=pytestconfig.getoption("--golden-write"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a mounted folder that holds 64 kB; a clear skip where the machine mounts none."""
    place = tmp_path / "mount"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)
