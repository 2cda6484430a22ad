"""A table and the report as W&B artifacts, in a run of their own: offline unless the user has logged in."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espalier.composing import config_dir
from espalier.inventory import export, highest_scale, report, table
from espalier.record import Store, digest
from espalier.tracking import opened

JOB = "report"


@dataclass(frozen=True)
class Published:
    """Where a table and the report went.

    Args:
        folder: W&B's files of it; what is kept offline is uploaded by ``wandb sync FOLDER``.
        url: Its page; None offline.
        artifacts: Names of what was logged.
    """

    folder: Path
    url: str | None
    artifacts: list[str]


def publish(name: str, *, scale: str | None = None, store: Store | None = None) -> Published:
    """Log a table, as rows and as csv, and the report to W&B: artifacts of one run, job type ``report``, in the group of the table's runs.

    A table published again is another version of the same artifacts.

    Args:
        name: ``PAPER/TABLE``.
        scale: smoke, desk or paper; None takes the highest that has records.
        store: Where the runs live; None takes ``ESPALIER_STORE``, else ``runs``.

    Raises:
        ValueError: There is no such table; the message has the nearest. Or ``WANDB_MODE`` has W&B switched off.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        raise ValueError(f"WANDB_MODE=disabled switches W&B off, and with it where {name} would go; unset it, or set it to offline.")
    home = store or Store()
    scale = scale or highest_scale(name, home)
    frame = table(name, scale=scale, store=home)
    settings = yaml.safe_load((config_dir() / "logger" / "wandb.yaml").read_text(encoding="utf-8"))
    facts = {"group": name, "job_type": JOB, "tags": [scale], "name": f"{name}/{scale}", "id": digest([JOB, name, scale])[:16]}
    folder = home.root / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"{name.replace('/', '-')}-{scale}.csv"
        file.write_text(export(name, "csv", scale=scale, store=home), encoding="utf-8")
        pages = report(Path(place) / "report", home).parent
        with opened(settings["mode"], project=settings["project"], dir=folder, resume="allow", **facts) as run:
            rows: list[Any] = [[_plain(value) for value in line] for line in frame.itertuples(index=False)]
            import wandb  # noqa: PLC0415  as in tracking

            run.log({"table": wandb.Table(columns=list(frame.columns), data=rows, allow_mixed_types=True)})
            logged = [_artifact(run, file.stem, "table", file), _artifact(run, "report", "report", pages)]
            return Published(Path(run.dir).parent, None if run.offline else run.url, logged)


def _plain(value: Any) -> Any:
    """Return a cell as W&B takes it: lists and what is no number as text, what is missing as None."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None or value != value:  # the latter is NaN
        return None
    return value if isinstance(value, bool | int | float) else str(value)


def _artifact(run: Any, name: str, kind: str, path: Path) -> str:
    import wandb  # noqa: PLC0415

    artifact = wandb.Artifact(name, type=kind)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    for file in files:  # add_dir prints
        artifact.add_file(str(file), name=str(file.relative_to(path if path.is_dir() else path.parent)))
    run.log_artifact(artifact)
    return name
