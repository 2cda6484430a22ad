"""What PyTorch makes new tensors of: a process may have changed it, and the compiler's are float32 on the CPU all the same."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_on_cpu() -> Iterator[None]:
    """Make new tensors float32 on the CPU meanwhile, whatever the process's defaults; also a decorator."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(usual)
