"""What README shows works as written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    fences = README.split("```")[1::2]
    texts = [text.removeprefix(language) for text in fences if text.startswith(f"{language}\n")]
    return next(text for text in texts if containing in text)


@pytest.mark.slow
def test_a_structure_from_a_folder_of_ones_own(tmp_path: Path) -> None:
    conf = tmp_path / "my-conf" / "constraint"
    conf.mkdir(parents=True)
    (conf / "filter_pair.yaml").write_text(block("yaml", "filter_pair"))
    setting, line = block("", "ESPALIER_CONFIG=").strip().split(" ", 1)
    key, _, value = setting.partition("=")
    environment = {**os.environ, key: str(tmp_path / value), "ESPALIER_STORE": str(tmp_path / "runs")}
    words = line.split()
    assert words[0] == "espalier"
    quick = ["budgets.smoke.train=1", "budgets.smoke.admm=1", "budgets.smoke.retrain=1"]
    done = subprocess.run(
        [sys.executable, "-m", "espalier.cli", *words[1:], *quick], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "runs").glob("*/*/admm-70x/*/*/record.json")
    assert '"variant": true' in record.read_text()


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = block("python", "espalier.prune")
    pruning, _ = code.split('espalier.run("progressive-admm/lenet5"')
    exec(compile(pruning, "README.md", "exec"), {})
    assert (tmp_path / "pruned.safetensors").exists()


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in {"".join(found) for found in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", README, flags=re.MULTILINE)}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
