"""What code says of itself, read from source."""

import subprocess
import sys
from pathlib import Path

import pytest

from espalier.docstrings import described

MODULE = '''\
"""A module."""
from dataclasses import dataclass
from typing import Literal

from espalier.constraints.rates import RateOf

Form = Literal["a", "b"]


@dataclass
class Fields:
    """Fields of one line.

    Args:
        form: Which.
        rate_of: What counts,
            over two lines: with a colon.

    Raises:
        ValueError: ``form`` is neither.
    """

    form: Form
    rate_of: RateOf = "groups"


def plain(x: int, *, y: float | None = None) -> int:
    """Say little."""
'''


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_words.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_arguments_types_and_refusals() -> None:
    says = described("own_words.Fields")
    assert says is not None
    assert says.summary == "Fields of one line."
    assert says.arguments == {"form": "Which.", "rate_of": "What counts, over two lines: with a colon."}
    assert says.types == {"form": "Literal['a', 'b']", "rate_of": "Literal['groups', 'weights', 'macs', 'bytes']"}
    assert says.raises == "``form`` is neither."


def test_a_function_without_args() -> None:
    says = described("own_words.plain")
    assert says is not None
    assert (says.arguments, says.types) == ({}, {"x": "int", "y": "float | None"})


@pytest.mark.parametrize("name", ["torch.optim.SGD", "own_words.Missing", "nowhere.Thing"])
def test_what_cannot_be_read_is_none(name: str) -> None:
    assert described(name) is None


def test_nothing_is_imported() -> None:
    read = "import sys; from espalier.docstrings import described; assert described('espalier.methods.ADMM').arguments"
    code = f"{read}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
