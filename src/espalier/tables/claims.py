"""Do a paper's claims hold in our records?

Where a claim is judged, ``espalier.tables.placing`` says; a part made for another scale is judged there, with the seeds of that scale.
Seeds are paired. An inequality holds if the 90 % interval of its mean clears the bound less the tolerance, fails if it misses wholly, else
nothing is concluded; nor is it under three seeds, behind a failed dense gate, or at smoke scale.
"""

import statistics
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from espalier.record import Record
from espalier.tables import expressions
from espalier.tables.intervals import mean_interval
from espalier.tables.placing import Place, SourceName, missing, place_of_claim, place_of_part, rows_of
from espalier.tables.published import Paper
from espalier.tables.schema import SCALES, Claim, Inequality
from espalier.tables.selection import Records

Word = Literal["holds", "fails", "inconclusive", "not run"]
MIN_SEEDS = 3
MAX_REASONS = 3  # named in a verdict; its figures have them all
SLACK = 1e-9  # of the bound's size: 99.2 - 99.1 is not 0.1 in floating point


@dataclass(frozen=True)
class Finding:
    """What the records say about one inequality.

    Args:
        name: What it asks.
        expression: As in ``claims.yaml``.
        bound: ``>= X`` or ``<= X``, tolerance included in words.
        verdict: Of this inequality alone.
        reason: Why nothing is concluded; empty otherwise.
        by_seed: Seed -> value.
        scale: Scale it was judged at.
        source: Whose records.
        mean: Over the seeds; None without values.
        low: Lower end of the 90 % interval; None under two seeds.
        high: Upper end.
        runs: Names of the runs whose records it read.
    """

    name: str
    expression: str
    bound: str
    verdict: Word
    reason: str
    by_seed: Mapping[int, float]
    scale: str
    source: SourceName
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What the records say about one claim.

    Args:
        id: Number of the claim.
        statement: The claim.
        verdict: All inequalities hold; or one fails; or neither is sure; or nothing was run.
        reason: Why it is not ``holds``; empty if it is.
        figures: One finding per inequality, fairness conditions first.
        scale: Scale it was judged at (a figure made for another scale names its own); None where nothing was run.
        seeds: Seeds behind it at that scale.
        source: Whose records.
        untested: The part of the claim that our runs leave out.
        stale: Runs behind it that were made by code which has changed since; one's own only.
    """

    id: int
    statement: str
    verdict: Word
    reason: str
    figures: tuple[Finding, ...]
    scale: str | None
    seeds: tuple[int, ...]
    source: SourceName | None
    untested: str
    stale: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with seeds as text in the figures."""
        plain = asdict(self) | {"seeds": list(self.seeds), "stale": list(self.stale)}
        plain["figures"] = [
            asdict(finding) | {"by_seed": {str(seed): value for seed, value in finding.by_seed.items()}} for finding in self.figures
        ]
        return plain


def judge(paper: Paper, own: Iterable[Record], shipped: Iterable[Record] | None = None, *, stale: Container[str] = ()) -> list[Verdict]:
    """Return one verdict per claim of the paper, in its order.

    Args:
        paper: The paper.
        own: One's own records, of any paper.
        shipped: Reference records; None takes those that came with the paper.
        stale: Names of one's own runs whose code has changed since; a verdict that rests on one says so.
    """
    sources: dict[SourceName, Records] = {
        "own": Records(own, paper.name),
        "shipped": Records(paper.shipped_records() if shipped is None else shipped, paper.name),
    }
    return [_judge(paper, claim, sources, stale) for claim in paper.claims.claims]


