"""What the shell completes: tables, rows, scales, config groups and their options."""

from pathlib import Path

import typer

from espalier.bench_keys import EXAMPLES


def complete_table(incomplete: str) -> list[str]:
    """Return the names of runnable tables that begin so."""
    from espalier.tables.published import papers  # noqa: PLC0415

    names = [f"{paper.name}/{name}" for paper in papers().values() for name in paper.rows]
    return [name for name in names if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Return the names of finished runs that begin so."""
    from espalier.record import Store  # noqa: PLC0415

    return [record.name for record in Store().records() if record.name.startswith(incomplete)]


def complete_packable(incomplete: str) -> list[str]:
    """Return the names of tables and finished runs that begin so."""
    return complete_table(incomplete) + complete_run(incomplete)


def complete_key(incomplete: str) -> list[str]:
    """Return the keys of the config that begin so."""
    from espalier.explaining import explained_names  # noqa: PLC0415

    return [name for name in explained_names() if name.startswith(incomplete)]


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Return the overrides that begin so: the rows of the table, the scales, the config groups and their options."""
    from espalier.composing import config_dir, own_config_dir  # noqa: PLC0415
    from espalier.tables.published import table  # noqa: PLC0415
    from espalier.tables.schema import SCALES  # noqa: PLC0415

    key, separator, _ = incomplete.partition("=")
    folders = [config_dir(), *(Path(own) for own in [own_config_dir()] if own is not None)]
    if not separator:
        own = ("experiment", "experiments", "code", "contestant")  # no groups of settings
        groups = sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir() and path.name not in own})
        return [f"{name}=" for name in ["row", "scale", "seed", "rate", "rerun", *groups] if name.startswith(incomplete)]
    if key == "row":
        options = list(table(context.params["name"]).runnable)
    elif key == "scale":
        options = list(SCALES)
    elif key == "rerun":
        options = ["stale"]
    else:
        options = list({path.stem for folder in folders for path in (folder / key).glob("*.yaml")})
    return [choice for choice in (f"{key}={option}" for option in sorted(options)) if choice.startswith(incomplete)]


def complete_comparison(incomplete: str) -> list[str]:
    """Return the words of a comparison that begin so: its keys, and what ``model=``, ``data=``, ``method=`` and ``constraint=`` offer."""
    from espalier.composing import config_dir  # noqa: PLC0415

    key, separator, value = incomplete.partition("=")
    folders = {"model": "model", "data": "data", "method": "contestant", "constraint": "constraint"}
    if not separator:
        return [
            f"{name}="
            for name in [*folders, "rate", "seed", "scale", "epochs", "tune", "jobs", "name", "dry_run"]
            if name.startswith(incomplete)
        ]
    done, comma, begun = value.rpartition(",")
    options = [path.stem for path in sorted((config_dir() / folders.get(key, "none")).glob("*.yaml"))]
    return [f"{key}={done}{comma}{option}" for option in options if option.startswith(begun)]


def complete_bench(incomplete: str) -> list[str]:
    """Return the words of a benchmark that begin so: its keys, structures after ``constraint=``, and finished runs."""
    from espalier.composing import config_dir  # noqa: PLC0415

    key, separator, value = incomplete.partition("=")
    if separator:
        options = [path.stem for path in sorted((config_dir() / "constraint").glob("*.yaml"))] if key == "constraint" else []
        return [f"{key}={option}" for option in options if option.startswith(value)]
    return [f"{name}=" for name in EXAMPLES if name.startswith(incomplete)] + complete_run(incomplete)
