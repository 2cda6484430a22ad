"""A user's own code by name: what fails in it is named with its place."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.importing import imported

NAME = "own_code_under_test"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    yield tmp_path
    for name in (NAME, f"{NAME}_helper"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("width = 1\nnet = Module(width)\n", 2, "NameError: name 'Module' is not defined"),
        ("def net(:\n", 1, "SyntaxError: invalid syntax"),
        ("def net():\npass\n", 2, "IndentationError: expected an indented block after function definition on line 1"),
        ("import torch\n\nnet = torch.nn.Linear(1, 'one')\n", 3, "TypeError: "),
        ("from torch import nothing\n", 1, "ImportError: cannot import name 'nothing' from 'torch'"),
        ("import sys\nsys.exit('no GPU')\n", 2, "SystemExit: no GPU"),
        ("import json\nnet = json.loads('{')\n", 2, "JSONDecodeError: Expecting property name"),
    ],
)
def test_what_fails_in_a_module_is_named_with_file_and_line(folder: Path, text: str, line: int, message: str) -> None:
    path = folder / f"{NAME}.py"
    path.write_text(text)
    start = f"model.target={NAME}:net: module {NAME} cannot be imported: {path}:{line}: {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(start)}"):
        imported(f"{NAME}:net", "model.target")


def test_what_fails_in_a_module_that_it_imports_is_named_there(folder: Path) -> None:
    (folder / f"{NAME}.py").write_text(f"from {NAME}_helper import net\n")
    (folder / f"{NAME}_helper.py").write_text("\nnet = 1 / 0\n")
    with pytest.raises(ValueError, match=rf"module {NAME} cannot be imported: .*{NAME}_helper\.py:2: ZeroDivisionError: division by zero"):
        imported(f"{NAME}:net", "model.target")
