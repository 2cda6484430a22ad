"""Libraries are compiled once, whole or not at all, and what goes wrong says where."""

import io
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import toy
from rich.console import Console

from espalier.compiler.runtime import building
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.toolchain import BuildError, compiler
from espalier.progress import late_bar

REAL = shutil.which("cc") or "gcc"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_second_build_compiles_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", script(tmp_path / "cc", f'echo called >> "{tmp_path}/calls"\nexec {REAL} "$@"'))
    first = build(toy.sources(), "generic", cache=cache)
    calls = (tmp_path / "calls").read_text()
    assert build(toy.sources(), "generic", cache=cache) == first
    assert (tmp_path / "calls").read_text() == calls
    assert [path.name for path in cache.iterdir()] == [first.parent.name]
    manifest = json.loads((first.parent / "build.json").read_text())
    assert manifest["isa"] == "generic"
    assert manifest["openmp"] is False


def test_sources_flags_and_isa_are_told_apart(cache: Path) -> None:
    other = {**toy.sources(), "kernel_1.c": toy.KERNEL_1.replace("+ 1.0f", "+ 2.0f")}
    made = {
        build(toy.sources(), "generic", cache=cache),
        build(other, "generic", cache=cache),
        build(toy.sources(), "avx2", cache=cache),
        build(toy.sources(), "generic", cache=cache, flags=["-g"]),
        build(toy.sources(), "generic", cache=cache, openmp=True),
        build(toy.sources(), "generic", cache=cache, sanitize=True),
    }
    assert len(made) == 6


def test_a_folder_of_sources_is_the_same(cache: Path, tmp_path: Path) -> None:
    for name, text in {**toy.sources(), "main.c": "int main(void) { return 0; }"}.items():
        (tmp_path / name).write_text(text)
    assert build(tmp_path, "generic", cache=cache) == build(toy.sources(), "generic", cache=cache)


