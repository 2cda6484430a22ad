"""Code reads the same under every Python, as 3.11 writes it."""

import ast
import sys
from pathlib import Path

import pytest

import espalier
from espalier.code_text import code_text

MODULES = sorted(Path(espalier.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ('f"{a}"', "f'{a}'"),
        ("""f"{', '.join(a)} of {a!r}\"""", """f"{', '.join(a)} of {a!r}\""""),
        ("f'{{}}{a:>{width}.2f}\\n'", "f'{{}}{a:>{width}.2f}\\n'"),
        ("f'{(a if b else c)}{ {1: 2}[1] }'", "f'{(a if b else c)}{ {1: 2}[1]}'"),
        ("""f"{f'{a}'} b\"""", """f"{f'{a}'} b\""""),
        ("""f"it's {a['b']}\"""", """f"it's {a['b']}\""""),
        ("""f'''say "{a['b']}" '''""", """f'''say "{a['b']}" '''"""),
        ("f'a' 'b'", "f'ab'"),
        ('"""Doc."""\nx = 1  # why', "x = 1"),
        ('def f():\n    """Doc."""', "def f():\n    pass"),
    ],
)
def test_is_written_as_python_3_11_does(source: str, written: str) -> None:
    assert code_text(ast.parse(source)) == written
    assert written.startswith(("x", "def")) or ast.dump(ast.parse(written)) == ast.dump(ast.parse(source))


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="ast.unparse of this Python writes f-strings in its own way")
def test_records_made_so_far_keep_their_digests() -> None:
    for module in MODULES:
        tree, same = (ast.parse(module.read_text(encoding="utf-8")) for _ in range(2))
        text = code_text(tree)
        assert ast.parse(text)
        for node in ast.walk(same):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        assert text == ast.unparse(same), module
