"""The digest of the code behind a run: the modules that its config names and all that those import.

Modules are found by reading source, never by importing it, so that listing runs brings no torch. A name imported from a package counts as
the module that defines it: a row that takes ``ADMM`` from ``espalier.methods`` does not depend on the other methods. Comments, docstrings
and layout change nothing. Installed packages (torch, timm) don't count, a record states their versions; a user's own modules do.
"""

import ast
import hashlib
import importlib.util
import json
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from espalier import HOMES
from espalier.code_text import code_text
from espalier.importing import as_target, make_importable
from espalier.record import Record

STEPPING = ("espalier.stepping",)  # runs the steps of every row
FIGURES = ("espalier.figures",)  # takes the figures of every row
INSTALLED = ("site-packages", "dist-packages")


def code_digest(config: Mapping[str, Any], roots: Iterable[str] = (*STEPPING, *FIGURES)) -> str:
    """Return the hash of the modules that a run of ``config`` uses.

    Args:
        config: A run's identity, or a part of it: every ``_target_`` in it is a place to start from.
        roots: Further places to start from: the machinery that no config names.
    """
    make_importable()
    found = modules([*roots, *targets(config)])
    texts = {name: _read(path, _stamp(path)).text for name, path in found.items()}
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def is_stale(record: Record) -> bool:
    """Return whether the code that made a record has changed since."""
    return bool(stale_runs([record]))


def stale_runs(records: Iterable[Record]) -> set[str]:
    """Return the names of the runs whose code has changed since; that of the same parts is read once."""
    digests: dict[frozenset[str], str] = {}
    stale = set()
    for record in records:
        parts = frozenset(targets(record.config))
        if parts not in digests:
            digests[parts] = code_digest(record.config)
        if record.code_digest != digests[parts]:
            stale.add(record.name)
    return stale


def step_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """Return step -> hash of the modules that its State comes from, those of the steps before it included.

    A State is kept under its step's key and this hash, and so is never reused from stale code, whatever ``rerun`` says: the record of a row
    that took it would bear a digest of code that had not trained it. The hash stays out of the key itself, because the key seeds the step,
    and moving a line of code must not draw other numbers.

    Args:
        config: A run's identity.
    """
    shared = {key: value for key, value in config.items() if key != "steps"}
    names = [name for name, _ in config["steps"]]
    return {name: code_digest({**shared, "steps": config["steps"][: index + 1]}, STEPPING) for index, name in enumerate(names)}


def targets(config: Any) -> Iterator[str]:
    """Yield every ``_target_`` below ``config``, and what ``model=python`` and ``data=python`` name beside it."""
    if isinstance(config, Mapping):
        if isinstance(target := config.get("_target_"), str):
            yield target
            if isinstance(own := config.get("target"), str):  # of model=python and data=python
                yield as_target(own)
        config = list(config.values())
    if isinstance(config, list | tuple):
        for item in config:
            yield from targets(item)


def modules(names: Iterable[str]) -> dict[str, Path]:
    """Return the modules, by name, that define ``names`` (dotted) and all they import, directly or not."""
    found: dict[str, Path] = {}
    waiting = [_home(name) for name in names]
    while waiting:
        module = waiting.pop()
        if module is None or module.name in found:
            continue
        found[module.name] = module.path
        source = _read(module.path, _stamp(module.path))
        waiting += [_module(of) if name is None else _member(of, name) for of, name in _absolute(source.imports, module)]
        waiting += [_home(chain) for chain in source.chains]
    return found


def defined_in(name: str) -> Path | None:
    """Return the file that defines what a dotted name stands for; None where that is an installed package, or nothing."""
    module = _home(name)
    return None if module is None else module.path


@dataclass(frozen=True)
class _Module:
    name: str
    path: Path

    @property
    def package(self) -> bool:
        return self.path.name == "__init__.py"


