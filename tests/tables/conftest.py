"""A report made from fabricated records."""

from pathlib import Path

import pytest
from fabricated import record

from espalier.record import Record
from espalier.tables.published import paper
from espalier.tables.report import write_report


@pytest.fixture
def fabricated_records() -> list[Record]:
    """Return desk records of two rows and two seeds."""
    series = {"train/loss": [(1.0, 0.5), (2.0, 0.25)], "val/top1_pct": [(1.0, 97.0), (2.0, 98.0)]}
    made = []
    for row, kept, top1 in (("dense", 430_500, 98.5), ("admm-70x", 6_050, 98.4)):
        for seed in (0, 1):
            metrics = {"top1_pct": top1 + seed / 10, "weights_nonzero": float(kept), "train/epochs": 26.0}
            facts = {"paper": "progressive-admm", "table": "lenet5", "identity": f"{row}{seed}", "series": series}
            made.append(record(row, seed, scale="desk", metrics=metrics, **facts))
    return made


@pytest.fixture
def report_page(tmp_path: Path, fabricated_records: list[Record]) -> Path:
    """Write the page of progressive-admm."""
    return write_report([paper("progressive-admm")], fabricated_records, [], tmp_path / "report")
