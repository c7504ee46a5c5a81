"""Packed numbers against the slow and obvious way: one bit at a time."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.errors import FormatError
from leanmatch.formats.artifact import bit_packing as bitpack
from leanmatch.formats.artifact.bit_packing import pack, packed_size, signed, unpack


def reference(numbers, bits):
    stream = [(int(number) >> place) & 1 for number in numbers for place in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return [
        sum(bit << place for place, bit in enumerate(stream[i : i + 8])) for i in range(0, len(stream), 8)
    ]


@pytest.mark.parametrize("bits", range(17))
def test_there_and_back(bits):
    for count in (0, 1, 3, 7, 8, 9, 100):
        numbers = np.random.default_rng(count).integers(0, 2**bits, count).astype(np.uint16)
        packed = pack(numbers, bits)
        assert packed.tolist() == reference(numbers, bits) and packed.size == packed_size(count, bits)
        assert unpack(packed, count, bits).tolist() == numbers.tolist()


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_signed_numbers(bits):
    numbers = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.int8)
    found = signed(unpack(pack(numbers, bits), numbers.size, bits), bits)
    assert found.dtype == np.int8 and found.tolist() == numbers.tolist()


def test_more_than_one_chunk(monkeypatch):
    monkeypatch.setattr(bitpack, "_CHUNK", 16)
    numbers = np.random.default_rng(0).integers(0, 64, 333).astype(np.uint8)
    assert pack(numbers, 6).tolist() == reference(numbers, 6)
    assert unpack(pack(numbers, 6), 333, 6).tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("numbers", "bits"),
    [(np.array([64], np.uint8), 6), (np.array([-9, 3], np.int8), 4), (np.array([8], np.int8), 4)],
)
def test_numbers_that_do_not_fit(numbers, bits):
    with pytest.raises(FormatError, match=f"numbers of {bits} bits must lie between"):
        pack(numbers, bits)


def test_wrong_length_and_fill_bits():
    with pytest.raises(FormatError, match=r"3 numbers of 6 bits take 3 bytes \(found 2\)"):
        unpack(np.zeros(2, np.uint8), 3, 6)
    with pytest.raises(FormatError, match="fill bits are not zero"):
        unpack(np.array([0, 0, 0b01000000], np.uint8), 3, 6)
    with pytest.raises(FormatError, match="take 0 bytes"):
        unpack(np.zeros(1, np.uint8), 10**9, 0)
