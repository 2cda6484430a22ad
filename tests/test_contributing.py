"""What CONTRIBUTING shows works as written."""

import re
from pathlib import Path

import pytest

import espalier
from espalier.methods import Method
from espalier.record import Store

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAPER = "progressive-admm"


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", CONTRIBUTING, flags=re.MULTILINE | re.DOTALL)
    return str(text)


def test_the_method_runs_from_a_folder_of_ones_own(tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pull.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "conf" / "method").mkdir(parents=True)
    config = block("yaml").replace("espalier.methods.pull.Pull", "pull.Pull")
    (tmp_path / "conf" / "method" / "pull.yaml").write_text(config, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ESPALIER_CONFIG", str(tmp_path / "conf"))
    quick = [f"budgets.smoke.{step}=1" for step in ("train", "admm", "retrain")]
    (record,) = espalier.run(f"{PAPER}/lenet5", rows=["admm-70x"], overrides=["method=pull", *quick])
    assert record.variant
    assert dict(record.config["steps"])["constrain"]["method"]["share"] == 0.05
    assert record.metrics["weights_nonzero"] == 6050
    assert record.metrics["weights_outside_set"] == 0
    assert [kept.name for kept in Store(store_folder).records()] == [record.name]


def test_the_method_has_the_members_it_counts() -> None:
    members = {name for name in [*vars(Method), *Method.__annotations__] if not name.startswith("_")}
    assert len(members) == 9
    assert all(re.search(rf"(def |self\.){name}\b", block("python")) for name in members)


def test_every_file_it_names_exists() -> None:
    named = re.findall(r"`([\w./<>-]+\.(?:py|yaml|md|ipynb))`", CONTRIBUTING)
    planned = {"src/espalier/methods/pull.py", "conf/method/pull.yaml"}
    paths = {name.replace("<paper>", PAPER).replace("<table>", "lenet5") for name in named} - planned
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not (ROOT / path).is_file()] == []
