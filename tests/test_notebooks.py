"""The notebooks run from top to bottom, in a store of their own, and are kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from espalier.record import Store

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


RUN = [pytest.param(path, marks=[] if path.stem.startswith("01") else [pytest.mark.slow]) for path in NOTEBOOKS]  # the others train


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_a_notebook_runs_anywhere(path: Path, store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    here = tmp_path / "elsewhere"
    here.mkdir()
    NotebookClient(read(path), kernel_name="python3", timeout=300, resources={"metadata": {"path": str(here)}}).execute()
    assert list(Store(store_folder).records())
    assert list(here.iterdir()) == []


@pytest.mark.tiny
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
