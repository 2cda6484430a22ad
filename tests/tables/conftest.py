"""A report made from fabricated records alone: what ships with the paper is left out."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from fabricated import record

from espalier.record import Record
from espalier.tables.published import Paper, paper
from espalier.tables.report import write_report


@pytest.fixture(scope="session")
def fabricated_records() -> list[Record]:
    """Return desk records of six rows, nearly as accurate as one another, and two seeds."""
    series = {"train/loss": [(1.0, 0.5), (2.0, 0.0025)], "val/top1_pct": [(1.0, 97.0), (2.0, 98.0)], "admm/residual_max": [(2.0, 0.3)]}
    made = []
    for row, kept, top1 in (
        ("dense", 430_500, 98.5),
        ("admm-70x", 6_050, 98.4),
        ("progressive-70x", 6_050, 98.41),
        ("pruned-quantized", 6_050, 98.42),
        ("progressive-246x", 1_750, 98.39),
        ("binary", 430_500, 98.49),
    ):
        for seed in (0, 1):
            metrics = {"top1_pct": top1 + seed / 10, "weights_nonzero": float(kept), "train/epochs": 26.0}
            facts = {"paper": "progressive-admm", "table": "lenet5", "identity": f"{row}{seed}", "series": series}
            made.append(record(row, seed, scale="desk", metrics=metrics, **facts))
    return made


@pytest.fixture(scope="session")
def unshipped(tmp_path_factory: pytest.TempPathFactory) -> Paper:
    """Return progressive-admm without its reference records."""
    folder = tmp_path_factory.mktemp("experiments") / "progressive-admm"
    shutil.copytree(paper("progressive-admm").folder, folder, ignore=shutil.ignore_patterns("results", "checkpoints"))
    return Paper(folder)


@pytest.fixture(scope="session")
def report_page(tmp_path_factory: pytest.TempPathFactory, unshipped: Paper, fabricated_records: list[Record]) -> Path:
    """Write the page of progressive-admm."""
    return write_report([unshipped], fabricated_records, [], tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Debian's chromium once a module."""
    with chromium() as started:
        yield started