def _judge(paper: Paper, claim: Claim, sources: Mapping[SourceName, Records], stale: Container[str]) -> Verdict:
    def verdict(word: Word, reason: str, figures: Sequence[Finding] = (), place: Place | None = None) -> Verdict:
        scale, source = (place.scale, place.source) if place is not None else (None, None)
        seeds = tuple(sorted({seed for figure in figures if figure.scale == scale for seed in figure.by_seed}))
        old = tuple(dict.fromkeys(name for figure in figures if figure.source == "own" for name in figure.runs if name in stale))
        return Verdict(claim.id, claim.statement, word, reason, tuple(figures), scale, seeds, source, claim.untested, old)

    given = [one for condition in claim.given for one in condition.expanded()]
    tests = [one for test in claim.tests for one in test.expanded()]
    if not tests:
        return verdict("not run", claim.untested)
    if (place := place_of_claim(given, tests, sources)) is None:
        absent = missing([*given, *tests], sources)
        return verdict("not run", "no records of " + ", ".join(absent) if absent else "no scale has records of all rows it reads")
    conditions = [_condition(condition, place) for condition in given]
    findings = []
    for test in tests:
        there = place_of_part(test, place, sources)
        if there != place:  # what makes it fair must hold there too
            conditions += [_condition(condition, there) for condition in given if set(rows_of(condition)) & set(rows_of(test))]
        findings.append(_find(test, there, _gate(paper, [*given, *tests], there) if claim.gated else ""))
    figures = [*conditions, *findings]
    if unfair := [condition for condition in conditions if condition.verdict != "holds"]:
        known = "the comparison is not fair" if unfair[0].by_seed else "whether the comparison is fair is not known"
        return verdict("inconclusive", f"{known}: {unfair[0].name}{_because(unfair[0])}", figures, place)
    for word in ("fails", "inconclusive", "not run"):
        if first := [finding for finding in findings if finding.verdict == word]:
            overall: Word = "fails" if word == "fails" else "inconclusive"
            return verdict(overall, _first_few([_reason(finding, place) for finding in first]), figures, place)
    return verdict("holds", "", figures, place)


def _gate(paper: Paper, tests: Sequence[Inequality], place: Place) -> str:
    """Return why the rows' dense baselines do not let them be judged; empty if they do."""
    scale = place.scale
    for name in dict.fromkeys(row.partition("/")[0] for test in tests for row in rows_of(test)):
        table = paper.table(name)
        gate, baseline = table.dense_gate, table.dense_row
        reference = gate.at_least.get(scale) if gate is not None and scale in SCALES else None
        if gate is None or baseline is None or reference is None:
            continue
        reached = [record.metrics.get(gate.metric) for record in place.records.of("/".join(baseline), scale).by_seed.values()]
        values = [value for value in reached if value is not None]
        if not values:
            return f"baseline not run: {'/'.join(baseline)} has no {gate.metric} at {scale}"
        if (mean := statistics.fmean(values)) < reference:
            return f"baseline not reached: {'/'.join(baseline)} has {mean:.2f}, the reference at {scale} is {reference:g} ({gate.metric})"
    return ""


@dataclass(frozen=True)
class _Read:
    """What an expression reads at a place.

    Args:
        by_seed: Its value for each seed that all its rows share; empty where something stands in the way.
        obstacle: What stands in the way.
        word: ``not run`` where that is a record nobody has made.
        runs: Names of the runs it read.
    """

    by_seed: Mapping[int, float] = field(default_factory=dict)
    obstacle: str = ""
    word: Word = "inconclusive"
    runs: tuple[str, ...] = ()


def _read(test: Inequality, place: Place) -> _Read:
    rows, records, scale = rows_of(test), place.records, place.scale
    if test.scales is not None and scale not in test.scales:
        return _Read(obstacle=f"made for scale {' or '.join(test.scales)}", word="not run")
    if absent := [row for row in rows if not records.has(row, scale)]:
        return _Read(obstacle="no records of " + ", ".join(absent), word="not run")
    chosen = {row: records.of(row, scale) for row in rows}
    seen = [row for row in rows if chosen[row].data is not None]
    if any(chosen[row].data != chosen[seen[0]].data for row in seen):
        return _Read(obstacle="the rows saw different data: " + ", ".join(seen))
    seeds = sorted(set.intersection(*(set(selection.by_seed) for selection in chosen.values()))) if rows else []
    if not seeds:
        return _Read(obstacle="no seed is common to " + ", ".join(rows))
    values: dict[int, float] = {}
    for seed in seeds:
        try:
            value = expressions.evaluate(test.expression, {}, {}, _functions({row: chosen[row].by_seed[seed] for row in rows}))
        except _MissingError as error:
            return _Read(obstacle=f"{error} (seed {seed})")
        if value is None:
            return _Read(obstacle=f"'{test.expression}' divides by zero (seed {seed})")
        values[seed] = value
    return _Read(values, runs=tuple(chosen[row].by_seed[seed].name for row in rows for seed in seeds))


