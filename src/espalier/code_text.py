"""Code as text without comments, docstrings and layout, the same under every Python: what a digest of code is taken of.

``ast.unparse`` writes f-strings differently since Python 3.12, whose grammar lets any quotes stand inside them. Here they are written alike
everywhere, so that a record does not look stale to whoever reads it with another Python: as Python 3.11 does, which the first records were
made under, but for escapes in a format and tabs in a string within a field.
"""

import ast

QUOTES = ("'", '"', '"""', "'''")
ELSE = " if _ else _"  # beside it an expression gets the parentheses that it has within an f-string


def code_text(tree: ast.Module) -> str:
    """Return the code of a module without comments, docstrings and layout; ``tree`` is changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(_FStrings().visit(tree))


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None


class _FStrings(ast.NodeTransformer):
    """Puts names in the place of f-strings, the innermost first: ``ast.unparse`` writes them as they are."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Name:
        parts = [_escaped(_doubled(part)) if isinstance(part, ast.Constant) else self._field(part) for part in node.values]
        able = list(QUOTES)
        for part in filter(None, parts):
            able = [quotes for quotes in able if quotes not in part] or [QUOTES[-1]]
            able.sort(key=lambda quotes: quotes[0] == part[-1])
        return ast.Name(f"f{able[0]}{''.join(parts)}{able[0]}")

    def _field(self, part: ast.expr) -> str:
        """Return an expression in braces; in a format, too, there may be some."""
        assert isinstance(part, ast.FormattedValue)
        wrapped = ast.IfExp(test=ast.Name("_"), body=self.visit(part.value), orelse=ast.Name("_"))
        value = ast.unparse(wrapped).removesuffix(ELSE)
        conversion = f"!{chr(part.conversion)}" if part.conversion != -1 else ""
        form = f":{''.join(self._form(part.format_spec))}" if part.format_spec else ""
        return f"{{{' ' * value.startswith('{')}{value}{conversion}{form}}}"

    def _form(self, spec: ast.expr) -> list[str]:
        assert isinstance(spec, ast.JoinedStr)
        return [_doubled(part) if isinstance(part, ast.Constant) else self._field(part) for part in spec.values]


def _doubled(part: ast.Constant) -> str:
    return str(part.value).replace("{", "{{").replace("}", "}}")


def _escaped(text: str) -> str:
    return "".join(one if one.isprintable() and one != "\\" else one.encode("unicode_escape").decode("ascii") for one in text)
