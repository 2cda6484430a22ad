"""Libraries of these tests are compiled once, into a folder of their own; every warning of the C compiler is an error."""

from collections.abc import Callable
from pathlib import Path

import pytest
import toy

from espalier.compiler.runtime.building import build


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", toy.RUNNABLE, scope="module")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
    monkeypatch.delenv("CC", raising=False)


@pytest.fixture
def toy_library() -> Callable[..., Path]:
    """Return a function that builds the network written by hand."""

    def built(isa: str = "generic", **options: bool) -> Path:
        return build(toy.sources(isa), isa, flags=toy.STRICT, **options)

    return built
