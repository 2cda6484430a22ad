"""Reading a paper's YAML: every error names the file, the line, the key and what was expected."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Schema = TypeVar("Schema", bound=BaseModel)
YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it was built in: ten times faster


def read_yaml(path: Path, schema: type[Schema], problems: Callable[[Schema], Iterable[tuple[tuple[str | int, ...], str]]]) -> Schema:
    """Read one file into its schema.

    Args:
        path: YAML file.
        schema: What it must hold.
        problems: What else must be right, given as (keys from the top of the file, message).

    Raises:
        ValueError: The file is missing, is no YAML, or breaks a rule; the message gives file, line, key and way out.
    """
    try:
        loader = YamlLoader(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}.") from error
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise ValueError(f"{path}:1: the file holds no mapping; it needs {', '.join(schema.model_fields)}.")
        for key in _repeated(root):
            raise ValueError(f"{path}:{key.start_mark.line + 1}: key '{key.value}' stands here a second time; remove one.")
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: not YAML: {error.problem}.") from error
    finally:
        loader.dispose()
    try:
        read = schema.model_validate(data)
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key is also a missing one
        raise ValueError(_located(path, root, first["loc"], _expected(first, _field_names(schema)))) from error
    for keys, message in problems(read):
        raise ValueError(_located(path, root, keys, message))
    return read


def _repeated(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key
            seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)


def _located(path: Path, root: yaml.Node, keys: Sequence[str | int], message: str) -> str:
    node, line, found = root, root.start_mark.line + 1, []
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            match = [(name, value) for name, value in node.value if name.value == str(key)]
            if not match:
                break
            line, node = match[0][0].start_mark.line + 1, match[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break  # pydantic adds the branches of a union, which the file does not have
        found.append(str(key))
    place = f"{path}:{line}: " + (f"{'.'.join(found)}: " if found else "")
    return f"{place}{message.rstrip('.')}." if not message.endswith("?") else place + message


def _expected(error: Any, fields: set[str]) -> str:
    key = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, sorted(fields), n=1)
        return f"unknown key '{key}'; " + (
            f"did you mean '{close[0]}'?" if close else "remove it, or quote the text before it if that has a comma"
        )
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if error["type"] == "value_error" else f"{message}, not {error['input']!r}"


def _field_names(schema: type[BaseModel]) -> set[str]:
    module_schemas = {schema, *schema.__mro__[1].__subclasses__()}
    return {name for one in module_schemas for name in getattr(one, "model_fields", {})}
