"""What the compiler's suites share: entries measured one by one, kept in one JSON file from which a Markdown page is written.

An entry that is there is kept, unless it is asked for again; so a suite that was stopped goes on where it stood, and one entry can be
measured by itself. Each says where, when and with which versions it was measured.
"""

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from espalier.devices import cpu
from espalier.files import write_over
from espalier.frames.engines import ENGINES

RESULTS = Path(__file__).parent / "results"
Entry = dict[str, Any]
Page = Callable[[Mapping[str, Entry]], list[str]]


def facts() -> Entry:
    """Return where and when an entry is measured, and with which versions."""
    peers = {engine.name: engine.version() for engine in ENGINES.values()}
    versions = {"python": platform.python_version(), "torch": version("torch"), "timm": version("timm"), **peers}
    return {"device": str(cpu()), "started": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions}


def arguments(about: str | None, name: str) -> argparse.ArgumentParser:
    """Return the options that all suites take.

    Args:
        about: The script's text.
        name: Of its result files.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="Entries to measure, by name or glob.")
    parser.add_argument("--again", action="store_true", help="Measure entries that are there already.")
    parser.add_argument("--to", type=Path, default=RESULTS / f"{name}.json", help="JSON file; the page is written beside it.")
    return parser


def read(path: Path) -> dict[str, Entry]:
    """Return the entries of a result file; none where there is no file."""
    entries: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))["entries"] if path.exists() else {}
    return entries


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Return the names that ``only`` means.

    Raises:
        SystemExit: One of its patterns matches none.
    """
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SystemExit(f"--only {pattern} matches none of {', '.join(names)}.")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in only)]


def measure_all(names: Sequence[str], measure: Callable[[str], Entry], page: Page, asked: argparse.Namespace) -> None:
    """Measure what is asked and not there yet, write both files after each entry.

    Args:
        names: All entries, in the order of the page.
        measure: Name -> what is found of it.
        page: Entries -> lines of the page.
        asked: What ``arguments`` parsed.
    """
    console = Console(stderr=True)
    entries = read(asked.to)
    wanted = [name for name in chosen(names, asked.only) if asked.again or name not in entries]
    for number, name in enumerate(wanted, 1):
        console.print(f"{number} of {len(wanted)}: {name}", highlight=False)
        entries[name] = measure(name)
        ordered = {known: entries[known] for known in [*names, *sorted(entries.keys() - set(names))] if known in entries}
        write(asked.to, ordered, page)
    if not wanted and entries:
        write(asked.to, entries, page)


def write(path: Path, entries: Mapping[str, Entry], page: Page) -> None:
    """Write a result file and its page."""
    write_over(path, json.dumps({"entries": entries}, indent=1) + "\n")
    write_over(path.with_suffix(".md"), "\n".join(page(entries)) + "\n")


def origin(entries: Mapping[str, Entry]) -> list[str]:
    """Return the lines that say where, when and with what entries were measured; one for each difference."""
    return list(dict.fromkeys(_origin(entry) for entry in entries.values()))


def _origin(entry: Entry) -> str:
    installed = ", ".join(f"{name} {number}" for name, number in entry["versions"].items() if number)
    return f"{entry['device']}; {entry['started'][:10]}; {installed}."


def cell(value: float | None, form: str = ".3g") -> str:
    """Return a figure for a table; a dash for none."""
    return "-" if value is None else format(value, form)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
