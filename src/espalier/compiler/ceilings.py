"""What this machine can reach, measured when it is first asked for and kept in the user's cache folder (``runtime.probing`` measures)."""

import hashlib
import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from espalier.compiler.isas import detect
from espalier.compiler.kept import Kept
from espalier.compiler.runtime.building import HERE, cache_folder
from espalier.compiler.runtime.probing import Ceilings, probe
from espalier.compiler.runtime.toolchain import compiler
from espalier.devices import BUSY_CPUS, OthersCpus, cpu, cpu_flags

LOG = logging.getLogger(__name__)
FILE = "ceilings.json"
FRESH = timedelta(days=7)  # a virtual machine may be moved to another host


def ceilings(num_threads: int, isa: str | None = None, *, cache: Path | None = None) -> Ceilings:
    """Return what this machine reaches, as it was measured in the last days, else measured now in one to three seconds.

    Whoever calls sees to it that the machine is otherwise idle: where others were at work, or CPUs changed places, a warning says so and
    the figures serve this call alone. Deleting ``ceilings.json`` from the cache folder has it measured anew.

    Args:
        num_threads: Threads, at least 1.
        isa: Instruction set; None takes the widest that this machine runs.
        cache: Folder of what was measured; None takes ``ESPALIER_CACHE``, else the user's cache folder.

    Raises:
        ValueError: There is no C compiler, or the instruction set is unknown or not this CPU's.
    """
    known = known_ceilings(num_threads, isa, cache=cache)
    if known is not None:
        return known
    others = OthersCpus()
    found = probe(num_threads, isa)
    if why := _disturbed(found, others.used()):
        LOG.warning("%s while this machine was measured: its ceilings are not kept, and measured again when they are asked for next.", why)
        return found
    figures = {name: value for name, value in asdict(found).items() if name != "moved"}  # what moved is not kept
    entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "ceilings": figures}
    _kept(cache).add({_key(num_threads, isa): entry})
    return found


def known_ceilings(num_threads: int, isa: str | None = None, *, cache: Path | None = None) -> Ceilings | None:
    """Return what was measured in the last days; None where nothing was. Arguments as for ``ceilings``."""
    entry = _kept(cache).entries().get(_key(num_threads, isa))
    if entry is None:
        return None
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(entry["when"])
        return Ceilings(**entry["ceilings"]) if age < FRESH else None
    except (KeyError, TypeError, ValueError) as error:
        LOG.warning("an entry of %s is unreadable (%s): the machine is measured anew.", FILE, error)
        return None


def measured_roof(num_threads: int) -> tuple[float, float]:
    """Return the GFLOP/s of multiply-adds and the GB/s of reading what no cache holds, of all threads; raises as ``ceilings`` does."""
    found = ceilings(num_threads)
    return found.fma_gflops, found.dram_gb_s


def _disturbed(found: Ceilings, others_cpus: float) -> str:
    """Return why figures are not to be trusted for long; empty where nothing speaks against them."""
    if others_cpus > BUSY_CPUS:
        return f"other processes used {others_cpus:.1f} CPUs"
    return "CPUs changed places" if found.moved else ""


def _kept(cache: Path | None) -> Kept:
    return Kept((cache or cache_folder()) / FILE)


def _key(num_threads: int, isa: str | None) -> str:
    code = "".join((HERE / name).read_text(encoding="utf-8") for name in ("probing.py", "probing.c"))
    facts = [cpu().name, sorted(cpu_flags()), num_threads, isa or detect().name, compiler().version, code]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
