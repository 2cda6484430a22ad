"""Weights & Biases as a mirror of the record: one run a row and seed, its steps on one axis ``progress/epoch``. Offline unless asked."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.metrics import unknown


class WandbRun:
    """One W&B run.

    Args:
        project: W&B project.
        mode: ``offline``, ``online`` or ``disabled``; the variable ``WANDB_MODE`` wins.
        run_config: Resolved config of the run.
        name: The run's name in the store; a resumed run keeps its id.
        folder: Where W&B keeps its files.
    """

    def __init__(self, *, project: str, mode: str, run_config: Mapping[str, Any], name: str, folder: Path) -> None:
        import wandb  # noqa: PLC0415  a second to import, and only wanted here

        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        self.run = wandb.init(
            project=project,
            mode=os.environ.get("WANDB_MODE", mode),  # type: ignore[arg-type]
            id=name.rpartition("-")[2] + str(run_config["row"]),
            resume="allow",
            name=name,
            group=f"{run_config['paper']}/{run_config['table']}",
            tags=[str(run_config["row"]), str(run_config["scale"])],
            config=dict(run_config),
            dir=folder,
            settings=settings,
        )
        self.run.define_metric("progress/epoch")
        self.run.define_metric("*", step_metric="progress/epoch")

    def log(self, progress: int, figures: Mapping[str, float]) -> None:
        """Send one epoch's figures.

        Raises:
            ValueError: A figure is not listed in ``espalier.metrics``.
        """
        if names := unknown(figures):
            raise ValueError(f"{', '.join(names)} is logged but not listed in espalier/metrics.py; add its unit and better direction.")
        self.run.log({"progress/epoch": progress, **figures})

    def finish(self, metrics: Mapping[str, float | None]) -> None:
        """Send the record's figures and close the run."""
        self.run.summary.update({name: value for name, value in metrics.items() if value is not None})
        self.run.finish()
