"""What ships: reference records that read, and the 246x checkpoint."""

import torch

import espalier
from espalier.tables.published import paper


def test_shipped_records_read_and_none_is_a_variant() -> None:
    records = paper("progressive-admm").shipped_records()
    assert {(record.table, record.scale) for record in records} >= {("lenet5", "desk")}
    assert not any(record.variant for record in records)
    assert not any(record.dirty for record in records)


def test_the_246x_checkpoint_loads_by_name() -> None:
    model = espalier.load("progressive-admm/lenet5-246x")
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    assert sum(int(weight.count_nonzero()) for weight in weights) == 1750
    sets = espalier.frozen(model)
    assert sets is not None
    assert sets.outside(sets.read(model)) == 0
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
