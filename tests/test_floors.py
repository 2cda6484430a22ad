"""Imports go down the floors, never up, never between packages of one floor."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import espalier

ROOT = Path(espalier.__file__).parent
FLOORS = [
    {"constraints", "models", "metrics", "devices", "files", "progress"},
    {"record", "workload", "packing", "storage", "methods", "data", "training_cost"},
    {"rewrites", "tasks", "compiler"},
    {"frames"},
    {"steps", "tables"},
    {"site"},
]
TOP = len(FLOORS)  # everything else: the runner, the command line and what lies between


def floor(part: str) -> int:
    return next((level for level, parts in enumerate(FLOORS) if part in parts), TOP)


def imports() -> list[tuple[str, str, str]]:
    found = []
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.Import | ast.ImportFrom):
                for module in modules:
                    if module == "espalier" and isinstance(node, ast.ImportFrom):
                        found += [(str(path.relative_to(ROOT)), part, alias.name) for alias in node.names]
                    elif module.startswith("espalier."):
                        found.append((str(path.relative_to(ROOT)), part, module.split(".")[1]))
    return found


@pytest.mark.tiny
def test_imports_go_down() -> None:
    wrong = [
        f"{path} imports {other}" for path, part, other in imports() if part != other and floor(other) >= floor(part) and floor(part) < TOP
    ]
    assert wrong == []


@pytest.mark.tiny
def test_every_package_has_a_floor() -> None:
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert packages <= set().union(*FLOORS)


@pytest.mark.tiny
@pytest.mark.parametrize("module", ["espalier", "espalier.cli", "espalier.tables.claims", "espalier.composing"])
def test_light_modules_bring_no_heavy_ones(module: str) -> None:
    heavy = (
        "{'torch', 'wandb', 'dvc', 'plotly', 'timm', 'matplotlib'}" if module != "espalier.composing" else "{'wandb', 'dvc', 'matplotlib'}"
    )
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
