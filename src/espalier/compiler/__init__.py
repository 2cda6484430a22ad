"""A pruned network to native code: ``compile_model`` reads it, rewrites its graph, emits C, and loads what the C compiler made of it."""

from espalier.compiler.compiling import CompiledNetwork, Line, compile_model

__all__ = ["CompiledNetwork", "Line", "compile_model"]
