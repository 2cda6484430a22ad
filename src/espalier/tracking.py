"""Weights & Biases as a mirror of the record: one run a row and seed, its steps on one axis ``progress/epoch``. Offline unless asked."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from espalier.files import write_over
from espalier.metrics import unknown
from espalier.packing import PackReport
from espalier.record import Record, digest

QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",  # the terminal is the progress bar's
    "disable_git": True,  # the record has the commit
    "save_code": False,
    "x_disable_stats": True,  # no thread that samples the machine while a network is being timed
    "x_disable_machine_info": True,
    "init_timeout": 10,
}
FACTS = ("identity", "variant", "command", "commit", "dirty", "code_digest", "data", "steps", "checkpoint", "versions", "device", "started")


def opened(mode: str | None, **arguments: Any) -> Any:
    """Return a W&B run that ``wandb.init`` opens with ``arguments``, and nothing of the machine's.

    Args:
        mode: ``offline``, ``online`` or ``disabled``; None is online for who has logged in, else offline. ``WANDB_MODE`` wins.
        arguments: Of ``wandb.init``.
    """
    import wandb  # noqa: PLC0415  half a second to import, and only wanted here

    settings = wandb.Settings(**QUIET)
    chosen: Any = os.environ.get("WANDB_MODE", mode) or ("online" if wandb.login(prompt=False) else "offline")
    try:
        return wandb.init(**arguments, mode=chosen, settings=settings)
    except wandb.errors.CommError as error:
        logging.getLogger(__name__).warning("W&B does not answer (%s); the run is kept offline, `wandb sync` uploads it later.", error)
        return wandb.init(**arguments, mode="offline", settings=settings)


class WandbRun:
    """One W&B run, open between ``with`` and its end; it is finished even if the row fails.

    A run that goes on after a kill keeps its id and never logs an epoch twice to the same place, offline files or server. W&B fixes
    ``job_type`` for a run, so that it names the last step, the one the row is about; the step that an epoch belongs to is logged as
    ``progress/step``.

    Args:
        project: W&B project.
        mode: ``offline``, ``online`` or ``disabled``; None is online for who has logged in (``wandb login``), else offline. The variable
            ``WANDB_MODE`` wins. Where the server does not answer, the run is kept offline.
        run_config: Resolved config of the run.
        name: The run's name in the store.
        code: Digest of the code: a run done anew with other code is another W&B run.
        folder: Where W&B keeps its files.
    """

    def __init__(self, *, project: str, mode: str | None, run_config: Mapping[str, Any], name: str, code: str, folder: Path) -> None:
        self.id = digest([name, code])[:16]
        self.place = folder / "wandb" / f"{self.id}.json"
        self.mode = mode
        self.arguments: dict[str, Any] = {
            "project": project,
            "id": self.id,
            "resume": "allow",
            "name": name,
            "group": f"{run_config['paper']}/{run_config['table']}",
            "job_type": list(run_config["recipe"]["steps"])[-1],
            "tags": [str(run_config["row"]), str(run_config["scale"])],
            "config": dict(run_config),
            "dir": folder,
        }

    def __enter__(self) -> "WandbRun":
        self.run = opened(self.mode, **self.arguments)
        self.where = "offline" if self.run.offline else "online"
        self.last = self._logged()
        self.run.define_metric("progress/epoch")
        self.run.define_metric("*", step_metric="progress/epoch")
        return self

    def _logged(self) -> int:
        """Return the last epoch that was logged to the same place: what is kept offline has not reached the server, and the reverse."""
        if not self.place.exists():
            return 0
        kept = json.loads(self.place.read_text(encoding="utf-8"))
        return int(kept["progress/epoch"]) if kept.get("where", "offline") == self.where else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.run.finish(exit_code=0 if kind is None else 1)

    def log(self, progress: int, figures: Mapping[str, float]) -> None:
        """Send one epoch's figures, once.

        Raises:
            ValueError: A figure is not listed in ``espalier.metrics``.
        """
        _check(figures)
        if progress <= self.last:
            return
        self.run.log({"progress/epoch": progress, **figures}, step=progress)
        self.last = progress
        write_over(self.place, json.dumps({"progress/epoch": progress, "where": self.where}))

    def summarise(self, record: Record, packed: PackReport) -> None:
        """Send the record's figures and facts, and the bytes of each part of the packed checkpoint.

        Raises:
            ValueError: A figure is not listed in ``espalier.metrics``.
        """
        figures: dict[str, float] = {name: value for name, value in record.metrics.items() if value is not None}
        figures |= {f"stored_bytes/{name}/{part}": size for name, parts in packed.tensors.items() for part, size in parts.items()}
        _check(figures)
        self.run.summary.update({**figures, "record": record.model_dump(mode="json", include=set(FACTS))})


def _check(figures: Mapping[str, float]) -> None:
    if names := unknown(figures):
        raise ValueError(f"{', '.join(names)} is logged but not listed in espalier/metrics.py; add its unit and better direction.")
