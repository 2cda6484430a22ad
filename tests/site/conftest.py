"""The site of fabricated records: one paper without what ships with it, and one comparison."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from fabricated import break_even, compared, lenet5_records, unshipped_paper

from espalier.site.pages import write_report
from espalier.tables.catalogue import catalogue


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the site and return its folder."""
    root = tmp_path_factory.mktemp("experiments")
    comparison, records, measurements = compared(root)
    own, out = [*lenet5_records(), *records], tmp_path_factory.mktemp("report")
    return write_report([unshipped_paper(root), comparison], own, measurements, out, planned=catalogue(), break_even=break_even()).parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Debian's chromium once a module."""
    with chromium() as started:
        yield started
