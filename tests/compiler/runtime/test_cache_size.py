"""The cache of compiled libraries stays under its limit, and no process loses what it is about to load."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

from espalier.compiler.runtime import keeping
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.keeping import make_room
from espalier.compiler.runtime.loading import Library

HOUR_S = 3600


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entry(cache: Path, number: int, *, hours: float, num_bytes: int = 100_000) -> Path:
    """Return an entry that was used some hours ago."""
    path = cache / f"{number:024x}"
    path.mkdir(parents=True)
    (path / "network.so").write_bytes(bytes(range(256)) * (num_bytes // 256))
    (path / "build.json").write_text("{}")
    os.utime(path / "build.json", (time.time() - hours * HOUR_S,) * 2)
    return path


def test_the_least_recently_used_go_until_the_rest_fits(cache: Path) -> None:
    oldest, newest, middle = (entry(cache, number, hours=hours) for number, hours in enumerate((9, 2, 5)))
    (cache / "notes").write_text("no entry")
    assert make_room(cache, 1_000_000) == []
    assert make_room(cache, 250_000) == [oldest]
    assert make_room(cache, 1) == [middle, newest]
    assert [path.name for path in cache.iterdir()] == ["notes"]


def test_what_was_used_a_moment_ago_stays_however_full_it_is(cache: Path) -> None:
    old, fresh = entry(cache, 1, hours=1), entry(cache, 2, hours=0.01)
    assert make_room(cache, 1) == [old]
    assert fresh.exists()


def test_a_library_that_is_asked_for_again_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(toy.sources(), "generic", cache=cache).parent
    os.utime(path / "build.json", (time.time() - HOUR_S,) * 2)
    again = build(toy.sources(), "generic", cache=cache)
    assert again.parent == path
    assert Library(again).info.isa == "generic"
    assert time.time() - (path / "build.json").stat().st_mtime < HOUR_S / 2


def test_a_new_library_pushes_out_old_ones(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = entry(cache, 1, hours=1)
    monkeypatch.setenv("ESPALIER_CACHE_GB", "1e-6")
    path = build(toy.sources(), "generic", cache=cache)
    assert Library(path).info.isa == "generic"
    assert not old.exists()


def test_an_entry_that_is_asked_for_while_it_goes_comes_back(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build(toy.sources(), "generic", cache=cache)
    os.utime(library.parent / "build.json", (time.time() - HOUR_S,) * 2)
    rename = Path.rename

    def asked_for_first(path: Path, target: Path) -> Path:
        keeping.mark_used(path)  # as another process does, which looked at the entry before it went and loads it next
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", asked_for_first)
    assert make_room(cache, 1) == []
    assert Library(library).info.isa == "generic"
    assert list(cache.iterdir()) == [library.parent]


def test_an_entry_does_not_come_back_over_one_that_was_made_meanwhile(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, rename = entry(cache, 1, hours=1), Path.rename

    def made_behind(path: Path, target: Path) -> Path:
        keeping.mark_used(path)
        moved = rename(path, target)
        if path == old:
            (entry(cache, 1, hours=0) / "new").write_text("")
        return moved

    monkeypatch.setattr(Path, "rename", made_behind)
    make_room(cache, 1)
    assert (old / "new").exists()
    assert list(cache.iterdir()) == [old]


@pytest.mark.parametrize("size", ["much", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_no_size_is_refused_before_anything_is_compiled(cache: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("ESPALIER_CACHE_GB", size)
    with pytest.raises(ValueError, match=f"ESPALIER_CACHE_GB={size} is no size; give 10\\^9 bytes as a number above 0"):
        build(toy.sources(), "generic", cache=cache)
    assert not cache.exists()


def test_a_killed_build_harms_nobody_and_is_swept_up_later(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, started = tmp_path / "cc", tmp_path / "started"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *"-c kernel_1.c"*) touch {started}; exec sleep 60;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\nimport toy\nfrom pathlib import Path\n"
    code += f"from espalier.compiler.runtime.building import build\nbuild(toy.sources(), 'generic', cache=Path({str(cache)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "CC": str(compiler)}, start_new_session=True)
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (left,) = cache.iterdir()
    made = build(toy.sources(), "generic", cache=cache)
    assert Library(made).info.isa == "generic"
    assert left.exists()  # another process might still be at work in it
    os.utime(left, (time.time() - 2 * keeping.ABANDONED_S,) * 2)
    assert make_room(cache, 10**9) == [left]
    assert [path.name for path in cache.iterdir()] == [made.parent.name]


def test_processes_that_clear_and_build_at_once_all_end_with_a_library(cache: Path) -> None:
    """Each of them may remove what another one made; none may fail for it."""
    code = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import toy
from pathlib import Path
from espalier.compiler.runtime import keeping
from espalier.compiler.runtime.building import build
keeping.FRESH_S = -1.0
cache = Path({str(cache)!r})
for number in range(6):
    build({{**toy.sources(), "kernel_1.c": toy.KERNEL_1 + f"/* {{number % 2}} */"}}, "generic", cache=cache)
    keeping.make_room(cache, 1)
"""
    team = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=300)[1] for process in team]
    assert [process.returncode for process in team] == [0, 0, 0], said
    assert not list(cache.iterdir())
