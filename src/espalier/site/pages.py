"""Writing the site: ``index.html``, ``papers/``, ``compare/``, ``break-even.html``, ``runs.html``, ``runs/``, a style sheet, a script."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from espalier.files import write_over
from espalier.record import Measurement, Record
from espalier.site import links
from espalier.site.break_even import break_even_context
from espalier.site.comparing import comparison_context
from espalier.site.evidence import Evidence, Run
from espalier.site.home import STATES, VERDICTS, comparison_rows, comparisons, home_rows
from espalier.site.paper import paper_context
from espalier.site.runs import row_context, rows_of, runs_context
from espalier.tables.catalogue import CataloguedPaper
from espalier.tables.published import Paper
from espalier.tables.schema import Table

MARKS = {"holds": "✓", "fails": "✗", "inconclusive": "≈", "not run": "○"}
NUM_LISTS = 2  # pages whatever there is: the first one and that of all runs
WRITTEN = ".pages"  # the file that names what was written, so that pages of what is gone can be removed

Page = tuple[str, str, dict[str, Any]]  # path below the site's root, template, what it shows


def write_report(
    papers: Iterable[Paper],
    own: Sequence[Record],
    measurements: Sequence[Measurement],
    out: Path,
    *,
    planned: Sequence[CataloguedPaper] = (),
    stale: Collection[str] = (),
    break_even: Mapping[str, Any] | None = None,
    told: Callable[[str, int], None] | None = None,
) -> Path:
    """Write the site below ``out`` and return its first page. Pages that an earlier call wrote and this one does not are removed.

    Args:
        papers: The papers to show.
        own: Records of the store.
        measurements: Measurements of the store.
        out: Folder of the report.
        planned: The papers there are to be, implemented or not.
        stale: Names of own runs whose code has changed since; their rows are marked.
        break_even: Entries of break-even rates; empty and None give no page of them.
        told: Called with the path of each page once it is written, and the number of all pages.
    """
    environment = Environment(
        loader=PackageLoader("espalier.site"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["breakable"] = links.breakable
    environment.globals.update(
        marks=MARKS, links=links, states=STATES, words=VERDICTS, version=version("espalier"), break_even=bool(break_even)
    )
    written = []
    every = list(papers)
    evidence = Evidence(every, own, measurements, stale)
    compared, rows = comparisons(every), rows_of(list(evidence.runs()))
    total = NUM_LISTS + bool(break_even) + sum(not paper.facts.house for paper in every) + len(compared) + len(rows)
    rest = [(links.BREAK_EVEN, "break_even.html.j2", break_even_context(break_even))] if break_even else []
    for path, template, shown in [*_pages(every, evidence, compared, rows, planned), *rest]:
        root = "../" * path.count("/")
        write_over(out / path, environment.get_template(template).render(path=path, root=root, **shown))
        written.append(path)
        if told is not None:
            told(path, total)
    for path in (links.STYLE, links.SCRIPT):
        write_over(out / path, files("espalier.site").joinpath(path).read_text(encoding="utf-8"))
    _remove_others(out, written)
    return out / links.HOME


def _pages(
    papers: Sequence[Paper],
    evidence: Evidence,
    compared: Sequence[Table],
    rows: Mapping[tuple[str, str, str], list[Run]],
    planned: Sequence[CataloguedPaper],
) -> Iterator[Page]:
    shown = {paper.name: paper_context(paper, evidence) for paper in papers if not paper.facts.house}
    home = {"rows": home_rows(shown, planned), "comparisons": comparison_rows(compared, evidence)}
    yield links.HOME, "home.html.j2", home
    for name, context in shown.items():
        yield links.paper_page(name), "paper.html.j2", {"paper": context}
    for table in compared:
        yield links.table_page(table), "comparison.html.j2", comparison_context(table, evidence)
    yield links.RUNS, "runs.html.j2", {"runs": runs_context(list(evidence.runs()))}
    parents = {(paper.name, name): links.paper_page(paper.name) for paper in papers if paper.name in shown for name in paper.table_names}
    parents |= {(table.paper, table.table): links.table_page(table) for table in compared}
    for (paper_name, table_name, row), of in rows.items():
        parent = parents.get((paper_name, table_name), links.RUNS)  # runs outlive their tables
        yield links.row_page(paper_name, table_name, row), "row.html.j2", {**row_context(of), "parent": parent}


def _remove_others(out: Path, written: Collection[str]) -> None:
    """Remove the pages that an earlier call wrote and nobody links to any more; nothing else in the folder is touched."""
    note = out / WRITTEN
    before = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    for path in set(before) - set(written):
        gone = out / path
        if gone.suffix == ".html" and gone.resolve().is_relative_to(out.resolve()):
            gone.unlink(missing_ok=True)
    write_over(note, "\n".join(written) + "\n")
