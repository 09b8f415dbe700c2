"""What is known of a user beside events, as the bits that `online_models.segments` counts by.

Flows in: a record of the `users` topic. Flows out: bits. Always holds: the same words make the same bits in every process.
"""

from collections.abc import Iterator

import numpy as np

from online_models.segments import BUCKETS
from state.types import UInt64Array
from topics.catalog import User
from topics.evidence import SEGMENT_WORDS
from topics.partitions import stable_hash


def words_of(user: User) -> Iterator[str]:
    """What puts the user into segments: language, country, age band, segments, and attributes that are words or yes and no.

    Numbers are left out: hardly two users share one. Whoever wants them to count sends a range, as a word.
    """
    for name in ("language", "country", "age_band"):
        value = getattr(user, name)
        if value is not None:
            yield f"{name}:{value}"
    for segment in user.segments:
        yield f"segment:{segment}"
    for name, value in user.attributes.items():
        if isinstance(value, str | bool):
            yield f"{name}={value}"


def segments_of(user: User | None) -> UInt64Array:
    """The user's bits: uint64, shape (SEGMENT_WORDS,); 0 where nothing is known."""
    bits = np.zeros(SEGMENT_WORDS, np.uint64)
    if user is not None:
        for word in words_of(user):
            bucket = stable_hash(word) % BUCKETS
            bits[bucket // 64] |= np.uint64(1 << bucket % 64)
    return bits