def test_the_cache_is_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path / "own"))
    assert build(toy.sources(), "generic").parents[1] == tmp_path / "own"
    monkeypatch.delenv("ESPALIER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert building.cache_folder() == tmp_path / "xdg" / "espalier"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert building.cache_folder() == tmp_path / (".cache" if sys.platform != "darwin" else "Library/Caches") / "espalier"


@pytest.mark.parametrize("damage", ["library", "manifest", "gone"])
def test_a_damaged_entry_is_made_anew(cache: Path, damage: str) -> None:
    path = build(toy.sources(), "generic", cache=cache)
    whole = path.read_bytes()
    if damage == "library":
        path.write_bytes(whole[:1000])
    elif damage == "manifest":
        (path.parent / "build.json").write_text("{")
    else:
        path.unlink()
    assert build(toy.sources(), "generic", cache=cache) == path
    assert path.read_bytes() == whole
    assert len(list(cache.iterdir())) == 1


def test_an_error_of_the_compiler_shows_the_emitted_line(cache: Path) -> None:
    broken = {**toy.sources(), "kernel_1.c": toy.KERNEL_1.replace("i < end; ++i", "i < last; ++i")}
    with pytest.raises(BuildError) as caught:
        build(broken, "generic", cache=cache)
    message = str(caught.value)
    assert "stopped with status 1 at kernel_1.c: error: 'last' undeclared" in message
    assert "> kernel_1.c:8         for (; i < last; ++i)" in message
    assert "  kernel_1.c:7         es_split(n, tid" in message
    assert "called as: " in message
    assert list(cache.iterdir()) == []


def test_a_crash_of_the_compiler_shows_what_it_said(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = 'case "$*" in *"-c kernel_1.c"*) echo "kernel_1.c:9:1: internal compiler error: Segmentation fault" >&2; kill -SEGV $$;; esac'
    monkeypatch.setenv("CC", script(tmp_path / "cc", f'{crash}\nexec {REAL} "$@"'))
    with pytest.raises(BuildError, match=r"ended by SIGSEGV at kernel_1\.c: internal compiler error: Segmentation") as caught:
        build(toy.sources(), "generic", cache=cache)
    assert "\n> kernel_1.c:9 " in str(caught.value)
    assert list(cache.iterdir()) == []
    monkeypatch.delenv("CC")
    assert build(toy.sources(), "generic", cache=cache).exists()


def test_an_error_of_the_linker_names_the_symbol(cache: Path) -> None:
    without = {name: text for name, text in toy.sources().items() if name != "kernel_1.c"}
    with pytest.raises(BuildError, match="es_k1"):
        build(without, "generic", cache=cache, flags=["-Wl,-z,defs"])


def test_without_a_compiler_it_is_said_what_to_install(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no C compiler on the PATH") as caught:
        build(toy.sources(), "generic", cache=cache)
    for line in ("apt-get install gcc", "dnf install gcc", "brew install gcc", "conda install -c conda-forge c-compiler"):
        assert line in str(caught.value)
    monkeypatch.setenv("CC", "gcc-99 -m64")
    with pytest.raises(ValueError, match="CC=gcc-99 -m64 names no program"):
        build(toy.sources(), "generic", cache=cache)


def test_cc_may_have_arguments(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{REAL} -m64")
    assert compiler().command == (REAL, "-m64")
    assert build(toy.sources(), "generic", cache=cache).exists()


def test_without_our_pool_openmp_takes_over(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system whose threads cannot be pinned: the pool's file does not compile unless OpenMP is asked for."""
    refuses = 'case "$*" in *ES_OPENMP*) ;; *"-c espalier_pool.c"*) echo "espalier_pool.c:1:1: error: no pthread.h" >&2; exit 1;; esac'
    monkeypatch.setenv("CC", script(tmp_path / "cc", f'{refuses}\nexec {REAL} "$@"'))
    path = build(toy.sources(), "generic", cache=cache)
    assert json.loads((path.parent / "build.json").read_text())["openmp"] is True
    assert build(toy.sources(), "generic", cache=cache) == path


@pytest.mark.parametrize("when", ["writing", "compiling"])
def test_a_full_disk_leaves_nothing(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    if when == "compiling":  # the sources fit, what the compiler writes does not
        fill = f'case "$*" in *"-c kernel_1.c"*) cat /dev/zero > filler 2>/dev/null; esac\nexec {REAL} "$@"'
        monkeypatch.setenv("CC", script(tmp_path / "cc", fill))
        sources = toy.sources()
    else:
        sources = {**toy.sources(), "kernel_2.c": "/* " + "x" * 65536 + " */\n"}
    with pytest.raises(OSError, match="No space left on device; set ESPALIER_CACHE to a folder with room"):
        build(sources, "generic", cache=small_disk)
    assert list(small_disk.iterdir()) == []


def test_two_processes_at_once_both_get_a_good_one(cache: Path) -> None:
    code = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import toy
from pathlib import Path
from espalier.compiler.runtime.building import build
print(build(toy.sources(), "generic", cache=Path({str(cache)!r})))
"""
    team = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(3)]
    said = {process.communicate(timeout=120)[0].strip() for process in team}
    assert [process.returncode for process in team] == [0, 0, 0]
    assert len(said) == 1
    assert [path.name for path in cache.iterdir()] == [Path(said.pop()).parent.name]


def test_progress_is_shown_where_it_takes_long(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "late_bar", partial(late_bar, after_s=0.0))
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    build(toy.sources(), "generic", cache=cache, console=console)
    assert "5/5" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_no_network_is_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match="isa=sse9 is not known; code is emitted for avx512, avx2, generic"):
        build(toy.sources(), "sse9", cache=cache)
    with pytest.raises(ValueError, match=r"consists of network\.c, network\.h and kernels; found kernel_0\.c"):
        build({"kernel_0.c": ""}, "generic", cache=cache)
    with pytest.raises(ValueError, match=r"found \.\./x\.c"):
        build({**toy.sources(), "../x.c": ""}, "generic", cache=cache)
