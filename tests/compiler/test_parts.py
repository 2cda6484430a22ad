"""What libraries are put together from: constants are stored once, functions too, and headers say what they were given."""

import numpy as np

from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.parts import ALIGNED, SMALL, Blob, Parts
from espalier.compiler.runtime.emitted import info_of, network_header


def test_arrays_are_stored_once_where_that_is_cheap_to_see() -> None:
    blob = Blob()
    small, large = np.arange(3, dtype=np.float32), np.zeros(SMALL, np.uint8).view(np.float32)
    assert blob.add(small) == blob.add(small.copy()) == 0
    assert blob.add(small.view(np.int32)) == ALIGNED  # of other numbers
    assert blob.add(large) == blob.add(large) == 2 * ALIGNED
    assert blob.add(large.copy()) == 2 * ALIGNED + SMALL
    assert blob.add(np.empty(0, np.float32)) == 2 * ALIGNED + 2 * SMALL
    assert blob.size == len(blob.bytes()) == 3 * ALIGNED + 2 * SMALL
    assert np.frombuffer(blob.bytes()[:12], np.float32).tolist() == [0, 1, 2]


def test_a_large_array_is_not_taken_for_a_small_one_whose_bytes_name_its_place() -> None:
    blob = Blob()
    for number in range(1000):
        blob.add(np.array([number], np.float32))
    large = np.ones(SMALL // 4, np.float32)
    assert blob.add(np.frombuffer(b"1001", np.float32)) == 1000 * ALIGNED
    assert blob.add(large) == 1001 * ALIGNED


def test_kernels_of_equal_text_share_a_function() -> None:
    parts = Parts()
    one = {"w": np.ones(1, np.float32), "n": np.ones(1, np.int32)}
    calls = [parts.call(Kernel("t", f"void {NAME}() {{ {text} }}", one), ["a", "b"], "c") for text in "xyx"]
    assert calls[0] == calls[2] == "es_k0(c, tid, a, b, c, (const float *)(c->weights + 0), (const int32_t *)(c->weights + 64));"
    assert calls[1].startswith("es_k1(")
    assert len(parts.prototypes) == 2
    assert parts.prototypes[1].endswith("int tid, const float *x0, const float *x1, float *y, const float *, const int32_t *);")
    files = parts.files()
    assert [*files] == ["kernel_0.c", "kernel_1.c"]
    assert "void es_k1() { y }" in files["kernel_1.c"]
    assert NAME not in "".join(files.values())
    (both,) = parts.files(1).values()
    assert "es_k0() { x }" in both
    assert "es_k1() { y }" in both


def test_a_header_says_what_it_was_given() -> None:
    info = {"isa": "generic", "inputs": [[2, 3]], "outputs": [[4], []], "by": 'a "quoted" \\ word'}
    text = network_header(info, arena_floats=5, scratch_floats=16, weights_bytes=256, prototypes=["void f(void);"])
    assert info_of(text, "here").facts == info
    defined = dict(line.split(" ", 2)[1:] for line in text.splitlines() if line.startswith("#define ES_"))
    assert (defined["ES_NUM_INPUTS"], defined["ES_INPUT_FLOATS"]) == ("1", "{6}")
    assert (defined["ES_NUM_OUTPUTS"], defined["ES_OUTPUT_FLOATS"]) == ("2", "{4, 1}")
    assert [defined[f"ES_{name}_FLOATS"] for name in ("ARENA", "SCRATCH", "WEIGHTS")] == ["5", "16", "64"]
    assert "void f(void);" in text
