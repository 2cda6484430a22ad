"""What every test shares: one thread, a store and a data folder of its own."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the store at a folder of the test's own; no test reads or writes the user's runs or data."""
    monkeypatch.setenv("ESPALIER_STORE", str(tmp_path / "runs"))
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "disabled")  # tests of the tracker set it
    monkeypatch.delenv("ESPALIER_CONFIG", raising=False)
    return tmp_path / "runs"
