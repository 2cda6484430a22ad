"""How long the runs that a command asks for will take, from how long their like took on this machine."""

from collections.abc import Sequence
from statistics import fmean

from espalier.devices import cpu
from espalier.record import Record
from espalier.runner import Job


def expected_s(job: Job, known: Sequence[Record]) -> float | None:
    """Return the mean duration of earlier runs of the job's row and scale on this device, in seconds; None where there are none.

    A variant is expected to take as long as runs that differ in the seed alone.
    """
    device = cpu().name
    like = [record.duration_s for record in known if record.device == device and _alike(job, record)]
    return fmean(like) if like else None


def _alike(job: Job, record: Record) -> bool:
    place = (record.paper, record.table, record.row, record.scale)
    if place != tuple(job.config[key] for key in ("paper", "table", "row", "scale")) or record.variant != job.variant:
        return False
    return not job.variant or {**record.config, "seed": None} == {**job.identity, "seed": None}


def expectation(jobs: Sequence[Job], known: Sequence[Record], at_once: int = 1) -> str:
    """Return the time that runs are expected to take, ``at_once`` at a time, as words."""
    times = [expected_s(job, known) for job in jobs]
    total, unknown = sum(time for time in times if time is not None) / at_once, times.count(None)
    if unknown == len(times):
        return "expected time unknown: none of these rows has run on this machine"
    rest = f", and {unknown} run{'s' * (unknown > 1)} of unknown duration" if unknown else ""
    return f"expected time {duration(total)}{rest}"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{hours:g} h"
