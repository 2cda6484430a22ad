"""The encoder against the definition in plain loops, and back again."""

import itertools
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from espalier.storage import decode, encode, relative_size

pytestmark = pytest.mark.tiny


def by_hand(stream: list[float], index_bits: int) -> list[tuple[int, float]]:
    """Return the entries (zeros skipped, value) of a stream, one place after the other; a kept weight is one that is not zero."""
    entries: list[tuple[int, float]] = []
    run, survivors = 0, 0
    for value in stream:
        if value == 0:
            run += 1
            if run == 2**index_bits:
                entries.append((run - 1, 0.0))
                run = 0
        else:
            entries.append((run, value))
            run, survivors = 0, len(entries)
    return entries[:survivors]  # fillers after the last kept weight are dropped


@pytest.mark.parametrize(
    ("stream", "num_entries", "bits"),
    [([1, 0, 0, 2], 2, 12), ([1, 0, 0, 0, 0, 2], 3, 18), ([0] * 8, 0, 0)],
    ids=["fits", "one-filler", "all-zero"],
)
def test_the_test_vectors(stream: list[int], num_entries: int, bits: int) -> None:
    weight = torch.tensor(stream, dtype=torch.float32)
    encoded = encode(weight, weight != 0, index_bits=2)
    assert (len(encoded.skips), encoded.bits(4)) == (num_entries, bits)
    assert torch.equal(decode(encoded), weight)


@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, -2.0]), min_size=1, max_size=60), st.integers(1, 4), st.sampled_from([1, 3, 4]))
@settings(max_examples=80, deadline=None)
def test_encoding_is_the_definition_and_decodes(stream: list[float], index_bits: int, rows: int) -> None:
    stream = stream[: max(1, len(stream) // rows) * rows] + [0.0] * max(0, rows - len(stream))
    weight = torch.tensor(stream)
    encoded = encode(weight, weight != 0, index_bits=index_bits)
    assert list(zip(encoded.skips.tolist(), encoded.values.tolist(), strict=True)) == by_hand(stream, index_bits)
    assert torch.equal(decode(encoded), weight)
    assert relative_size(weight != 0, 3, index_bits=index_bits).bits == encoded.bits(3)
    matrix = weight.view(rows, -1)
    by_row = encode(matrix, matrix != 0, index_bits=index_bits, by_row=True)
    entries = [by_hand(row, index_bits) for row in matrix.tolist()]
    assert list(zip(by_row.skips.tolist(), by_row.values.tolist(), strict=True)) == [*itertools.chain(*entries)]
    assert torch.equal(decode(by_row), matrix)
    assert (
        relative_size(matrix != 0, 3, index_bits=index_bits, by_row=True).bits
        == by_row.bits(3)
        == 32 * rows + (3 + index_bits) * sum(map(len, entries))
    )


def layer() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(512, 512, 3, 3, generator=generator)
    kept = torch.rand(weight.shape, generator=generator) < 0.05
    return weight * kept, kept


def test_a_kept_weight_that_is_zero_keeps_its_entry() -> None:
    kept = torch.tensor([True, False, True])
    encoded = encode(torch.tensor([0.0, 0.0, 5.0]), kept, index_bits=1)
    assert encoded.skips.tolist() == [0, 1]
    assert encoded.values.tolist() == [0, 5]


@pytest.mark.parametrize("by_row", [False, True], ids=["stream", "rows"])
def test_a_layer_of_vgg_takes_a_fraction_of_a_second_and_comes_back(by_row: bool) -> None:
    weight, kept = layer()
    start = time.thread_time()
    encoded = encode(weight, kept, index_bits=4, by_row=by_row)
    back = decode(encoded)
    size = relative_size(kept, 4, by_row=by_row)
    assert time.thread_time() - start < 1.0
    assert torch.equal(back, weight)
    assert size.bits <= encoded.bits(4)
    assert size.bits == min(encode(weight, kept, index_bits=width, by_row=by_row).bits(4) for width in range(4, 9))


@pytest.mark.parametrize(
    ("weight", "kept", "knobs", "message"),
    [
        (torch.ones(3), torch.ones(2, dtype=torch.bool), {}, r"mask has shape \(2,\).*weight shape \(3,\); give a bool mask"),
        (torch.ones(3), torch.ones(3), {}, r"type torch.float32.*give a bool mask"),
        (torch.ones(3), torch.tensor([True, False, True]), {}, r"1 weights outside the mask are not zero.*project"),
        (torch.ones(3), torch.ones(3, dtype=torch.bool), {"index_bits": 0}, r"index_bits=0: an index has at least 1 bit"),
        (torch.ones(3), torch.ones(3, dtype=torch.bool), {"by_row": True}, r"shape \(3,\) has no rows.*by_row=False"),
    ],
    ids=["shape", "type", "outside", "width", "rows"],
)
def test_what_cannot_be_encoded_says_so(weight: Tensor, kept: Tensor, knobs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(weight, kept, **{"index_bits": 2, **knobs})  # type: ignore[arg-type]
