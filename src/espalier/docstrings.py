"""What the code says of a class or function: its docstring and signature, read from source without importing it."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from espalier.code import defined_in

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Described:
    """What a class or function says of itself.

    Args:
        summary: First sentence of its docstring.
        arguments: Name -> text under ``Args:``; a class of fields is described the same way.
        types: Name -> annotation as written, an alias of a ``Literal`` written out.
        raises: What it refuses, from ``Raises:``.
    """

    summary: str
    arguments: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    raises: str = ""


def described(name: str) -> Described | None:
    """Return what the class or function of a dotted name says; None where an installed package or nobody defines it."""
    path = defined_in(name)
    return None if path is None else _described(path, path.stat().st_mtime_ns, name.rpartition(".")[2])


@lru_cache(maxsize=1024)
def _described(path: Path, stamp: int, name: str) -> Described | None:
    tree = _tree(path, stamp)
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name), None)
    if found is None:
        return None
    parts = _sections(ast.get_docstring(found) or "")
    types = {argument: _written_out(annotation, tree) for argument, annotation in _annotations(found)}
    arguments = _entries(parts.get("Args", ""))
    return Described(_first_sentence(parts[""]), arguments, types, " ".join(_entries(parts.get("Raises", "")).values()))


@lru_cache(maxsize=256)
def _tree(path: Path, stamp: int) -> ast.Module:  # noqa: ARG001
    return ast.parse(path.read_text(encoding="utf-8"))


def _sections(text: str) -> dict[str, str]:
    """Return a Google docstring's sections by title, the text before them under ``""``."""
    parts = re.split(r"^(Args|Returns|Yields|Raises):\s*\n", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def _entries(section: str) -> dict[str, str]:
    """Return name -> text of a section, each on one line."""
    section = inspect.cleandoc(f"\n{section}")
    found = re.split(r"^(\w+)(?: \(.*?\))?:[ \n]", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(found[1::2], found[2::2], strict=True)}


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def _annotations(node: Definition) -> Iterator[tuple[str, ast.expr]]:
    """Yield the annotated arguments of a function, or of a class's ``__init__`` or fields."""
    function = node
    if isinstance(node, ast.ClassDef):
        own = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not own:
            fields = (part for part in node.body if isinstance(part, ast.AnnAssign))
            yield from ((part.target.id, part.annotation) for part in fields if isinstance(part.target, ast.Name))
            return
        function = own[0]
    assert isinstance(function, ast.FunctionDef)
    for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs):
        if argument.annotation is not None:
            yield argument.arg, argument.annotation


def _written_out(annotation: ast.expr, tree: ast.Module) -> str:
    """Return an annotation as text; a name that stands for a ``Literal``, here or where it is imported from, as that."""
    text = ast.unparse(annotation)
    if not isinstance(annotation, ast.Name):
        return text
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == text for to in node.targets):
            value = ast.unparse(node.value)
            return value if value.startswith("Literal[") else text
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == text for alias in node.names):
            path = None if node.module is None else defined_in(f"{node.module}.{text}")
            return text if path is None else _written_out(annotation, _tree(path, path.stat().st_mtime_ns))
    return text
