"""Where a claim is judged: at one scale, from the records of one source.

Scales at which every row that the claim reads has records come first, then those that answer most of its parts, then the highest; smoke,
which concludes nothing, comes last. At equal standing one's own records come before the shipped ones; the two are never mixed. A part made
for other scales than the one chosen is judged by itself, at the highest of its own that has its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from espalier.tables import expressions
from espalier.tables.schema import SCALES, Inequality
from espalier.tables.selection import Records

SourceName = Literal["own", "shipped"]


@dataclass(frozen=True)
class Place:
    """One scale, and the records of one source."""

    scale: str
    source: SourceName
    records: Records

    def answers(self, test: Inequality) -> bool:
        """Return whether every row that the test reads has records here."""
        return all(self.records.has(row, self.scale) for row in rows_of(test))


def rows_of(test: Inequality) -> list[str]:
    """Return the rows a test reads, ``TABLE/ROW``, each once."""
    return list(dict.fromkeys(row for _, row, _ in expressions.readings(test.expression)))


def place_of_claim(given: Sequence[Inequality], tests: Sequence[Inequality], sources: Mapping[SourceName, Records]) -> Place | None:
    """Return where a claim is judged; None where no test can be read anywhere.

    Args:
        given: Conditions of a fair comparison.
        tests: The inequalities the claim consists of.
        sources: Records by source, the preferred first.
    """
    best, standing = None, (False, False, 0)
    for place in _places(SCALES, sources):
        made_for = [test for test in tests if _is_made_for(test, place.scale)]
        num_answered = sum(place.answers(test) for test in made_for)
        complete = num_answered == len(made_for) and all(place.answers(condition) for condition in given)
        here = (place.scale != "smoke", complete, num_answered if not complete else 0)
        if num_answered and (best is None or here > standing):
            best, standing = place, here
    return best


def place_of_part(test: Inequality, place: Place, sources: Mapping[SourceName, Records]) -> Place:
    """Return where one test of a claim judged at ``place`` is answered: there, or where it is made for and has its rows."""
    if _is_made_for(test, place.scale):
        return place
    return next((other for other in _places(test.scales or SCALES, sources) if other.answers(test)), place)


def missing(tests: Sequence[Inequality], sources: Mapping[SourceName, Records]) -> list[str]:
    """Return the rows that have no records in any source at any scale."""
    rows = dict.fromkeys(row for test in tests for row in rows_of(test))
    return [row for row in rows if not any(records.has(row, scale) for records in sources.values() for scale in SCALES)]


def _is_made_for(test: Inequality, scale: str) -> bool:
    return test.scales is None or scale in test.scales


def _places(scales: Sequence[str], sources: Mapping[SourceName, Records]) -> list[Place]:
    """Return every pair of scale and source, the highest scale first."""
    return [Place(scale, source, records) for scale in reversed(SCALES) if scale in scales for source, records in sources.items()]
