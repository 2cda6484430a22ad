"""A pruned network to native code: ``compile_model`` reads it, rewrites its graph, emits C, and loads what the C compiler made of it."""

from espalier.compiler.ceilings import measured_roof
from espalier.compiler.compiling import CompiledNetwork, compile_model
from espalier.compiler.explaining import Explanation, Line

__all__ = ["CompiledNetwork", "Explanation", "Line", "compile_model", "measured_roof"]
