"""What a pruned layer occupies: exact encoders of its weights and indices, and the formula that predicts them."""

from espalier.storage.bcrc import Bcrc, encode_bcrc
from espalier.storage.formula import best_gap, expected_bits, expected_entries, gap
from espalier.storage.relative import Encoded, decode, encode
from espalier.storage.sizes import Size, bitmap_size, csr_size, dense_block, kernel_size, relative_size, stored_size, structured_size

__all__ = [
    "Bcrc",
    "Encoded",
    "Size",
    "best_gap",
    "bitmap_size",
    "csr_size",
    "decode",
    "dense_block",
    "encode",
    "encode_bcrc",
    "expected_bits",
    "expected_entries",
    "gap",
    "kernel_size",
    "relative_size",
    "stored_size",
    "structured_size",
]
