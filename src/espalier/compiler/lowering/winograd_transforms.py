"""Winograd's minimal filtering F(m x m, 3x3): matrices, weights in the transform domain, and the transforms as C text.

An output tile of m x m pixels is ``A' [(G g G') * (B' d B)] A``: of g, a filter of 3x3, of d, (m + 2) x (m + 2) input pixels, and * element
by element, so that (m + 2)^2 multiplications do for 9 m^2 (Lavin and Gray, CVPR 2016). Sums over channels, and over the planes of a 3-D
kernel, are formed before A, in the transform domain. Points are 0, 1, -1 and infinity where m is 2; where it is 4, 0, the square roots of
1/2 and of 2 with either sign, and infinity, with which rounding costs a third to a fifth of what it does with 1 and 2.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from espalier.compiler.lowering.kernel import NAME

KERNEL = 3
ROOT = math.sqrt(2)


@dataclass(frozen=True)
class Transform:
    """F(m x m, 3x3).

    Args:
        size: m.
        filters: G, ``(m + 2, 3)``.
        into: Statements that give t0, t1, ... = B' d of d0, d1, ...
        back: Statements that give y0, y1, ... = A' t of t0, t1, ...
    """

    size: int
    filters: tuple[tuple[float, ...], ...]
    into: str
    back: str

    @property
    def reach(self) -> int:
        """Return m + 2, the input pixels a tile sees along an axis."""
        return self.size + KERNEL - 1

    @property
    def positions(self) -> int:
        """Return the products of a tile for one channel and filter."""
        return self.reach**2


TRANSFORMS: dict[int, Transform] = {
    2: Transform(
        2,
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        "const es_v t0 = d0 - d2, t1 = d1 + d2, t2 = d2 - d1, t3 = d1 - d3;",
        "const es_v y0 = t0 + t1 + t2, y1 = t1 - t2 - t3;",
    ),
    4: Transform(
        4,
        (
            (1, 0, 0),
            (-2 / 3, -ROOT / 3, -1 / 3),
            (-2 / 3, ROOT / 3, -1 / 3),
            (1 / 6, ROOT / 6, 1 / 3),
            (1 / 6, -ROOT / 6, 1 / 3),
            (0, 0, 1),
        ),
        """const float root = 1.41421356f;
  const es_v e1 = d4 - 2.0f * d2, o1 = 0.5f * root * (d3 - 2.0f * d1), e2 = d4 - 0.5f * d2, o2 = root * (d3 - 0.5f * d1);
  const es_v t0 = d0 - 2.5f * d2 + d4, t1 = e1 + o1, t2 = e1 - o1, t3 = e2 + o2, t4 = e2 - o2, t5 = d1 - 2.5f * d3 + d5;""",
        """const float root = 1.41421356f;
  const es_v s1 = t1 + t2, r1 = root * (t1 - t2), s2 = t3 + t4, r2 = root * (t3 - t4);
  const es_v y0 = t0 + s1 + s2, y1 = 0.5f * r1 + r2, y2 = 0.5f * s1 + 2.0f * s2, y3 = 0.25f * r1 + 2.0f * r2 + t5;""",
    ),
}


def transformed(weight: Tensor, transform: Transform) -> np.ndarray:
    """Return the weights in the transform domain, computed in double precision.

    Args:
        weight: ``(M, C, D, 3, 3)``.
        transform: F(m x m, 3x3).

    Returns:
        ``(positions, M, C, D)`` float64.
    """
    g = np.array(transform.filters, np.float64)
    domain: np.ndarray = np.einsum("ip,mcdpq,jq->ijmcd", g, weight.detach().double().numpy(), g, optimize=True)
    return domain.reshape(transform.positions, *weight.shape[:3])


def functions(transform: Transform) -> str:
    """Return the C functions ``ES_NAME_into`` and ``ES_NAME_back``: one axis of each transform, for ES_LANES channels at once."""
    return "\n".join(
        [
            _along("into", "B'", ("d", transform.reach), ("t", transform.reach), transform.into),
            _along("back", "A'", ("t", transform.reach), ("y", transform.size), transform.back),
        ]
    )


def _along(name: str, matrix: str, source: tuple[str, int], result: tuple[str, int], statements: str) -> str:
    read = ", ".join(f"{source[0]}{k} = es_loadu(from + {k} * apart)" for k in range(source[1]))
    write = "\n  ".join(f"es_storeu(to + {k} * spread, {result[0]}{k});" for k in range(result[1]))
    return f"""/* {matrix} times {source[1]} vectors that lie `apart` floats from each other; the {result[1]} results lie `spread` apart. */
ES_INLINE void {NAME}_{name}(const float *from, long apart, float *to, long spread)
{{
  const es_v {read};
  {statements}
  {write}
}}
"""
