"""What README shows works as written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import espalier

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    fences = README.split("```")[1::2]
    texts = [text.removeprefix(language) for text in fences if text.startswith(f"{language}\n")]
    return next(text for text in texts if containing in text)


@pytest.mark.slow
def test_a_structure_and_a_method_from_folders_of_ones_own_in_40_lines(tmp_path: Path) -> None:
    own = [block("yaml", "my-conf/constraint").strip(), block("python", "my-code/").strip(), block("yaml", "my-conf/method").strip()]
    for text in own:
        path = re.match(r"# ([\w/.-]+)", text)
        assert path is not None
        (tmp_path / path[1]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1]).write_text(text)
    lines = [line for text in own for line in text.splitlines() if line.strip()]
    assert len(lines) <= 40
    words = block("", "ESPALIER_CONFIG=").split()
    settings, words = dict(word.split("=", 1) for word in words[:2]), words[2:]
    assert words[0] == "espalier"
    places = {key: str(tmp_path / value) for key, value in settings.items()}
    places["PYTHONPATH"] = os.pathsep.join(filter(None, [places["PYTHONPATH"], os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **places, "ESPALIER_STORE": str(tmp_path / "runs")}
    quick = ["budgets.smoke.train=1", "budgets.smoke.admm=1", "budgets.smoke.retrain=1"]
    done = subprocess.run(
        [sys.executable, "-m", "espalier.cli", *words[1:], *quick], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*/*/admm-70x/*/*/record.json")
    record = json.loads(path.read_text())
    step = dict(record["config"]["steps"])["constrain"]
    assert step["method"]["_target_"] == "pull.Pull"
    assert step["constraint"]["set"]["structure"]["name"] == "filter_pair"
    assert record["variant"]
    assert record["metrics"]["weights_outside_set"] == 0
    model = espalier.load(path.parent / "model.safetensors")
    for name in ("conv1", "conv2", "fc1"):
        pairs = model.get_submodule(name).weight.detach().flatten(1).unflatten(0, (-1, 2)).ne(0)
        alive = pairs.any(2)
        assert torch.equal(alive[:, 0], alive[:, 1]), name
        assert int(alive[:, 0].sum()) == (len(alive) + 1) // 2  # half, rounded up


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = block("python", "espalier.prune")
    pruning, _ = code.split('espalier.run("progressive-admm/lenet5"')
    exec(compile(pruning, "README.md", "exec"), {})
    assert (tmp_path / "pruned.safetensors").exists()


@pytest.mark.slow
def test_the_example_that_compiles_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    code = block("python", "espalier.compile")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    places: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), places)
    compiled, pruned, x = places["compiled"], places["pruned"], places["x"]
    with torch.inference_mode():
        wanted = pruned(x)  # type: ignore[operator]
    assert (compiled(x) - wanted).abs().max() < 1e-4 * wanted.abs().max()  # type: ignore[operator]
    compiled.close()  # type: ignore[attr-defined]
    subprocess.run(["make", "-C", "standalone"], check=True, capture_output=True)
    record = json.loads(subprocess.run(["standalone/network", "1"], check=True, capture_output=True).stdout)
    assert record["metrics"]["max_rel_error"] < 1e-4


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in {"".join(found) for found in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", README, flags=re.MULTILINE)}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
