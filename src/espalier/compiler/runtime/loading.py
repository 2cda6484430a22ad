"""A compiled network in Python's hands: tensors in, tensors out, without a copy.

``Library`` is the shared library, ``CompiledModel`` one handle of it, with threads and activations of its own. A handle serves one thread
at a time: open one for each thread that calls. Threads do not survive ``os.fork``: a child process opens its own.
"""

import ctypes
import json
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from espalier.compiler.runtime.arrays import Array, Placed, new, taken, written
from espalier.compiler.runtime.building import LIBRARY, build
from espalier.compiler.runtime.emitted import WEIGHTS, Info, emitted_info
from espalier.compiler.runtime.toolchain import known_isa
from espalier.compiler.runtime.weights import Blob, aligned_blob, read_weights
from espalier.devices import check_cpus, check_threads, cpu, cpu_flags

ERROR_BYTES = 256


class Library:
    """The shared library of one network, loaded.

    Args:
        path: The file.

    Raises:
        ValueError: It cannot be loaded, or this CPU lacks what it was compiled for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.functions = _declared(ctypes.CDLL(str(path)))
            self.info = Info.of(json.loads(self.functions.es_info()))
        except (OSError, AttributeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no library of a compiled network for this system ({error}); compile the network again.") from error
        check_cpu(self.info.isa, path)


def _declared(functions: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    types: dict[str, tuple[Any, list[Any]]] = {
        "es_open": (pointer, [pointer, size, ctypes.c_int, pointer, pointer, size]),
        "es_run": (ctypes.c_int, [pointer, pointer, pointer]),
        "es_close": (None, [pointer]),
        "es_info": (ctypes.c_char_p, []),
        "es_status_text": (ctypes.c_char_p, [ctypes.c_int]),
        "es_fork_join_ns": (ctypes.c_double, [pointer, ctypes.c_int]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
    return functions


def check_cpu(isa: str, what: object) -> None:
    """Check that this CPU runs code of an instruction set.

    Raises:
        ValueError: It does not, or nobody knows that set; the message names what is missing.
    """
    if missing := sorted(set(known_isa(isa).flags) - cpu_flags()):
        raise ValueError(
            f"{what} was compiled for isa={isa}; this CPU ({cpu().name}) lacks {' '.join(missing)}. "
            "Compile the network for an instruction set that it has; isa=generic runs everywhere."
        )


class CompiledModel:
    """A network as native code, called like a module.

    It takes and gives fp32 tensors on the CPU, or NumPy arrays, of the shapes it was compiled for; contiguous ones are read in place,
    others are copied first. It has no gradients. Close it, or use it as a context manager, to end its threads sooner than Python would.

    Args:
        library: The shared library.
        weights: Its weights file, or their blob.
        num_threads: Threads that run it, the caller's among them; they wait by spinning, so that no more are let in than there are cores.
        cpus: CPU of each thread, the caller's first, all different; None takes one a core. One thread stays wherever it runs.

    Raises:
        ValueError: A file is missing or damaged, the two do not belong together, this CPU lacks the instruction set, there are more threads
            than cores that this process may use, ``cpus`` names one twice or one that it may not use, or a thread does not start.
    """

    def __init__(self, library: Path, weights: Path | Blob, *, num_threads: int = 1, cpus: Sequence[int] | None = None) -> None:
        if cpus is not None and len(cpus) != num_threads:
            raise ValueError(f"cpus={list(cpus)} names {len(cpus)} CPUs for {num_threads} threads; name one for each.")
        check_threads(num_threads)
        if cpus is not None:
            check_cpus(cpus)
        self.library, self.num_threads = Library(library), num_threads
        blob = read_weights(weights) if isinstance(weights, Path) else aligned_blob(weights)
        error = ctypes.create_string_buffer(ERROR_BYTES)
        places = None if cpus is None else (ctypes.c_int * num_threads)(*cpus)
        functions = self.library.functions
        handle = functions.es_open(blob.ctypes.data, blob.nbytes, num_threads, places, error, ERROR_BYTES)
        if not handle:
            raise ValueError(f"{library} cannot be opened: {error.value.decode(errors='replace')}")
        self._handle: int | None = handle
        self._turn = threading.Lock()
        self._end = weakref.finalize(self, _close, functions, handle, blob)

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, num_threads: int = 1, cpus: Sequence[int] | None = None, cache: Path | None = None
    ) -> "CompiledModel":
        """Return the network of a folder: ``weights.bin`` with the library ``network.so``, or with emitted C, which is compiled.

        Raises:
            ValueError: As for the class, or the folder holds neither.
        """
        folder = Path(folder)
        library = folder / LIBRARY
        if not library.exists():
            library = build(folder, emitted_info(folder).isa, cache=cache)
        return cls(library, folder / WEIGHTS, num_threads=num_threads, cpus=cpus)

    @property
    def info(self) -> Info:
        """Return what the library says of its network."""
        return self.library.info

    def __call__(self, *inputs: Array, out: Array | Sequence[Array] | None = None) -> Any:
        """Run the network; return its output, or a tuple where it has several, of the inputs' kind.

        Args:
            inputs: Tensors, or NumPy arrays, of the shapes it was compiled for.
            out: Arrays to write to and to return, which share no memory with an input; None makes new ones.

        Raises:
            ValueError: An array's number, kind, type, device or shape is another; the message gives both.
            RuntimeError: It is closed, another thread is using it, or this process is a fork of the one that opened it.
        """
        given = taken(inputs, self.info.inputs)
        if out is None:
            outputs = new(self.info.outputs, tensors=isinstance(inputs[0], Tensor))
        else:
            outputs = written(out if isinstance(out, list | tuple) else [out], self.info.outputs, given)
        if status := self._alone(self.library.functions.es_run, _addresses(given), _addresses(outputs)):
            raise RuntimeError(self._text(status))
        results = tuple(one.array for one in outputs)
        return results[0] if len(results) == 1 else results

    def fork_join_ns(self, repeats: int = 200) -> float:
        """Return the median time in ns in which its threads begin and end together; it tells how near each other they run."""
        found = float(self._alone(self.library.functions.es_fork_join_ns, repeats))
        if found < 0:
            raise RuntimeError(self._text(-int(found)))
        return found

    def close(self) -> None:
        """End its threads and free its memory, after what it is doing; closing twice does nothing."""
        with self._turn:
            self._handle = None
            self._end()

    def __enter__(self) -> "CompiledModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a CompiledModel is a loaded library with threads of its own and can be neither pickled nor copied; "
            "pass the paths of its library and weights, and open them there."
        )

    def __repr__(self) -> str:
        ports = " -> ".join(", ".join(map(str, side)) for side in (self.info.inputs, self.info.outputs))
        return f"CompiledModel({ports}; {self.info.isa}, {self.num_threads} threads{'' if self._handle else ', closed'})"

    def _alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not self._turn.acquire(blocking=False):
            raise RuntimeError("another thread is using this CompiledModel; open one for each thread that calls.")
        try:
            if self._handle is None:
                raise RuntimeError("this CompiledModel is closed; open it again.")
            return function(self._handle, *arguments)
        finally:
            self._turn.release()

    def _text(self, status: int) -> str:
        return f"the compiled network did not run: {self.library.functions.es_status_text(status).decode()}."


def _addresses(arrays: Sequence[Placed]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(one.address for one in arrays))


def _close(functions: ctypes.CDLL, handle: int, _blob: Blob) -> None:
    """End a handle; its weights, which it reads in place, are an argument so that they live until then."""
    functions.es_close(handle)
