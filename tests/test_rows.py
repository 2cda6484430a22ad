"""Every row of every paper composes at paper scale, and its networks and sets fit, without data and without memory for weights."""

import pytest
import torch

from espalier.composing import composed, register_rows, resolved
from espalier.stepping import assigner, built
from espalier.tables.published import papers

ROWS = [
    (f"{paper.name}/{table}", row)
    for paper in papers().values()
    for table, rows in paper.rows.items()
    if (paper.folder / "tables" / f"{table}.yaml").is_file()  # not the comparisons of a store
    for row in rows
]


def test_there_are_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize(("name", "row"), ROWS, ids=["/".join(row) for row in ROWS])
def test_a_row_composes_and_builds_at_paper_scale(name: str, row: str) -> None:
    register_rows(name, "paper")
    config = resolved(composed(name, [f"row={row}", "scale=paper", "seed=0"]))
    with torch.device("meta"):
        model = built(config["model"])
    assert all(parameter.is_meta for parameter in model.parameters())
    for step in config["recipe"]["steps"].values():
        if isinstance(step.get("constraint"), dict):
            names = {target.parameter for target in assigner(step["constraint"])(model).targets}
            assert names <= dict(model.named_parameters()).keys()
            assert names
