"""The generated pages ``docs/knobs.md`` (every key of the configs) and ``docs/names.md`` (every figure and field): ``make docs``."""

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from espalier.docstrings import described
from espalier.files import write_over
from espalier.knobs import Knob, Setting, knobs
from espalier.metrics import METRICS

GENERATED = "<!-- Written by `make docs`; change what it is written from. -->"
SCHEMAS = {
    "A run's record": "espalier.record.Record",
    "Its data": "espalier.record.DataSource",
    "A measurement's record": "espalier.record.Measurement",
    "A benchmark's line": "espalier.bench_result.Entry",
}
MOST_VALUES = 3  # that a cell lists


def write_reference(folder: Path) -> list[Path]:
    """Write both pages to a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {folder / "knobs.md": knobs_page(), folder / "names.md": names_page()}
    for path, text in pages.items():
        write_over(path, text)
    return list(pages)


def knobs_page() -> str:
    """Return the page of every key of the configs, by group and by what reads it."""
    every = sorted(knobs(), key=lambda knob: (_group(knob) != "", _group(knob)))
    lines = [
        GENERATED,
        "# Every key of the configs",
        "",
        "`espalier explain KEY` shows one of them with all its values and who gives them, `espalier run TABLE row=ROW --cfg job` what a",
        "run makes of them. A meaning names its unit and range; a type that ends in `| None` takes `null`. In a key, `*` stands for any",
        "name: a step of the recipe, a scale, an entry of `optimizers`. A default such as `${budget.train}` is read from another key.",
        "",
    ]
    for group, members in groupby(every, key=_group):
        lines += [f"## {group or 'The run'}", "", *_group_lines(list(members))]
    return "\n".join(lines).rstrip() + "\n"


def _group(knob: Knob) -> str:
    """Return the section of a key: its first part; a key of the top, which holds a value, has none."""
    first, _, rest = knob.key.partition(".")
    return first if rest or knob.options or first in ("budgets", "optimizers", "schedules") else ""


def _group_lines(members: list[Knob]) -> Iterator[str]:
    for knob in (one for one in members if one.options):
        yield from (f"`{knob.key}`: {_prose(knob.meaning)} Default: {_values(knob.defaults) or 'none'}.", "")
        yield from _grid(("option", "what"), ((f"`{option}`", _prose(text)) for option, text in knob.options.items()))
    values = sorted((one for one in members if not one.options), key=lambda one: one.reader or "")
    for reader, read in groupby(values, key=lambda one: one.reader):
        keys = list(read)
        yield from ([f"### {reader}", ""] if reader else [])
        if keys[0].source and reader:
            yield from (f"Source: {_prose(_distinct(key.source for key in keys))}.", "")
        if keys[0].refused:
            yield from (f"Refused: {_prose(keys[0].refused)}", "")
        yield from _grid(("key", "type", "meaning", "default", "changed by"), map(_row, keys))


def _row(knob: Knob) -> tuple[str, ...]:
    tables = dict.fromkeys(setting.where.partition(" ")[0] for setting in knob.changed)
    return (
        f"`{knob.key}`",
        f"`{knob.type}`" if knob.type else "",
        _prose(knob.meaning),
        _values(knob.defaults),
        ", ".join(f"`{name}`" for name in tables),
    )


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(part for text in texts for part in text.split("; ") if part))


def _values(settings: Iterable[Setting]) -> str:
    values = list(dict.fromkeys(setting.value for setting in settings))
    more = f" and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
    return ", ".join(f"`{value}`" for value in values[:MOST_VALUES]) + more


def names_page() -> str:
    """Return the page of every figure and of every field of the records."""
    lines = [
        GENERATED,
        "# Every figure and every field",
        "",
        "## Figures",
        "",
        "The names in records, tables, W&B and `--json`; `/*` stands for a layer or a part. Kinds are never mixed in a column.",
        "",
        *_grid(
            ("name", "unit", "kind", "better", "meaning"),
            ((f"`{one.name}`", one.unit, one.kind, one.better, _prose(one.meaning)) for one in METRICS),
        ),
    ]
    for title, name in SCHEMAS.items():
        says = described(name)
        assert says is not None
        rows = ((f"`{field}`", f"`{says.types[field]}`", _prose(text)) for field, text in says.arguments.items())
        lines += [f"## {title}", "", _prose(says.summary), "", *_grid(("field", "type", "meaning"), rows)]
    return "\n".join(lines).rstrip() + "\n"


def _grid(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (heads, tuple("---" for _ in heads), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _prose(text: str) -> str:
    """Return a docstring's text as Markdown: an asterisk and an angle bracket outside code are themselves."""
    parts = text.replace("``", "`").split("`")
    return "`".join(part if index % 2 else part.replace("*", "\\*").replace("<", "&lt;") for index, part in enumerate(parts))


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]))
