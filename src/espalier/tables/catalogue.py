"""The papers that espalier sets out to rerun, implemented or not: ``experiments/papers.yaml``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from espalier.tables.published import experiment_roots
from espalier.tables.reading import read_yaml
from espalier.tables.schema import Problem, Strict


class CataloguedPaper(Strict):
    """What identifies a paper before anything of it is implemented.

    Args:
        name: Name of its folder in ``experiments/``, there or to come.
        year: Of the venue; ``?`` where nobody could find it.
    """

    name: str
    title: str
    venue: str
    year: int | Literal["?"]
    arxiv: str = ""


class Catalogue(Strict):
    """All of them, ``experiments/papers.yaml``."""

    papers: list[CataloguedPaper]


def catalogue(roots: Sequence[Path] | None = None) -> list[CataloguedPaper]:
    """Return the papers that the folders of papers set out to rerun, in the order of their files.

    Args:
        roots: Folders that hold papers; None takes ``experiment_roots()``.

    Raises:
        ValueError: A ``papers.yaml`` is malformed; the message gives file, line and key.
    """
    files = [root / "papers.yaml" for root in (experiment_roots() if roots is None else roots)]
    return [paper for path in files if path.is_file() for paper in read_yaml(path, Catalogue, _problems).papers]


def _problems(read: Catalogue) -> Iterator[Problem]:
    names = [paper.name for paper in read.papers]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("papers", index, "name"), f"paper '{name}' stands here a second time; remove one"
