"""Hardware: measured or modelled."""

from espalier.frames.compiled_cpu import CompiledCpu
from espalier.frames.cpu import Cpu
from espalier.frames.machine import machine_lock

__all__ = ["CompiledCpu", "Cpu", "machine_lock"]
