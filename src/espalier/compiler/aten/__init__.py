"""ATen operators in the words of the compiler: one builder each, called with the arguments in the order of the operator's schema."""

from collections.abc import Callable

from espalier.compiler.aten.arithmetic import ARITHMETIC
from espalier.compiler.aten.attention import ATTENTION
from espalier.compiler.aten.building import Result
from espalier.compiler.aten.layers import LAYERS
from espalier.compiler.aten.pools import POOLS
from espalier.compiler.aten.shapes import SHAPES

BUILDERS: dict[str, Callable[..., Result]] = {**LAYERS, **ARITHMETIC, **SHAPES, **POOLS, **ATTENTION}
