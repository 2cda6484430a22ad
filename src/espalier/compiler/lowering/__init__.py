"""Operators to C: for each op of the graph a function that returns its kernel, one file per template."""

from collections.abc import Callable, Mapping

from espalier.compiler.lowering.copies import (
    lower_concat,
    lower_constant,
    lower_expand,
    lower_input,
    lower_pad,
    lower_permute,
    lower_reshape,
    lower_slice,
)
from espalier.compiler.lowering.depthwise import is_depthwise, lower_depthwise
from espalier.compiler.lowering.elementwise import lower_affine, lower_binary, lower_unary
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.matmul import lower_matmul
from espalier.compiler.lowering.norms import lower_group_norm, lower_layer_norm
from espalier.compiler.lowering.pools import lower_adaptive_avg_pool, lower_avg_pool, lower_max_pool
from espalier.compiler.lowering.reductions import lower_mean, lower_softmax
from espalier.compiler.lowering.upsample import lower_upsample

__all__ = ["LOWERINGS", "Kernel", "is_depthwise", "lower_depthwise"]

LOWERINGS: Mapping[str, Callable[..., Kernel]] = {
    "input": lower_input,
    "constant": lower_constant,
    "affine": lower_affine,
    "unary": lower_unary,
    "binary": lower_binary,
    "concat": lower_concat,
    "slice": lower_slice,
    "pad": lower_pad,
    "expand": lower_expand,
    "reshape": lower_reshape,
    "permute": lower_permute,
    "max_pool": lower_max_pool,
    "avg_pool": lower_avg_pool,
    "adaptive_avg_pool": lower_adaptive_avg_pool,
    "upsample": lower_upsample,
    "mean": lower_mean,
    "softmax": lower_softmax,
    "layer_norm": lower_layer_norm,
    "group_norm": lower_group_norm,
    "matmul": lower_matmul,
}
