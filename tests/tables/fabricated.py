"""A made-up paper and made-up records, for tests that judge them."""

import json
import math
import shutil
from pathlib import Path
from textwrap import dedent
from typing import Any

from espalier.record import DataSource, Measurement, Record
from espalier.tables import published
from espalier.tables.published import Paper

PAPER = """
    name: made-up
    title: A paper
    authors: [A. Author]
    venue: nowhere
    year: 2020
    summary: nothing
    main_table: tab
"""
TABLE = """
    paper: made-up
    table: tab
    title: "50 % & more_or_less #1"
    source: {where: "Table 1", provenance: full text}
    data: {smoke: digits, desk: mnist_10k, paper: mnist}
    seeds: {smoke: [0], desk: [0, 1, 2], paper: [0]}
    dense_gate: {row: dense, metric: top1_pct, at_least: {smoke: null, desk: 97.5, paper: 99.0}}
    columns:
      top1_pct: {}
      loss_pct: {unit: points, better: lower, kind: accuracy, computed: dense.top1_pct - top1_pct}
      weights_nonzero: {}
      rate: {computed: dense.weights_nonzero / weights_nonzero}
      latency_ms_p50: {}
    rows:
      dense: {overrides: [recipe=train], cells: {top1_pct: 99.2, weights_nonzero: 430500}}
      admm:
        overrides: [recipe=one_shot, rate=71.2]
        cells: {top1_pct: {value: 99.1, provenance: derived, note: "x_y"}, weights_nonzero: 6050, rate: 72}
      deep_admm: {overrides: [recipe=one_shot, rate=246], cells: {top1_pct: "?"}}
      quoted: {cells: {top1_pct: 98}}
"""
CLAIMS = """
    paper: made-up
    claims:
      - id: 1
        statement: deep loses at most half a point
        tests:
          - {name: loss, expression: 'm("tab/dense", "top1_pct") - m("tab/deep_admm", "top1_pct")', at_most: 0.5}
"""


def write_paper(root: Path, *, table: str = TABLE, claims: str | None = CLAIMS, paper: str = PAPER) -> Path:
    """Write the made-up paper below ``root`` and return its folder."""
    folder = root / "made-up"
    (folder / "tables").mkdir(parents=True)
    (folder / "paper.yaml").write_text(dedent(paper))
    (folder / "tables" / "tab.yaml").write_text(dedent(table))
    if claims is not None:
        (folder / "claims.yaml").write_text(dedent(claims))
    return folder


def made_up(root: Path, **files: str) -> Paper:
    """Write the made-up paper below ``root`` and read it."""
    return Paper(write_paper(root, **files))


def record(row: str, seed: int = 0, *, scale: str = "desk", **changes: object) -> Record:
    """Return a record of the made-up paper's table; keyword arguments replace its fields."""
    fields: dict[str, object] = {
        "paper": "made-up",
        "table": "tab",
        "row": row,
        "scale": scale,
        "seed": seed,
        "identity": f"{row}{scale}{seed}",
        "command": "",
        "commit": None,
        "dirty": False,
        "code_digest": "",
        "config": {},
        "data": DataSource(name="mnist", fingerprint=scale),
        "metrics": {"top1_pct": 98.0},
        "steps": {},
        "checkpoint": f"{row}-{scale}-{seed}",
        "versions": {},
        "device": "cpu A",
        "started": "2026-01-01T00:00:00Z",
        "duration_s": 1.0,
    }
    return Record.model_validate(fields | changes)


def accuracies(row: str, *values: float, scale: str = "desk", **changes: object) -> list[Record]:
    """Return one record per accuracy, seeds counting from 0."""
    return [record(row, seed, scale=scale, metrics={"top1_pct": value}, **changes) for seed, value in enumerate(values)]


def measurement(checkpoint: str, latency_ms: float, **changes: object) -> Measurement:
    """Return a measurement of one checkpoint; keyword arguments replace its fields."""
    fields: dict[str, object] = {
        "checkpoint": checkpoint,
        "weights": "trained",
        "frame": "cpu",
        "kind": "measured",
        "engine": "pytorch-eager",
        "device": "cpu A",
        "precision": "fp32",
        "batch_size": 1,
        "num_threads": 2,
        "num_warmup": 1,
        "num_runs": 1,
        "metrics": {"latency_ms_p50": latency_ms},
        "versions": {},
        "started": "2026-01-01T00:00:00Z",
    }
    return Measurement.model_validate(fields | changes)


def lenet5_records() -> list[Record]:
    """Return desk records of six rows of progressive-admm/lenet5, nearly as accurate as one another, and two seeds."""
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
            facts["command"] = f"espalier run progressive-admm/lenet5 row={row} scale=desk seed={seed}"
            made.append(record(row, seed, scale="desk", metrics=metrics, **facts))
    return made


