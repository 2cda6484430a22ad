"""Who computes what in templates F and V: the threads' shares of a layer's blocks and tiles, as C text.

A piece of work is a block of filters on a tile of pixels. It counts as the block's entries, those of kernel planes that its tile
leaves out among them, and one more for beginning and storing its sums.
Threads share out the filters, piece by piece along the tiles of one block after the other, or the pixels, along the blocks of one tile
after the other. Either way a thread may begin in the middle of a block or a tile: pruned lists differ in length, and whole blocks, or
whole tiles of a small map, would leave one thread waiting for another.
"""

from collections.abc import Sequence

from espalier.compiler.lowering.kernel import NAME

SHARE_OF_FILTERS = f"""/* Where thread tid begins: a block, and the first of its tiles. The one behind begins where it ends. */
static inline void {NAME}_share(
    const int32_t *start, int64_t blocks, int64_t tiles, int tid, int threads, int64_t *block, int64_t *tile)
{{
  const int64_t from = (start[blocks] + blocks) * tiles * tid / threads;
  int64_t p = 0;
  while (p < blocks && (start[p + 1] + p + 1) * tiles <= from) ++p;
  *block = p;
  *tile = 0;
  if (p == blocks) return;
  const int64_t cost = start[p + 1] - start[p] + 1;
  *tile = (from - (start[p] + p) * tiles + cost / 2) / cost;
  if (*tile == tiles) {{ ++*block; *tile = 0; }}
}}"""

SHARE_OF_PIXELS = f"""/* Where thread tid begins: a tile, and the first of its blocks. The one behind begins where it ends. */
static inline void {NAME}_share(
    const int32_t *start, int64_t blocks, int64_t tiles, int tid, int threads, int64_t *block, int64_t *tile)
{{
  const int64_t all = start[blocks] + blocks, from = all * tiles * tid / threads, rest = from % all;
  int64_t p = 0;
  while (p < blocks && 2 * p + 1 + start[p] + start[p + 1] <= 2 * rest) ++p;
  *block = p == blocks ? 0 : p;
  *tile = from / all + (p == blocks);
}}"""


def shared(blocks: int, tiles: int, portion: int, work: Sequence[str], *, by_filters: bool) -> str:
    """Return loops over a thread's tiles ``t``, and the blocks from ``low`` to ``high`` of each, for portions of blocks at a time.

    Args:
        blocks: Of filters.
        tiles: Of pixels.
        portion: Blocks that pass over all tiles before the next ones do.
        work: Lines of the loop over tiles.
        by_filters: Whether threads share out filters.
    """
    if by_filters:
        start, end, span = "first", "last + (tail > 0)", f"int64_t t = 0; t < {tiles}"
        begun, ended = "first + (t < head)", "last + (t < tail)"
    else:
        start, end, span = "0", f"{blocks}", "int64_t t = head; t < tail + (last > 0)"
        begun, ended = "(t == head ? first : 0)", f"(t == tail ? last : {blocks})"
    body = "\n".join(f"      {line}" for line in work)
    return f"""  int64_t first, head, last, tail;
  {NAME}_share(start, {blocks}, {tiles}, tid, c->threads, &first, &head);
  {NAME}_share(start, {blocks}, {tiles}, tid + 1, c->threads, &last, &tail);
  for (int64_t from = {start}; from < {end}; from += {portion})
    for ({span}; ++t) {{
      const int64_t begun = {begun}, ended = {ended};
      const int64_t low = begun > from ? begun : from, high = ended < from + {portion} ? ended : from + {portion};
{body}
    }}"""
