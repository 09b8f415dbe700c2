"""Which words put a user into segments."""

import numpy as np
import pytest

from online_models.segments import BUCKETS, buckets_of
from state.segments import segments_of, words_of
from topics.catalog import User

DE = 43
"""The bucket of `country:de`."""


def test_words_are_told_apart_by_what_they_are_of() -> None:
    user = User(
        language="fr",
        country="fr",
        age_band="25-34",
        segments=("fr", "new"),
        attributes={"device": "fr", "vip": True, "age": 31, "score": 0.5, "unknown": None},
    )
    words = list(words_of(user))
    assert words == [
        "language:fr", "country:fr", "age_band:25-34", "segment:fr", "segment:new", "device=fr", "vip=True",
    ]  # fmt: skip
    assert len(set(words)) == len(words)


def test_bits_are_the_words_hashes_and_the_same_everywhere() -> None:
    # As any process of any release makes them: rows hold counts by these numbers.
    assert buckets_of(segments_of(User(country="de"))).tolist() == [DE]
    both = segments_of(User(country="de", language="de"))
    assert (both & segments_of(User(country="de")) == segments_of(User(country="de"))).all()
    assert len(buckets_of(both)) == 2


@pytest.mark.parametrize("user", [None, User(), User(attributes={"age": 31})])
def test_nothing_known_is_no_bits(user: User | None) -> None:
    assert not segments_of(user).any()


def test_any_number_of_words_has_its_place() -> None:
    many = User(segments=tuple(f"s{n}" for n in range(64)), attributes={f"a{n}": "x" for n in range(1_000)})
    bits = segments_of(many)
    assert bits.dtype == np.uint64
    assert len(buckets_of(bits)) > 0.99 * BUCKETS