@dataclass(frozen=True)
class _Source:
    """What one file says.

    Args:
        text: Its code without comments, docstrings and layout.
        imports: Bound name -> (dots before the module, module, name imported from it; None imports the module).
        chains: Dotted names that begin with an imported module, ``methods.ADMM`` written out as ``espalier.methods.ADMM``.
    """

    text: str
    imports: tuple[tuple[str, int, str, str | None], ...]
    chains: tuple[str, ...]


@lru_cache(maxsize=1024)
def _read(path: Path, stamp: tuple[int, int]) -> _Source:  # noqa: ARG001 (a changed file has another stamp)
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return _Source(text, (), ())
    imports = tuple(_imports(tree))
    chains = tuple(
        sorted(set(_chains(tree, {bound: of if name is None else f"{of}.{name}" for bound, dots, of, name in imports if not dots})))
    )
    return _Source(code_text(tree), imports, chains)


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


def _imports(tree: ast.Module) -> Iterator[tuple[str, int, str, str | None]]:
    typing_only = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) for part in node.body
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, node.level, node.module or "", None if alias.name == "*" else alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], 0, alias.name, None


def _chains(tree: ast.Module, names: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(tree):
        attributes: list[str] = []
        base: ast.expr | ast.AST = node
        while isinstance(base, ast.Attribute):
            attributes.append(base.attr)
            base = base.value
        if attributes and isinstance(base, ast.Name) and base.id in names:
            start = names[base.id]
            start = base.id if start.startswith(f"{base.id}.") else start  # `import a.b` binds a
            yield ".".join([start, *reversed(attributes)])


def _absolute(imports: Iterable[tuple[str, int, str, str | None]], module: _Module) -> Iterator[tuple[str, str | None]]:
    for _, dots, of, name in imports:
        if not dots:
            yield of, name
            continue
        around = module.name.split(".")
        around = around[: len(around) - dots + module.package]
        yield ".".join([*around, of] if of else around), name


def _home(name: str) -> _Module | None:
    """Return the module that defines what a dotted name stands for; None where that is an installed package."""
    of, *rest = name.split(".")
    here = _module(of)
    for part in rest:
        found = _member(of, part)
        if found is None or not found.package:
            return found or here
        here, of = found, found.name
    return here


def _member(of: str, name: str) -> _Module | None:
    """Return the module that defines ``name`` of the module ``of``, through a package's re-exports."""
    here = _module(of)
    if here is not None and not here.package:
        return here
    if here is not None:
        for bound, (source, origin) in zip(*_bindings(here), strict=True):
            if bound == name and origin is not None and (source, origin) != (of, name):
                return _member(source, origin)
    if of == "espalier" and name in HOMES:
        return _member(HOMES[name], name)
    return _module(f"{of}.{name}") or here


def _bindings(package: _Module) -> tuple[list[str], list[tuple[str, str | None]]]:
    imports = _read(package.path, _stamp(package.path)).imports
    return [bound for bound, *_ in imports], list(_absolute(imports, package))


def _module(name: str) -> _Module | None:
    top, *rest = name.split(".")
    base = _base(top)
    if base is None:
        return None
    place = base.joinpath(*rest)
    found = (path for path in (place / "__init__.py", place.parent / f"{place.name}.py") if path.is_file())
    return next((_Module(name, path) for path in found), None)


@lru_cache(maxsize=1024)
def _base(top: str) -> Path | None:
    """Return the folder of a top-level package, or its file without the suffix; None where it is installed, built in or not there."""
    if top == "espalier":
        return Path(__file__).parent
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # __main__
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or [])
    place = Path(places[0]) if places else Path(spec.origin or "").with_suffix("")
    known = [Path(folder) for key, folder in sysconfig.get_paths().items() if key in ("stdlib", "platstdlib")]
    installed = any(part in INSTALLED for part in place.parts) or any(place.is_relative_to(folder) for folder in known)
    return None if installed or spec.origin in ("built-in", "frozen") else place
