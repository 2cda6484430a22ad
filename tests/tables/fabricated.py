"""A made-up paper and made-up records, for tests that judge them."""

from pathlib import Path
from textwrap import dedent

from espalier.record import DataSource, Measurement, Record
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
