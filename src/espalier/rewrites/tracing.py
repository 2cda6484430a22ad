"""Graphs of networks with some modules left whole."""

from torch import fx, nn

from espalier.constraints.selection import BATCH_NORMS


class NormTracer(fx.Tracer):
    """Keeps every batch norm whole, subclasses with an activation inside too, so that they can be named.

    Args:
        whole: Further modules to keep whole.
    """

    def __init__(self, *whole: type[nn.Module]) -> None:
        super().__init__()
        self.whole = (*BATCH_NORMS, *whole)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)
