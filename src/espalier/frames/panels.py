"""Rows of sparse weights by panels, pixels in the lanes: the kernels that grim starts from and compares with (grim, 7; compiler spec, 2.4).

    for each panel of U rows that share a list of columns:
        for each V vectors of neighbouring pixels:
            acc[U][V] = bias
            for each column of the list:
                x[V] = input at that column, once for all U rows     # load redundancy elimination, where U > 1
                for u: acc[u] += w[column][u] * x

With U = 1 and a list for every row this is compressed sparse rows. Pixels are those of whole planes, row by row with the padding between,
so that a stride of 1 reads neighbours; what falls on the padding is computed and is no output. Compiled networks have another layout.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from espalier.compiler.isas import Isa
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.storage import Bcrc

FIELDS = 5  # of a panel: first column in the list, their number, first weight, rows, first place


@dataclass(frozen=True)
class Planes:
    """A feature map plane by plane, with the zeros that a convolution of stride 1 reads around it.

    Args:
        channels: Planes.
        height: Rows of pixels.
        width: Pixels of a row.
        kernel: Height and width of the convolution's kernel, both odd; its output has the size of its input.
    """

    channels: int
    height: int
    width: int
    kernel: tuple[int, int]

    @property
    def pitch(self) -> int:
        """Return the floats from a row to the next: the zeros behind one row are those before the next."""
        return self.width + self.kernel[1] // 2

    @property
    def floats(self) -> int:
        """Return the floats of an output plane, a multiple of 16; pixels of one row follow each other."""
        return -(-self.height * self.pitch // 16) * 16

    @property
    def stride(self) -> int:
        """Return the floats from an input plane to the next: an output plane, and the reach of the kernel before and behind it."""
        reach = (self.kernel[0] - 1) * self.pitch + self.kernel[1]
        return -(-(self.floats + reach) // 16) * 16

    def padded(self, value: Tensor) -> np.ndarray:
        """Return the input planes of ``value``, ``(channels, height, width)``, zeros around it."""
        above, before = self.kernel[0] // 2, self.kernel[1] // 2
        planes = F.pad(value, (0, self.pitch - self.width, above, above)).flatten(1)
        room = torch.zeros(self.channels, self.stride)
        room[:, before : before + planes.shape[1]] = planes
        return room.flatten().numpy()

    def taken(self, planes: np.ndarray) -> Tensor:
        """Return the pixels of output planes, ``(channels, height, width)``."""
        rows = torch.from_numpy(planes).view(-1, self.floats)[:, : self.height * self.pitch]
        return rows.view(-1, self.height, self.pitch)[:, :, : self.width]

    def offsets(self, columns: np.ndarray) -> np.ndarray:
        """Return the floats from a pixel of the output to what each column of the GEMM matrix multiplies."""
        height, width = self.kernel
        channel, position = np.divmod(columns.astype(np.int64), height * width)
        row, column = np.divmod(position, width)
        offsets: np.ndarray = (channel * self.stride + row * self.pitch + column).astype(np.int32)
        return offsets


@dataclass(frozen=True)
class Panel:
    """Knobs of the loop.

    Args:
        rows: U, rows that share a load.
        vectors: V, vectors of pixels at a time.
        pixels_outer: Whether all panels pass over some pixels before the next ones; else each panel passes over all pixels.
    """

    rows: int
    vectors: int
    pixels_outer: bool = False

    def fits(self, isa: Isa) -> bool:
        """Return whether sums, inputs and a weight find room in the registers."""
        return self.rows * self.vectors + self.vectors + 1 <= isa.registers


def lowered_panels(weight: Bcrc, bias: Tensor, planes: Planes, isa: Isa, panel: Panel) -> Kernel:
    """Return the kernel of a convolution of stride 1 whose output has the size of its input.

    Args:
        weight: The weight, ``(filters, channels, *kernel)``; rows of one group share a list.
        bias: ``(filters,)``.
        planes: Its input.
        isa: Instruction set.
        panel: Knobs.

    Raises:
        ValueError: The sums do not fit the registers.
    """
    if not panel.fits(isa):
        raise ValueError(f"rows={panel.rows} x vectors={panel.vectors} need more than the {isa.registers} registers of {isa.name}.")
    table, packed = [], []
    for group in range(weight.num_groups):
        first, length = int(weight.col_stride[group]), len(weight.columns(group))
        end = int(weight.occurrence[group + 1])
        for place in range(int(weight.occurrence[group]), end, panel.rows):
            rows = min(panel.rows, end - place)
            begin = int(weight.row_offset[place])
            table.append((first, length, begin, rows, place))
            packed.append(weight.weights[begin : begin + rows * length].reshape(rows, length).T.ravel())  # column by column
    arrays = {
        "panel": np.array(table, np.int32),
        "offset": planes.offsets(weight.compact_col),
        "w": np.ascontiguousarray(np.concatenate(packed), np.float32),
        "row": weight.reorder.astype(np.int32),
        "bias": bias.detach().numpy().astype(np.float32),
    }
    heights = sorted({rows for _, _, _, rows, _ in table})
    source = _function(heights, planes, isa, panel, len(table))
    detail = f"rows={panel.rows} vectors={panel.vectors} {'pixels' if panel.pixels_outer else 'panels'} outer"
    return Kernel("R", source, arrays, len(weight.weights) * planes.floats, detail)


def loads(weight: Bcrc, rows: int) -> int:
    """Return how often an element of the input is loaded for one pixel, where up to ``rows`` rows of a group share a load."""
    panels = -(-np.diff(weight.occurrence) // rows)
    return int((panels * np.diff(weight.col_stride)).sum())


def _function(heights: list[int], planes: Planes, isa: Isa, panel: Panel, num_panels: int) -> str:
    whole = planes.floats // isa.lanes
    steps, rest = divmod(whole, panel.vectors)
    widths = [panel.vectors] * bool(steps) + [rest] * bool(rest)
    loops = [_loop(height, width, planes, isa) for height in heights for width in dict.fromkeys(widths)]
    panels = f"for (int64_t p = 0; p < {num_panels}; ++p)"
    pixels = "for (int64_t n = begin; n < end; ++n)"
    outer, inner = (pixels, panels) if panel.pixels_outer else (panels, pixels)
    calls = _calls(heights, panel.vectors, isa) if steps else ""
    if rest:
        last = _calls(heights, rest, isa, shift=steps * panel.vectors)
        calls = f"if (n == {steps}) {{\n{last}\n      }} else {{\n{calls}\n      }}" if steps else last
    count = steps + bool(rest)
    return "\n".join(
        [
            *loops,
            f"""void {NAME}(const struct es_context *c, int tid, const float *x, float *y,
    const int32_t *panel, const int32_t *offset, const float *w, const int32_t *row, const float *bias)
{{
  int64_t begin, end;
  es_split({count}, tid, c->threads, &begin, &end);
  {outer} {{
    {inner} {{
      const int32_t *f = panel + p * {FIELDS};
      {calls}
    }}
  }}
}}
""",
        ]
    )


def _calls(heights: list[int], vectors: int, isa: Isa, shift: int | None = None) -> str:
    """Return the calls of one step along the pixels, by the rows that a panel has."""
    at = f"n * {vectors * isa.lanes}" if shift is None else f"{shift * isa.lanes}"
    arguments = f"x + {at}, offset + f[0], f[1], w + f[2], row + f[4], bias, y + {at}"
    lines = [f"        case {height}: {NAME}_{height}_{vectors}({arguments}); break;" for height in heights]
    return "\n".join(["      switch (f[3]) {", *lines, "      }"])


def _loop(rows: int, vectors: int, planes: Planes, isa: Isa) -> str:
    """Return the loop over a list, for so many rows and vectors; sums are scalars of vector type."""
    body = [f"es_v a{u}_{v} = es_splat(bias[row[{u}]]);" for u in range(rows) for v in range(vectors)]
    body.append("for (int64_t q = 0; q < length; ++q) {")
    body.append("  const float *in = x + offset[q];")
    body += [f"  const es_v x{v} = es_loadu(in + {v * isa.lanes});" for v in range(vectors)]
    for u in range(rows):
        body.append(f"  const es_v w{u} = es_splat(w[q * {rows} + {u}]);")
        body.append("  " + " ".join(f"a{u}_{v} = es_fma(w{u}, x{v}, a{u}_{v});" for v in range(vectors)))
    body.append("}")
    body += [f"es_store(y + row[{u}] * INT64_C({planes.floats}) + {v * isa.lanes}, a{u}_{v});" for u in range(rows) for v in range(vectors)]
    head = (
        f"static inline void {NAME}_{rows}_{vectors}(const float *x, const int32_t *offset, int64_t length, const float *w,\n"
        "    const int32_t *row, const float *bias, float *y)"
    )
    return "\n".join([head, "{", *(f"  {line}" for line in body), "}"])
