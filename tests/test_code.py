"""The digest of the modules used: what a row does not use leaves it alone, what it uses changes it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import espalier
from espalier.code import FIGURES, STEPPING, code_digest, modules, step_digests, targets
from espalier.composing import composed, identity_of, register_rows, resolved

LENET5 = "progressive-admm/lenet5"


def identity(row: str, *overrides: str) -> dict:
    register_rows(LENET5, "smoke")
    return identity_of(resolved(composed(LENET5, [f"row={row}", *overrides])), "fingerprint")


@pytest.fixture
def digests(tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Return a function that digests rows in a copy of the package, which lies in ``tmp_path/espalier``."""
    shutil.copytree(Path(espalier.__file__).parent, tmp_path / "espalier", ignore=shutil.ignore_patterns("__pycache__"))
    rows = {row: identity(row) for row in ("dense", "admm-70x", "binary")}
    rows["steps"] = {"model": rows["admm-70x"]["model"], "steps": rows["admm-70x"]["steps"]}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    code = (
        "import json, sys; from pathlib import Path; from espalier.code import code_digest, step_digests\n"
        "rows = json.loads(Path('rows.json').read_text()); steps = rows.pop('steps')\n"
        "found = {row: code_digest(config) for row, config in rows.items()} | step_digests(steps)\n"
        "assert 'torch' not in sys.modules; print(json.dumps(found))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def taken() -> dict[str, str]:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found

    return taken


def test_only_what_a_row_uses_changes_its_digest(digests: Callable[[], dict[str, str]], tmp_path: Path) -> None:
    package = tmp_path / "espalier"
    before = digests()
    (package / "methods" / "unused.py").write_text("class Unused:\n    weight = 1\n")
    init = package / "methods" / "__init__.py"
    init.write_text(init.read_text().replace("__all__", "from espalier.methods.unused import Unused\n__all__"))
    admm = package / "methods" / "admm.py"
    admm.write_text("# a comment\n" + admm.read_text().replace('"""', '"""Other words. ', 1))
    assert digests() == before
    admm.write_text(admm.read_text() + "\nADDED = 1\n")
    after = digests()
    assert {name for name in after if after[name] != before[name]} == {"admm-70x", "constrain", "retrain", "binary"}
    levels = package / "constraints" / "levels.py"
    levels.write_text(levels.read_text() + "\nADDED = 1\n")
    assert {name for name, digest in digests().items() if digest != after[name]} == {"binary"}


def test_the_machinery_counts_to_every_row(digests: Callable[[], dict[str, str]], tmp_path: Path) -> None:
    before = digests()
    for path in ("steps/fit.py", "tasks/journal.py", "models/lenet5.py", "data/digits.py", "stepping.py"):
        file = tmp_path / "espalier" / path
        text = file.read_text()
        file.write_text(text + "\nADDED = 1\n")
        after = digests()
        assert all(
            after[name] != before[name] for name in before if not (path.startswith("data") and name in ("constrain", "retrain", "train"))
        )
        file.write_text(text)


def test_what_writes_records_and_tables_counts_to_none() -> None:
    used = modules([*STEPPING, *FIGURES, *targets(identity("progressive-246x"))])
    assert {"espalier.methods.admm", "espalier.steps.fit", "espalier.workload", "espalier.tasks.schedules"} <= used.keys()
    outside = ("espalier.tables", "espalier.record", "espalier.run", "espalier.cli", "espalier.tracking", "torch")
    assert not {name for name in used if name.startswith(outside)}
    assert not {name for name in used if name.endswith(("methods", "constraints", "tasks", "steps"))}


def test_a_lazily_exported_name_counts_as_its_module() -> None:
    assert "espalier.constraints.structures" in modules(["espalier.Structure"])
    assert "espalier" not in modules(["espalier.Structure"])


def test_ones_own_module_counts_with_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own_code_under_test"
    own.mkdir()
    (own / "__init__.py").write_text("")
    (own / "net.py").write_text(
        "import torch\nfrom espalier import constraints\nfrom . import parts as p\n\ndef net(): return p.deep.LAYER, constraints.Binary\n"
    )
    (own / "parts").mkdir()
    (own / "parts" / "__init__.py").write_text("from .. import other\nfrom . import deep\n")
    (own / "parts" / "deep.py").write_text("LAYER = 1\n")
    (own / "other.py").write_text("THING = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = own.name
    config = {"model": {"_target_": f"{name}.net.net", "optimizer": {"_target_": "torch.optim.Adam"}}}
    assert {f"{name}.net", f"{name}.parts", f"{name}.parts.deep", f"{name}.other", "espalier.constraints.levels"} <= modules(
        targets(config)
    ).keys()
    assert not [module for module in modules(targets(config)) if module.startswith("torch")]
    before = code_digest(config)
    (own / "parts" / "deep.py").write_text("LAYER = 1  # one\n")
    assert code_digest(config) == before
    (own / "parts" / "deep.py").write_text("LAYER = 22\n")
    assert code_digest(config) != before


@pytest.mark.parametrize("name", ["net_with_colon_under_test:net", "net_with_dot_under_test.net"])
def test_the_function_behind_model_python_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = name[: -len(":net")]
    path = tmp_path / f"{module}.py"
    path.write_text("def net(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"model": {"_target_": "espalier.from_python.python_model", "target": name}}
    before = code_digest(config)
    assert {module, "espalier.from_python"} <= modules(targets(config)).keys()
    path.write_text("def net(): return 22\n")
    assert code_digest(config) != before


def test_a_file_that_does_not_parse_counts_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_under_test.py").write_text("def (")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert code_digest({"_target_": "broken_under_test.net"}) != code_digest({})


def test_rows_that_share_a_step_share_its_digest() -> None:
    dense, admm, magnitude = (step_digests(identity(row)) for row in ("dense", "admm-70x", "magnitude-70x"))
    assert dense["train"] == admm["train"] == magnitude["train"]
    assert admm["constrain"] != magnitude["constrain"]
