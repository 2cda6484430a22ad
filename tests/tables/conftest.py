"""Fabricated records of a paper that ships."""

import pytest
from fabricated import lenet5_records

from espalier.record import Record


@pytest.fixture(scope="session")
def fabricated_records() -> list[Record]:
    """Return desk records of six rows, nearly as accurate as one another, and two seeds."""
    return lenet5_records()
