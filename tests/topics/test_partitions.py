"""Keys land where Java's clients put them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.partitions import murmur2, murmur2_plain, partition_of, stable_hash


@pytest.mark.parametrize(
    ("key", "expected"),
    [  # from Kafka's own UtilsTest.testMurmur2, as signed 32-bit numbers
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected % 2**32


@given(st.binary(max_size=200))
def test_compiled_and_plain_murmur2_agree(key: bytes) -> None:
    assert murmur2(key) == murmur2_plain(key)


@given(st.binary(max_size=128), st.integers(1, 256))
def test_partition_is_in_range(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


def test_partition_clears_the_sign_bit_and_takes_no_absolute_value() -> None:
    # -973932308 & 0x7fffffff = 1173551340; its absolute value would give partition 2 of 3 as well as 0 of 7
    assert partition_of(b"21", 7) == 1173551340 % 7
    assert partition_of(b"21", 1000) == 340


def test_stable_hash_does_not_change_between_releases() -> None:
    assert stable_hash("") == 0x2D06800538D394C2  # XXH3's published value for no input
    assert stable_hash("user-1") != stable_hash("user-2")
    assert stable_hash("é") == stable_hash("\u00e9")
