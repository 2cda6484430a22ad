"""A user's own code by name: ``pkg.module:function`` in the current folder, in ``ESPALIER_CONFIG/code`` or wherever Python looks."""

import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from espalier.tables.names import did_you_mean


def make_importable() -> list[str]:
    """Add the current folder and ``ESPALIER_CONFIG/code`` to the end of Python's path, so that they hide nothing; return both."""
    own = os.environ.get("ESPALIER_CONFIG")
    places = [str(Path.cwd()), *([] if own is None else [str((Path(own) / "code").resolve())])]
    sys.path += [place for place in places if place not in sys.path]
    return places


def as_target(target: str) -> str:
    """Return ``pkg.module:function`` as a ``_target_`` is written, ``pkg.module.function``."""
    return target.replace(":", ".")


def imported(target: str | None, key: str) -> Callable[..., Any]:
    """Return what ``pkg.module:function`` (or ``pkg.module.function``) names.

    Args:
        target: The name.
        key: The config key that holds it, for the message.

    Raises:
        ValueError: It cannot be imported, or is nothing to call; the message names module, attribute and the places tried, or, where the
            module itself fails, file, line and error.
    """
    places = make_importable()
    if not target:
        raise ValueError(f"{key} is not given; write module:function, such as {key}=my_code:net.")
    module, _, name = str(target).rpartition(":" if ":" in str(target) else ".")
    if not module or not name.isidentifier():
        raise ValueError(f"{key}={target} names no function; write module:function, such as {key}=my_code:net.")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(
                f"{key}={target}: there is no module '{error.name}' in {', '.join(places)}, nor elsewhere on Python's path; "
                "start espalier in the folder that holds it, or name that folder in PYTHONPATH."
            ) from error
        raise ValueError(f"{key}={target}: module {module} imports '{error.name}', which is not installed.") from error
    except (Exception, SystemExit) as error:  # a user's lines may raise anything
        said = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"{key}={target}: module {module} cannot be imported: {_line_of(error)}: {type(error).__name__}: {said}"
        ) from error
    if not hasattr(found, name):
        known = [other for other, value in vars(found).items() if callable(value) and not other.startswith("_")]
        near = did_you_mean(name, known) if known else "it has nothing to call"
        raise ValueError(f"{key}={target}: {getattr(found, '__file__', None) or module} has no '{name}'; {near}.")
    function: Callable[..., Any] = getattr(found, name)
    if not callable(function):
        raise ValueError(f"{key}={target} is a {type(function).__name__}, nothing to call; name a function or a class.")
    return function


def _line_of(error: BaseException) -> str:
    """Return ``FILE:LINE`` of the user's line at which an import failed, be the error raised there or in a package that it calls."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames[1:] if not frame.filename.startswith(installed)]  # the first frame is the import above
    return "{0.filename}:{0.lineno}".format((own or frames)[-1])


def called(target: str | None, key: str, *, always: Mapping[str, Any], where_taken: Mapping[str, Any]) -> Any:
    """Call what ``target`` names.

    Args:
        target: The name.
        key: The config key that holds it, for the message.
        always: Arguments that the user gave.
        where_taken: Arguments that it is given where it has a parameter of that name, and the user gave none.

    Raises:
        ValueError: It cannot be imported, or does not take the arguments.
    """
    function = imported(target, key)
    signature = inspect.signature(function)
    taken = {name: value for name, value in where_taken.items() if name in signature.parameters}
    arguments = {**taken, **always}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        group = key.partition(".")[0]
        raise ValueError(f"{key}={target} takes {signature}: {error}; its arguments are {group}.args.") from error
    return function(**arguments)