class _MissingError(ValueError):
    """A record lacks what an expression reads."""


def _functions(by_row: Mapping[str, Record]) -> dict[str, Callable[..., float]]:
    def m(row: str, metric: str) -> float:
        value = by_row[row].metrics.get(metric)
        if value is None:
            raise _MissingError(f"the record of {row} lacks {metric}")
        return value

    def points(row: str, name: str) -> list[tuple[float, float]]:
        if not (series := by_row[row].series.get(name)):
            raise _MissingError(f"the record of {row} lacks the series {name}")
        return sorted(series)

    def series_mean(row: str, name: str, last_epochs: float | None = None) -> float:
        series = points(row, name)
        end = series[-1][0]
        return statistics.fmean(y for x, y in series if last_epochs is None or x > end - last_epochs)

    return {
        "m": m,
        "series_mean": series_mean,
        "first": lambda row, name: points(row, name)[0][1],
        "last": lambda row, name: points(row, name)[-1][1],
    }


def _bound(test: Inequality) -> tuple[float, float]:
    """Return (sign, limit): the inequality is sign * value >= limit, tolerance and rounding granted."""
    sign, bound = (1.0, test.at_least) if test.at_least is not None else (-1.0, test.at_most)
    assert bound is not None, "the schema asks for one bound"
    return sign, sign * bound - test.tolerance - SLACK * max(1.0, abs(bound))


def _in_words(test: Inequality) -> str:
    text = f">= {test.at_least:g}" if test.at_least is not None else f"<= {test.at_most:g}"
    return text + (f" (tolerance {test.tolerance:g})" if test.tolerance else "")


def _condition(test: Inequality, place: Place) -> Finding:
    """Return whether a fairness condition holds in every seed."""
    read = _read(test, place)
    sign, limit = _bound(test)
    mean = statistics.fmean(read.by_seed.values()) if read.by_seed else None
    word: Word = "inconclusive" if read.obstacle else "holds" if all(sign * value >= limit for value in read.by_seed.values()) else "fails"
    return _finding(test, place, read, word, read.obstacle, mean)


def _find(test: Inequality, place: Place, gate: str) -> Finding:
    read = _read(test, place)
    sign, limit = _bound(test)
    if read.obstacle:
        return _finding(test, place, read, read.word, read.obstacle)
    if len(read.by_seed) < 2:
        (only,) = read.by_seed.values()
        return _finding(test, place, read, "inconclusive", _why_not(place.scale, gate, 1), only)
    mean, low, high = mean_interval(list(read.by_seed.values()))
    nearest, farthest = (low, high) if sign > 0 else (-high, -low)
    if why := _why_not(place.scale, gate, len(read.by_seed)):
        word: Word = "inconclusive"
    elif nearest >= limit:
        word = "holds"
    elif farthest < limit:
        word = "fails"
    else:
        word, why = "inconclusive", "the 90 % interval contains the bound"
    return _finding(test, place, read, word, why, mean, low, high)


def _finding(test: Inequality, place: Place, read: _Read, word: Word, reason: str, *interval: float | None) -> Finding:
    mean, low, high = (*interval, None, None, None)[:3]
    facts = (test.name, test.expression, _in_words(test), word, reason, read.by_seed, place.scale, place.source)
    return Finding(*facts, mean, low, high, read.runs)


def _why_not(scale: str, gate: str, num_seeds: int) -> str:
    if scale == "smoke":
        return "smoke scale concludes nothing"
    if gate:
        return gate
    return f"{num_seeds} of {MIN_SEEDS} seeds" if num_seeds < MIN_SEEDS else ""


def _because(finding: Finding) -> str:
    return f" ({finding.reason})" if finding.reason else f" (mean {finding.mean:.4g}, asked {finding.bound})"


def _first_few(reasons: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(reasons))
    left = len(distinct) - MAX_REASONS
    return "; ".join(distinct[:MAX_REASONS]) + (f"; and {left} more" if left > 0 else "")


def _reason(finding: Finding, place: Place) -> str:
    name = finding.name if finding.scale == place.scale else f"{finding.name} (at {finding.scale} scale)"
    if finding.verdict == "fails":
        return f"{name}: {finding.mean:.4g} [{finding.low:.4g}, {finding.high:.4g}], asked {finding.bound}"
    return f"{name}: {finding.reason}"
