"""What `make reproduce` rests on, on real processes in a repository of its own: DVC measures afresh, survives a kill, deletes nothing."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from espalier.code import FIGURES, STEPPING, modules, targets
from espalier.composing import composed, identity_of, register_rows, resolved
from espalier.record import Record, Store
from espalier.tables.published import table

ROOT = Path(__file__).parents[1]
IS_REPOSITORY = shutil.which("git") is not None and (ROOT / ".git").exists()


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", "-C", str(folder), *named, *words], capture_output=True, text=True, check=True).stdout


class Repository:
    """The tree as it is, committed to a new repository, with an environment whose `espalier` is the one under test.

    The stages call ``.venv/bin/espalier``: a link to this environment's, which finds the new tree by ``PYTHONPATH``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in filter(None, git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")):
            if (ROOT / name).is_file():  # not what the working tree has deleted
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "the tree")
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "espalier").symlink_to(Path(sys.executable).with_name("espalier"))
        self.born = datetime.now(UTC)

    @contextmanager
    def repro(self) -> Iterator[subprocess.Popen[str]]:
        """Start `dvc repro` in a process group of its own, of which nothing is left afterwards."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ESPALIER_")}
        environment |= {"PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
        environment["DVC_SITE_CACHE_DIR"] = str(self.folder.parent / "dvc")
        with subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def finish(self) -> str:
        """Run `dvc repro` to its end and return what it printed."""
        with self.repro() as process:
            printed, _ = process.communicate()
        assert process.returncode == 0, printed
        return printed

    def records(self) -> list[Record]:
        return list(Store(self.folder / "runs").records())

    def files(self) -> dict[Path, tuple[int, bytes]]:
        """Return time of writing and content of every record and every finished step."""
        paths = [*self.folder.glob("runs/*/*/*/*/*/record.json"), *self.folder.glob("runs/.steps/*/state.json")]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_the_pipeline_depends_on_every_module_behind_its_records() -> None:
    (stage,) = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    assert "rerun=stale" in stage["cmd"]  # else a changed module would find its old records done
    register_rows("progressive-admm/lenet5", "smoke")
    for row in table("progressive-admm/lenet5").runnable:
        config = identity_of(resolved(composed("progressive-admm/lenet5", [f"row={row}", "scale=smoke"])), None)
        used = {path.relative_to(ROOT) for path in modules([*STEPPING, *FIGURES, *targets(config)]).values()}
        assert [str(path) for path in used if not any(path.is_relative_to(dep) for dep in stage["deps"])] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of one core
@pytest.mark.skipif(not IS_REPOSITORY, reason="needs git and a checkout")
def test_the_pipeline_measures_afresh_survives_a_kill_and_repeats(tmp_path: Path) -> None:
    tree = Repository(tmp_path / "tree")
    lock = (tree.folder / "dvc.lock").read_bytes()

    with tree.repro() as process:
        while len(tree.records()) < 2 and process.poll() is None:
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()[0]
    before = tree.files()
    assert 2 <= len(tree.records()) < 7
    assert not list((tree.folder / "runs" / ".states").glob("*.json"))

    tree.finish()
    after = tree.files()
    assert {path: after.get(path) for path in before} == before
    records = tree.records()
    assert sorted(record.row for record in records) == sorted(
        ["dense", "magnitude-70x", "admm-70x", "progressive-70x", "progressive-246x", "binary", "pruned-quantized"]
    )
    assert all(datetime.fromisoformat(record.started) >= tree.born.replace(microsecond=0) for record in records)
    assert not any(record.variant or record.dirty for record in records)
    assert git(tree.folder, "status", "--porcelain") == ""
    assert (tree.folder / "dvc.lock").read_bytes() == lock

    assert "Running stage" not in tree.finish()
    assert tree.files() == after
    assert (tree.folder / "dvc.lock").read_bytes() == lock
