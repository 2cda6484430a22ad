"""Where the pages of the site lie, seen from its root, and how the names of rows and columns are written."""

import hashlib
import re

from markupsafe import Markup, escape

from espalier.record import DIGEST_LENGTH, Record
from espalier.tables.published import COMPARISONS
from espalier.tables.schema import Table

HOME, RUNS, BREAK_EVEN, STYLE, SCRIPT = "index.html", "runs.html", "break-even.html", "assets/site.css", "assets/site.js"


def slug(name: str) -> str:
    """Return a file name that only this name has: what any file system or address takes is kept, the rest gives way to a digest."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")[:80]
    return plain if plain and plain == name else f"{plain or 'name'}-{hashlib.sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]}"


def breakable(name: str) -> Markup:
    """Return a name that a line may end in after an underscore or a slash, not only after a hyphen, and nowhere within a word."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/])", name))


def paper_page(paper: str) -> str:
    """Return the page of a paper."""
    return f"papers/{slug(paper)}.html"


def table_page(table: Table) -> str:
    """Return the page that shows a table: its own for a comparison, else its paper's."""
    if not table.contestants:
        return f"{paper_page(table.paper)}#{slug(table.table)}"
    return f"compare/{slug(table.table if table.paper == COMPARISONS else f'{table.paper}-{table.table}')}.html"


def row_page(paper: str, table: str, row: str, scale: str = "") -> str:
    """Return the page of the runs of a row, at one scale where it is given."""
    return f"runs/{slug(paper)}/{slug(table)}/{slug(row)}.html" + (f"#{slug(scale)}" if scale else "")


def run_id(record: Record, source: str) -> str:
    """Return the place of a run on the page of its row."""
    return slug(f"{source}-{record.scale}-seed{record.seed}-{record.identity[:DIGEST_LENGTH]}")


def run_page(record: Record, source: str) -> str:
    """Return the page of a row at the place of one of its runs."""
    return f"{row_page(record.paper, record.table, record.row)}#{run_id(record, source)}"
