"""The generated pages are up to date, and say something of every key, figure and field."""

from pathlib import Path

import pytest

from espalier.docstrings import described
from espalier.knobs import knobs
from espalier.metrics import METRICS
from espalier.record import DataSource, Measurement, Record
from espalier.reference import knobs_page, names_page, write_reference

DOCS = Path(__file__).parents[1] / "docs"


def test_the_pages_are_up_to_date(tmp_path: Path) -> None:
    for path in write_reference(tmp_path):
        assert path.read_text(encoding="utf-8") == (DOCS / path.name).read_text(encoding="utf-8"), f"docs/{path.name}: run `make docs`"


def test_every_key_and_every_option_has_a_line() -> None:
    page = knobs_page()
    assert all(f"`{knob.key}`" in page for knob in knobs())
    assert all(f"| `{option}` |" in page for knob in knobs() for option in knob.options)


@pytest.mark.tiny
def test_every_figure_has_a_line() -> None:
    page = names_page()
    assert all(f"| `{metric.name}` | {metric.unit} |" in page for metric in METRICS)


@pytest.mark.tiny
@pytest.mark.parametrize("schema", [Record, DataSource, Measurement], ids=lambda schema: schema.__name__)
def test_every_field_of_a_record_is_described(schema: type[Record]) -> None:
    says = described(f"espalier.record.{schema.__name__}")
    assert says is not None
    assert list(says.arguments) == list(schema.model_fields)


@pytest.mark.tiny
def test_every_line_of_a_grid_has_its_cells() -> None:
    for line in (line for line in names_page().splitlines() if line.startswith("|")):
        assert line.replace("\\|", "").count("|") in (4, 6), line
