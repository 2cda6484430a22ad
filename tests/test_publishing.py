"""A table and the report as W&B artifacts: offline, without an account, in the store."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import espalier
from espalier.cli import app

TABLE = "progressive-admm/lenet5"


@pytest.fixture(autouse=True)
def _small_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a report of two pages in place of the whole, which is tested by itself and takes seconds."""

    def written(out: Path, store: Any) -> Path:
        (out / "papers").mkdir(parents=True)
        for name in ("index.html", "papers/one.html"):
            (out / name).write_text("<p>", encoding="utf-8")
        return out / "index.html"

    monkeypatch.setattr("espalier.publishing.report", written)


def test_it_is_kept_offline_below_the_table(store_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    found = espalier.publish(TABLE, scale="desk")
    assert found.url is None
    assert found.artifacts == ["progressive-admm-lenet5-desk", "report"]
    assert list(store_folder.glob("*/*/wandb/offline-run-*")) == [found.folder]  # as README's `wandb sync` names them
    (kept,) = found.folder.glob("*.wandb")
    content = kept.read_bytes()
    assert b"admm-70x" in b"".join(path.read_bytes() for path in found.folder.rglob("*.table.json"))
    assert all(name.encode() in content for name in found.artifacts)
    assert not (tmp_path / "wandb").exists()


class Spy:
    """Stands in for a W&B run."""

    offline = False
    url = "https://example.org/run"

    def __init__(self, arguments: dict[str, Any], folder: Path) -> None:
        self.arguments, self.dir = arguments, str(folder / "files")
        self.logged: dict[str, Any] = {}
        self.artifacts: dict[str, Any] = {}

    def __enter__(self) -> "Spy":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log(self, figures: dict[str, Any]) -> None:
        self.logged |= figures

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts[artifact.name] = (artifact.type, sorted(artifact.manifest.entries))


def test_it_belongs_to_the_group_of_the_tables_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spies: list[Spy] = []

    def init(**arguments: Any) -> Spy:
        spies.append(Spy(arguments, tmp_path))
        return spies[-1]

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setenv("WANDB_MODE", "online")
    done = CliRunner().invoke(app, ["publish", TABLE, "--scale", "desk", "--json"])
    assert json.loads(done.output)["url"] == Spy.url
    (spy,) = spies
    assert (spy.arguments["group"], spy.arguments["job_type"], spy.arguments["tags"]) == (TABLE, "report", ["desk"])
    rows = {row[0] for row in spy.logged["table"].data}
    assert {"dense", "admm-70x"} <= rows
    assert spy.artifacts["progressive-admm-lenet5-desk"] == ("table", ["progressive-admm-lenet5-desk.csv"])
    assert spy.artifacts["report"] == ("report", ["index.html", "papers/one.html"])
    espalier.publish(TABLE, scale="desk")
    assert spies[1].arguments["id"] == spy.arguments["id"]


def test_switched_off_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"WANDB_MODE=disabled .*unset it"):
        espalier.publish(TABLE)


def test_an_unknown_table_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ValueError, match="did you mean 'lenet5'"):
        espalier.publish("progressive-admm/lenet")
