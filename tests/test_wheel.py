"""The wheel carries the configs and the papers, and what README shows runs where there is no repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Home:
    """An environment in which espalier is a wheel, and the folder that the user stands in."""

    python: Path
    site: Path
    folder: Path
    names: frozenset[str]

    def call(self, *words: str) -> str:
        """Return what a command of espalier prints; it must succeed."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "ESPALIER_CONFIG", "ESPALIER_STORE")}
        line = [str(self.python), "-m", "espalier.cli", *words]
        done = subprocess.run(line, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a fresh environment: the dependencies come from this one, espalier itself only from the wheel."""
    place = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv")
    build = [uv, "build", "-q", "--wheel", "-o"] if uv else [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w"]
    subprocess.run([*build, str(place), str(ROOT)], check=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(place / "home")], check=True)
    python = place / "home" / "bin" / "python"
    site = next((place / "home" / "lib").glob("python*/site-packages"))
    for path in Path(pytest.__file__).parents[1].iterdir():
        if "espalier" not in path.name and not path.name.startswith(("_editable", "__editable")) and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    subprocess.run([str(python), "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    folder = place / "elsewhere"
    folder.mkdir()
    return Home(python, site, folder, frozenset(zipfile.ZipFile(wheel).namelist()))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_installed_wheel_runs_a_row_elsewhere(home: Home) -> None:
    assert "espalier/_conf/config.yaml" in home.names
    assert "espalier/_experiments/progressive-admm/tables/lenet5.yaml" in home.names
    assert "espalier/_experiments/papers.yaml" in home.names
    assert {"espalier/site/templates/home.html.j2", "espalier/site/assets/site.css", "espalier/site/assets/site.js"} <= home.names
    assert "espalier/_benchmarks/timm_models.json" in home.names
    assert "espalier/py.typed" in home.names
    shipped = (
        "espalier_isa.h",
        "espalier_runtime.c",
        "espalier_pool.c",
        "espalier_record.c",
        "espalier_words.c",
        "main.c",
        "exported.mk",
        "probing.c",
    )
    assert {f"espalier/compiler/runtime/{name}" for name in shipped} <= home.names
    home.call("run", "progressive-admm/lenet5", "row=dense", "budgets.smoke.train=1")
    words = [str(home.python), "-c", "import espalier; print(espalier.__file__)"]
    assert subprocess.run(words, cwd=home.folder, capture_output=True, text=True, check=True).stdout.startswith(str(home.site))
    assert len(list((home.folder / "runs").glob("progressive-admm/*/*/*/*/record.json"))) == 1


def photographs(folder: Path) -> None:
    """Write a folder of images for each of three classes, told apart by their colour."""
    generator = torch.Generator().manual_seed(0)
    for channel, name in enumerate(("cat", "dog", "horse")):
        (folder / name).mkdir(parents=True)
        for number in range(16):
            pixels = torch.randint(0, 120, (40, 48, 3), generator=generator, dtype=torch.uint8)
            pixels[:, :, channel] += 100
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_newcomer_compares_two_methods_on_photographs_of_their_own(home: Home) -> None:
    """The lines of README, but for what needs a network (the install, trained weights), and with fewer and smaller images."""
    photographs(home.folder / "photos")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [text for text in readme.split("```")[1::2] if "pip install" in text]
    assert len(block.strip().splitlines()) <= 10
    install, *lines = block.replace("\\\n", " ").strip().splitlines()
    assert install.startswith("pip install 'espalier[")
    easier = {"model.pretrained=true": "model.pretrained=false", "scale=desk": "scale=smoke"}
    compare, table, plot = [[easier.get(word, word) for word in shlex.split(line)] for line in lines]
    assert compare[:2] == ["espalier", "compare"]
    home.call(*compare[1:], "data.size=32", "epochs=1")
    records = {path.parents[2].name for path in (home.folder / "runs" / "compare" / "mine").rglob("record.json")}
    assert records == {"dense", *(f"{method}-filter-{rate}x" for method in ("magnitude", "admm") for rate in (2, 4))}
    assert table[-2] == ">"
    latex = home.call(*table[1:-2])
    assert "\\begin{table}" in latex
    assert re.search(r"^% .*espalier", latex, re.MULTILINE)
    home.call(*plot[1:])
    assert (home.folder / plot[-1]).read_bytes().startswith(b"%PDF")
