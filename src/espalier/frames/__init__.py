"""Hardware: measured or modelled."""

from espalier.frames.cpu import Cpu
from espalier.frames.machine import machine_lock

__all__ = ["Cpu", "machine_lock"]
