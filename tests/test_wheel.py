"""The wheel carries the configs and the papers, and runs a row where there is no repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_installed_wheel_runs_a_row_elsewhere(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    build = [uv, "build", "-q", "--wheel", "-o"] if uv else [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w"]
    subprocess.run([*build, str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "espalier/_conf/config.yaml" in names
    assert "espalier/_experiments/progressive-admm/tables/lenet5.yaml" in names
    assert "espalier/_experiments/papers.yaml" in names
    assert {"espalier/site/templates/home.html.j2", "espalier/site/assets/site.css", "espalier/site/assets/site.js"} <= set(names)
    assert "espalier/py.typed" in names
    home = tmp_path / "home"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    # the dependencies come from this environment; espalier itself only from the wheel
    libraries = Path(pytest.__file__).parents[1]
    site = next((home / "lib").glob("python*/site-packages"))
    for path in libraries.iterdir():
        if (
            not path.name.startswith(("espalier", "_editable", "__editable"))
            and "espalier" not in path.name
            and not (site / path.name).exists()
        ):
            (site / path.name).symlink_to(path)
    subprocess.run([str(python), "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "ESPALIER_CONFIG")}
    environment["ESPALIER_STORE"] = str(tmp_path / "runs")
    words = ["run", "progressive-admm/lenet5", "row=dense", "budgets.smoke.train=1"]
    done = subprocess.run(
        [str(python), "-m", "espalier.cli", *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [str(python), "-c", "import espalier; print(espalier.__file__)"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(str(site))
    assert len(list((tmp_path / "runs").glob("*/*/*/*/*/record.json"))) == 1