def unshipped_paper(root: Path) -> Paper:
    """Copy progressive-admm without its reference records below ``root`` and read it."""
    folder = root / "progressive-admm"
    shutil.copytree(published.paper("progressive-admm").folder, folder, ignore=shutil.ignore_patterns("results", "checkpoints"))
    return Paper(folder)


HOSTILE = """<img src=x onerror="document.title='broken'">&'"""  # as the name or the note of anything
COMPARED = """
    paper: compare
    table: methods
    title: "Three methods <b>& two structures</b>"
    source: {where: "espalier compare", provenance: derived}
    note: "40 epochs each; paper defaults </script><script>document.title='broken'</script>"
    data: {desk: mnist_10k}
    seeds: {desk: [0, 1, 2]}
    contestants: [method, constraint]
    columns: {top1_pct: {}, rate: {}, macs_effective: {}, stored_bytes: {}, latency_ms_p50: {}}
"""
STRENGTH = {"ADMM": 0.3, "magnitude": 0.6, "MEST": 0.4}  # points of accuracy lost per doubling of the rate


def compared(root: Path) -> tuple[Paper, list[Record], list[Measurement]]:
    """Write a comparison of made-up methods below ``root``; return it with the records and measurements of its rows, one row hostile."""
    folder = root / "compare"
    (folder / "tables").mkdir(parents=True)
    (folder / "paper.yaml").write_text(
        dedent(PAPER).replace("made-up", "compare").replace("main_table: tab", "main_table: methods\nhouse: true")
    )
    rows = {
        f"{method}-{structure}-{rate}x": {"method": method, "constraint": structure, "rate": f"{rate}x"}
        for method in STRENGTH
        for structure in ("filter", "block")
        for rate in (2, 4, 8)
    }
    every = {"dense": {}, **rows, HOSTILE: {"method": HOSTILE, "constraint": "filter", "rate": "4x"}}
    lines = [dedent(COMPARED), "rows:"] + [f"  {json.dumps(row)}: {{overrides: [], labels: {json.dumps(of)}}}" for row, of in every.items()]
    (folder / "tables" / "methods.yaml").write_text("\n".join(lines))
    records, measurements = [], []
    for row, labels in every.items():
        rate = float(labels.get("rate", "1x")[:-1])
        loss = STRENGTH.get(labels.get("method", ""), 1.0) * (math.log2(rate) + (labels.get("constraint") == "filter") / 2)
        for seed in range(3):
            metrics = {"top1_pct": 92 - loss + seed / 10, "rate": rate, "macs_effective": 4e7 / rate, "stored_bytes": 3e6 / rate + 5e4}
            facts = {"paper": "compare", "table": "methods", "checkpoint": f"compared {row} {seed}"}
            facts["command"] = f"espalier run compare/methods 'row={row}' seed={seed}"
            one = record(row, seed, metrics=metrics, config={"method": row, "seed": seed, "model": {"depth": 8}}, **facts)
            records.append(one)
            measurements.append(measurement(one.checkpoint or "", 4 / rate**0.5 + seed / 50, device="cpu A"))
    return Paper(folder), records, measurements


def break_even() -> dict[str, Any]:
    """Return entries of break-even rates of two layers at one and two threads, one of which no engine took."""

    def entry(layer: str, threads: int, peer: str | None, rates: dict[str, float | None]) -> dict[str, Any]:
        points = {name: [[1.0, 0.9], [4.0, 0.25], [8.0 if name == "unstructured" else 16.0, 0.07]] for name in rates}
        return {
            "device": "cpu A (2 cores; avx2)",
            "started": "2026-01-02T03:04:05+00:00",
            "layer": layer,
            "num_threads": threads,
            "chain": 4,
            "versions": {"torch": "2.13.0", "mnn": "3.2.0", "openvino": None},
            "moved": threads == 2,
            "others_cpus": None if peer is None else 0.04,
            "best_dense": None if peer is None else {"name": peer, "ms": 0.3212},
            "structures": {name: {"points": points[name]} | ({} if peer is None else {"break_even": rate}) for name, rate in rates.items()},
        }

    rates = {"block_punched 32x4": 1.0, "block_column 16": 1.37, "filter": 3.21, "unstructured": None}
    return {
        "64-64_3x3_56x56_1t": entry("64-64_3x3_56x56", 1, "mnn", rates),
        "64-64_3x3_56x56_2t": entry("64-64_3x3_56x56", 2, "openvino", {**rates, "filter": 12.0}),
        "64-128_3x3x3_16x56x56_2t": entry("64-128_3x3x3_16x56x56", 2, None, rates),
    }
