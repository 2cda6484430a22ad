"""Arithmetic in YAML: computed columns and claims, without Python's ``eval``."""

import ast
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

FUNCTIONS = ("m", "series_mean", "first", "last")  # of claims: row and name -> number
CURVES = ("at_loss",)  # of claims: points lost, dense row, name, and the rows of a curve -> number
HELPERS: dict[str, Callable[..., float]] = {"abs": abs, "min": min, "max": max}


def _parse(expression: str) -> ast.Expression:
    try:
        return ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"'{expression}' is no arithmetic expression: {error.msg}") from error


def names(expression: str) -> set[str]:
    """Return the names that a computed column reads, ``dense.NAME`` as written.

    Raises:
        ValueError: The text is no expression, or calls something other than abs, min and max.
    """
    tree = _parse(expression)
    found: set[str] = set()
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if not (isinstance(node.func, ast.Name) and node.func.id in HELPERS):
                raise ValueError(f"'{expression}' calls {ast.unparse(node.func)}; a computed column knows {', '.join(HELPERS)}")
            skipped.add(id(node.func))
        elif isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id == "dense"):
                raise ValueError(f"'{expression}' reads {ast.unparse(node)}; only dense.NAME has a dot")
            skipped.add(id(node.value))
            found.add(f"dense.{node.attr}")
        elif isinstance(node, ast.Name) and id(node) not in skipped:
            found.add(node.id)
    return found


def readings(expression: str) -> list[tuple[str, str, str]]:
    """Return (function, ``TABLE/ROW``, name) of everything that a claim's expression reads from records.

    Raises:
        ValueError: The text is no expression, calls an unknown function, or names a row by anything but a plain string.
    """
    found = []
    for node in ast.walk(_parse(expression)):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        if function in HELPERS:
            continue
        if function in CURVES:
            found += _curve(node)
            continue
        if function not in FUNCTIONS:
            raise ValueError(f"'{expression}' calls {function}; a claim knows {', '.join((*FUNCTIONS, *CURVES, *HELPERS))}")
        texts = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
        if len(texts) != 2:
            raise ValueError(f"'{ast.unparse(node)}' needs two plain strings, TABLE/ROW and a name")
        found.append((function, texts[0], texts[1]))
    return found


def _curve(call: ast.Call) -> list[tuple[str, str, str]]:
    texts = [argument.value for argument in call.args[1:] if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
    if len(texts) != len(call.args) - 1 or len(texts) < 4:
        raise ValueError(f"'{ast.unparse(call)}' needs points lost, then plain strings: the dense TABLE/ROW, a name, two rows or more")
    dense, name, *rows = texts
    return [(ast.unparse(call.func), row, metric) for row in (dense, *rows) for metric in ("top1_pct", *([name] if row != dense else []))]


def with_row(expression: str, row: str) -> str:
    """Return the expression with the name ``row`` replaced by the string."""

    class Replace(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(row) if node.id == "row" else node

    return ast.unparse(Replace().visit(_parse(expression)))


def evaluate(
    expression: str, values: Mapping[str, float], dense: Mapping[str, float], functions: Mapping[str, Callable[..., float]] | None = None
) -> float | None:
    """Return the value of an expression; None where it divides by zero.

    Raises:
        ValueError: The expression uses something that arithmetic does not have.
    """
    names: dict[str, Any] = {**values, "dense": SimpleNamespace(**dense)}
    try:
        return float(SimpleEval(names=names, functions={**HELPERS, **(functions or {})}).eval(expression))
    except ZeroDivisionError:
        return None
    except InvalidExpression as error:
        raise ValueError(f"'{expression}' cannot be computed: {error}") from error
