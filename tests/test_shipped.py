"""What ships: reference records that read and are what their rows compose to, and the 246x checkpoint."""

import pytest
import torch
from omegaconf import DictConfig

import espalier
from espalier.composing import composed, identity_of, register_rows, resolved, step_keys
from espalier.record import digest
from espalier.tables.published import paper, papers


def test_shipped_records_read_and_none_is_a_variant() -> None:
    records = [record for each in papers().values() for record in each.shipped_records()]
    assert {(record.table, record.scale) for record in records} >= {("lenet5", "desk")}
    assert [record.name for record in records if record.variant] == []
    assert [record.name for record in records if record.dirty or record.commit is None] == []


def test_the_246x_checkpoint_loads_by_name() -> None:
    model = espalier.load("progressive-admm/lenet5-246x")
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    (record,) = (one for one in paper("progressive-admm").shipped_records() if (one.row, one.scale) == ("progressive-246x", "paper"))
    assert sum(int(weight.count_nonzero()) for weight in weights) == record.metrics["weights_nonzero"] <= 1750
    sets = espalier.frozen(model)
    assert sets is not None
    assert sets.outside(sets.read(model)) == 0
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


SHIPPED = sorted({f"{record.paper}/{record.table}" for each in papers().values() for record in each.shipped_records()})
LONG = "compare/cifar10"  # of a whole grid


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == LONG else name for name in SHIPPED])
def test_every_shipped_record_is_what_its_row_composes_to(name: str) -> None:
    """Settings added later must not rename runs that exist."""
    home, _, of = name.partition("/")
    records = [record for record in paper(home).shipped_records() if record.table == of]
    assert records
    rows: dict[tuple[str, str], DictConfig] = {}
    for record in records:
        assert record.data is not None
        if (record.row, record.scale) not in rows:
            register_rows(name, record.scale)
            rows[record.row, record.scale] = composed(name, [f"row={record.row}", f"scale={record.scale}", "seed=0"])
        config = rows[record.row, record.scale]
        config.seed = record.seed  # whatever reads it is resolved below
        identity = identity_of(resolved(config), record.data.fingerprint)
        assert identity == record.config, record.name
        assert digest(identity) == record.identity, record.name
        assert step_keys(identity) == record.steps, record.name
