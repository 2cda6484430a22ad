"""Which layers template W computes, and with which tiles."""

from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Lines
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.winograd import Blocks, blocks_of, takes


def winograd_blocks(layer: Convolution, source: Lines, result: Lines, isa: Isa) -> Blocks | None:
    """Return knobs of template W where it is faster than F; None where F is, or W does not compute such a layer."""
    return None
