"""The list of papers there are to be, and what those say of themselves that are here."""

from pathlib import Path

import pytest

from espalier.tables.catalogue import catalogue
from espalier.tables.published import experiment_roots, papers

pytestmark = pytest.mark.tiny


def test_every_paper_that_is_here_stands_in_the_list_as_it_calls_itself() -> None:
    planned = {one.name: one for one in catalogue()}
    here = {name: paper.facts for name, paper in papers(experiment_roots()).items() if not paper.facts.house}
    assert len(planned) == 27
    assert set(here) <= set(planned)
    for name, facts in here.items():
        assert planned[name].model_dump() == {key: getattr(facts, key) for key in ("name", "title", "venue", "year", "arxiv")}


def test_an_unknown_year_stays_unknown_and_a_second_entry_is_refused(tmp_path: Path) -> None:
    entry = "  - {name: one, title: One, venue: '?', year: '?'}\n"
    (tmp_path / "papers.yaml").write_text(f"papers:\n{entry}")
    (found,) = catalogue([tmp_path])
    assert found.year == "?"
    assert catalogue([tmp_path / "nothing"]) == []
    (tmp_path / "papers.yaml").write_text(f"papers:\n{entry}{entry}")
    with pytest.raises(ValueError, match=r"papers\.yaml:3: papers\.1\.name: paper 'one' stands here a second time; remove one"):
        catalogue([tmp_path])
