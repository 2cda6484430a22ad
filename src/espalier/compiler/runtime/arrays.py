"""The caller's arrays: checked against what a network was compiled for, and read and written where they lie."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from espalier.compiler.runtime.emitted import Port

Array = Tensor | NDArray[np.float32]


@dataclass(frozen=True)
class Placed:
    """A dense array, kept alive, and its address."""

    array: Array
    address: int

    @property
    def span(self) -> range:
        """Return the addresses it covers."""
        num_bytes = self.array.nbytes
        return range(self.address, self.address + num_bytes)


def placed(array: Array) -> Placed:
    """Return a dense array with its address."""
    return Placed(array, array.data_ptr() if isinstance(array, Tensor) else array.ctypes.data)


def taken(inputs: Sequence[Any], ports: Sequence[Port]) -> list[Placed]:
    """Return the inputs as the library reads them; one that is not contiguous is copied, the others are not.

    Raises:
        ValueError: Their number, a kind, a type, a device or a shape is another, or one asks for gradients.
    """
    _check(inputs, ports, "input", "takes")
    if len({isinstance(array, Tensor) for array in inputs}) == 2:
        raise ValueError("some inputs are tensors, some NumPy arrays; pass all of one kind, which the outputs then have too.")
    for array, port in zip(inputs, ports, strict=True):
        if isinstance(array, Tensor) and array.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"input {port.name} asks for gradients, compiled code has none; pass {port.name}.detach(), or use torch.no_grad()."
            )
    return [placed(array.contiguous() if isinstance(array, Tensor) else np.ascontiguousarray(array)) for array in inputs]


def new(ports: Sequence[Port], *, tensors: bool) -> list[Placed]:
    """Return fresh outputs."""
    return [
        placed(torch.empty(port.shape, dtype=torch.float32, device="cpu") if tensors else np.empty(port.shape, np.float32))
        for port in ports
    ]


def written(outputs: Sequence[Any], ports: Sequence[Port], inputs: Sequence[Placed]) -> list[Placed]:
    """Return the caller's outputs as the library writes them.

    Raises:
        ValueError: As for ``taken``; or one is not contiguous, cannot be written, or shares memory with an input or another output.
    """
    _check(outputs, ports, "output", "gives")
    found: list[Placed] = []
    for array, port in zip(outputs, ports, strict=True):
        contiguous = array.is_contiguous() if isinstance(array, Tensor) else array.flags.c_contiguous and array.flags.writeable
        if not contiguous:
            raise ValueError(f"output {port.name} cannot be written in place: pass a contiguous array that may be written.")
        one = placed(array)
        if any(one.span.start < other.span.stop and other.span.start < one.span.stop for other in [*inputs, *found]):
            raise ValueError(f"output {port.name} shares memory with another array of the call; pass one of its own.")
        found.append(one)
    return found


def as_tensor(array: Array) -> Tensor:
    """Return an array as a tensor that shares its memory; one that must not be written is copied."""
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def storage(tensor: Tensor) -> int:
    """Return the address of the memory that a tensor is a view of."""
    return tensor.untyped_storage().data_ptr()


def apart(results: Sequence[Tensor], known: Collection[int]) -> tuple[Tensor, ...]:
    """Return the results, those copied that lie in ``known`` storages or in that of another result."""
    own: list[Tensor] = []
    for result in results:
        shared = storage(result) in known or storage(result) in map(storage, own)
        own.append(result.clone() if shared else result)
    return tuple(own)


def _check(arrays: Sequence[Any], ports: Sequence[Port], side: str, verb: str) -> None:
    if len(arrays) != len(ports):
        raise ValueError(f"the network {verb} {len(ports)} {side}s ({', '.join(map(str, ports))}); {len(arrays)} were passed.")
    for array, port in zip(arrays, ports, strict=True):
        if isinstance(array, Tensor):
            fits = array.dtype is torch.float32 and array.is_cpu
        elif isinstance(array, np.ndarray):
            fits = array.dtype == np.float32
        else:
            raise ValueError(f"{side} {port.name} is a {type(array).__name__}; pass a tensor or a NumPy array of shape {port.shape}.")
        if not fits:
            kind, device = str(array.dtype).removeprefix("torch."), array.device.type if isinstance(array, Tensor) else "cpu"
            raise ValueError(f"{side} {port.name} is {kind} on {device}, the network computes in float32 on the cpu; convert it first.")
        if array.shape != port.shape:
            raise ValueError(
                f"{side} {port.name} has shape {tuple(array.shape)}, the network was compiled for {port.shape}; {_way_out(array, port)}."
            )


def _way_out(array: Array, port: Port) -> str:
    if array.ndim == len(port.shape) > 1 and tuple(array.shape[1:]) == port.shape[1:]:
        return f"pass {'one sample' if port.shape[0] == 1 else f'{port.shape[0]} samples'} in each call"
    return "compile it again with an example of that shape"
