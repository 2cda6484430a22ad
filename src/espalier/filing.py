"""Measurements that were taken elsewhere: what an exported network printed is filed beside the run it came from."""

from pathlib import Path

from espalier.frames.engines.engine import TOLERANCES
from espalier.inventory import find
from espalier.metrics import unknown
from espalier.record import Measurement, Record, Store, parsed

PERCENTILES = ("latency_ms_p10", "latency_ms_p50", "latency_ms_p90")
WAY_OUT = "Let the exported network write it anew: ./network THREADS > record.json."


def import_measurement(path: str | Path, run: str | Record, *, store: Store | None = None) -> dict[str, Measurement]:
    """File a measurement's record beside a run; return run -> measurement. One in the same setting takes the place of the first.

    Args:
        path: The record, as the program of an exported network prints it.
        run: The run whose weights were timed: its name, or a beginning of it that fits no other.
        store: Where the runs live; None takes ``ESPALIER_STORE``, else ``runs``.

    Raises:
        ValueError: The file is missing or no such record, a figure has no name here or cannot be, or other weights were timed than the
            run's.
    """
    place = store or Store()
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file. {WAY_OUT}")
    measurement = parsed(Path(path), Measurement, str(path), way_out=WAY_OUT)
    if names := unknown(measurement.metrics):
        raise ValueError(f"{path} has figures that espalier does not know: {', '.join(names)}. {WAY_OUT}")
    if reason := _impossible(measurement):
        raise ValueError(f"{path} cannot be what a clock said: {reason}. {WAY_OUT}")
    record = find(run, place) if isinstance(run, str) else run
    if measurement.weights == "random" or measurement.checkpoint != record.checkpoint:
        raise ValueError(
            f"{path} timed {measurement.weights} weights of digest {measurement.checkpoint[:12]}, {record.name} has its own, of digest "
            f"{str(record.checkpoint)[:12]}: name the run that was exported, or export this one."
        )
    place.add_measurement(record.name, measurement)
    return {record.name: measurement}


def _impossible(measurement: Measurement) -> str | None:
    """Return what no program of an exported network prints, in words."""
    times = [value for name in PERCENTILES if (value := measurement.metrics.get(name)) is not None]
    if times != sorted(times) or any(value <= 0 for value in times):
        return f"its percentiles are {', '.join(map(str, times))} ms"
    off = measurement.metrics.get("max_rel_error")
    most = next((most for precision, most in TOLERANCES.items() if precision == measurement.precision), None)
    if off is not None and most is not None and not 0 <= off <= most:
        return f"its outputs are off by {off:g}, of {most:g} that are allowed, and such a network is not timed"
    return None
