"""Hardware: measured or modelled."""

from espalier.frames.cpu import Cpu, machine_lock

__all__ = ["Cpu", "machine_lock"]
