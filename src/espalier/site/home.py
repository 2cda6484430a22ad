"""The first page: every paper with its state in a word, what became of its claims, and the comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

from espalier.site.evidence import SOURCES, Evidence
from espalier.site.links import paper_page, table_page
from espalier.tables.catalogue import CataloguedPaper
from espalier.tables.claims import Word
from espalier.tables.published import Paper
from espalier.tables.schema import SCALES, Table

VERDICTS: tuple[Word, ...] = ("holds", "fails", "inconclusive", "not run")
STATES = ("fully run", "partly run", "not run yet", "not implemented")  # from the farthest


def home_rows(pages: Mapping[str, Mapping[str, Any]], planned: Sequence[CataloguedPaper]) -> list[dict[str, Any]]:
    """Return one line a paper, those with the most behind them first.

    Args:
        pages: Name of each implemented paper -> what ``paper_context`` made of it.
        planned: The papers there are to be.
    """
    rows = [_implemented(page) for page in pages.values()]
    rows += [
        one.model_dump(include={"name", "title", "venue", "year"}) | {"state": STATES[3], "href": "", "scale": "", "tally": {}}
        for one in planned
        if one.name not in pages
    ]
    return sorted(rows, key=lambda row: STATES.index(row["state"]))


def _implemented(page: Mapping[str, Any]) -> dict[str, Any]:
    facts, words = page["facts"], [verdict.verdict for verdict in page["verdicts"]]
    state = STATES[2] if not page["scales"] else STATES[1] if "not run" in words else STATES[0]
    return {
        "name": facts.name,
        "title": facts.title,
        "venue": facts.venue,
        "year": facts.year,
        "state": state,
        "href": paper_page(facts.name),
        "scale": next((scale for scale in reversed(SCALES) if scale in page["scales"]), ""),
        "tally": {word: words.count(word) for word in VERDICTS},
    }


def comparison_rows(tables: Sequence[Table], evidence: Evidence) -> list[dict[str, Any]]:
    """Return one line a comparison."""
    rows = []
    for table in tables:
        scales = evidence.scales(table)
        run = {record.row for scale in scales for source in SOURCES for record in evidence.of(table, source, scale)}
        facts = {"name": table.table, "title": table.title, "href": table_page(table)}
        rows.append(facts | {"scales": scales, "num_rows": len(table.rows), "num_run": len(run)})
    return rows


def comparisons(papers: Sequence[Paper]) -> list[Table]:
    """Return the tables that set contestants against one another."""
    return [table for paper in papers for name in paper.table_names if (table := paper.table(name)).contestants]
