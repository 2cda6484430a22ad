"""The keys of a YAML file with the comments beside them, which YAML's own readers drop."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from espalier.tables.reading import YamlLoader

HIDDEN = ("defaults", "_target_", "_partial_", "hydra")  # what Hydra reads itself


@dataclass(frozen=True)
class Key:
    """One key of a mapping.

    Args:
        name: The key alone, without those above it.
        value: What is written for it, on one line; of a mapping with a ``_target_``, that name.
        comment: What stands behind it on its line, in deeper lines right below, or else in lines of its own right above.
        line: Its line, from 1.
        target: ``_target_`` of the mapping that it holds.
        keys: The keys of that mapping, or of those in a list.
    """

    name: str
    value: str
    comment: str
    line: int
    target: str | None = None
    keys: tuple["Key", ...] = ()


@dataclass(frozen=True)
class KeyFile:
    """One file.

    Args:
        head: The comment that it begins with, on one line; Hydra's ``@package`` left out.
        defaults: Its list of defaults, each as ``(key, option)``; a plain entry has the key ``""``.
        target: ``_target_`` of the file.
        keys: Its keys, those that Hydra reads left out.
        whole: Whether it sets keys from the top of the config, ``@package _global_``.
    """

    head: str
    defaults: tuple[tuple[str, str], ...]
    target: str | None
    keys: tuple[Key, ...]
    whole: bool


def read_keys(path: Path) -> KeyFile:
    """Read one file.

    Raises:
        ValueError: The file is no YAML mapping; the message names it.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _read(path: Path, stamp: int) -> KeyFile:  # noqa: ARG001 (a changed file has another stamp)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    try:
        root = yaml.compose(text, Loader=YamlLoader)
        plain = yaml.load(text, Loader=YamlLoader) or {}  # noqa: S506  a safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise ValueError(f"{path} holds no mapping.")
    head = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    words = [line.lstrip("# ") for line in lines[:head]]
    keys = tuple(_keys(root, lines, head)) if isinstance(root, yaml.MappingNode) else ()
    return KeyFile(
        head=" ".join(word for word in words if not word.startswith(("@package", "espalier "))),
        defaults=tuple(_defaults(plain.get("defaults") or [])),
        target=_text(plain.get("_target_")),
        keys=keys,
        whole=any(word.startswith("@package _global_") for word in words),
    )


def _defaults(entries: list[Any]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        if isinstance(entry, dict):
            yield from ((str(key), str(option)) for key, option in entry.items())
        else:
            yield "", str(entry)


def _keys(node: yaml.MappingNode, lines: list[str], head: int) -> Iterator[Key]:
    for key, value in node.value:
        if str(key.value).isidentifier() and key.value not in HIDDEN:  # others are globs and keys in full: a mapping that is a value
            target = _target(value)
            yield Key(
                name=str(key.value),
                value=target or _written(value, lines),
                comment=_comment(key, value, lines, head),
                line=key.start_mark.line + 1,
                target=target,
                keys=tuple(_below(value, lines, head)),
            )


def _below(node: yaml.Node, lines: list[str], head: int) -> Iterator[Key]:
    if isinstance(node, yaml.MappingNode):
        yield from _keys(node, lines, head)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _below(item, lines, head)


def _target(node: yaml.Node) -> str | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((str(value.value) for key, value in pairs if key.value == "_target_"), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _written(node: yaml.Node, lines: list[str]) -> str:
    """Return a value as the file writes it, on one line; a mapping in block form as its keys."""
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return "{" + ", ".join(str(key.value) for key, _ in node.value) + "}"
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column]
    return " ".join(line.partition(" #")[0].strip() for line in lines[start.line : end.line + 1])


def _comment(key: yaml.Node, value: yaml.Node, lines: list[str], head: int) -> str:
    first, column = key.start_mark.line, key.start_mark.column
    if lines[first][:column].strip(" -"):
        return ""  # another key of this line owns its comment
    inline = isinstance(value, yaml.ScalarNode) or (isinstance(value, yaml.CollectionNode) and bool(value.flow_style))
    last, after = (value.end_mark.line, value.end_mark.column) if inline else (first, key.end_mark.column)
    found = re.search(r"(?:^|\s)#\s*(.*)", lines[last][after:]) if last < len(lines) else None
    beside = [found[1].strip()] if found else []
    beside += _comments(lines, range(last + 1, len(lines)), deeper_than=column)
    return " ".join(beside or reversed(_comments(lines, range(first - 1, head - 1, -1), deeper_than=column - 1)))


def _comments(lines: list[str], places: range, *, deeper_than: int) -> list[str]:
    """Return the texts of successive lines that hold nothing but a comment."""
    texts: list[str] = []
    for place in places:
        text = lines[place].lstrip()
        if not text.startswith("#") or len(lines[place]) - len(text) <= deeper_than:
            break
        texts.append(text.lstrip("# ").strip())
    return texts
