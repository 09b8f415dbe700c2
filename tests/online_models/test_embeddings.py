"""Vectors that videos bring along: what the projection keeps, and what they do to content vectors."""

import numpy as np
import pytest

from online_models.content import ContentModel
from online_models.embeddings import DIMENSIONS, projected
from topics.catalog import Video

#: Signs of the first dimension.
FIRST = (-1, 1, 1, 1, -1, -1, 1, 1, 1, -1, 1, -1)


def as_bytes(vector: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bytes:
    return bytes((vector * (127 / np.abs(vector).max())).round().astype(np.int8).tobytes())


def test_cosines_stay_and_so_does_the_projection() -> None:
    draw = np.random.default_rng(3)
    errors = []
    for _ in range(200):
        one, other = draw.standard_normal((2, 384))
        other = 0.7 * one + 0.7 * other
        before = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        errors.append(float(projected(as_bytes(one)) @ projected(as_bytes(other))) - before)
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 1.2 / np.sqrt(DIMENSIONS)
    # What is in the log was made with these signs, and has to be made with them again for ever.
    assert projected(bytes([1, 0, 0, 0, 0, 0, 0, 0]))[:12].tolist() == pytest.approx([sign / 16 for sign in FIRST])


def test_zeros_and_extremes_are_vectors_too() -> None:
    assert not projected(bytes(16)).any()
    assert np.linalg.norm(projected(bytes([128] * 1024))) == pytest.approx(1.0, abs=1e-5)


def cosines(*videos: Video) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    model = ContentModel(len(videos))
    model.publish(np.arange(len(videos), dtype=np.int32), videos)
    vectors = model.columns["content"].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


def test_meaning_takes_the_place_of_words_and_of_nothing_else() -> None:
    draw = np.random.default_rng(4)
    cat, markets = (as_bytes(draw.standard_normal(384)) for _ in range(2))
    found = cosines(
        Video(title="a cat plays", embedding=cat),
        Video(title="quite other words", embedding=cat),
        Video(title="a cat plays", embedding=markets),
        Video(title="a cat plays", categories=("animals",), embedding=markets),
        Video(title="x", categories=("animals",), embedding=cat),
    )
    assert found[0, 1] > 0.99, "the same meaning"
    assert abs(found[0, 2]) < 0.25, "the same words alone are nothing"
    assert 0.6 < found[2, 3] < 0.8, "half of what is said"
    assert 0.3 < found[3, 4] < 0.7, "one category, two meanings"


def test_a_video_that_brings_one_and_nothing_else_is_described() -> None:
    model = ContentModel(1)
    vector = as_bytes(np.random.default_rng(5).standard_normal(384))
    model.publish(np.zeros(1, np.int32), [Video(embedding=vector)])
    kept = model.columns["content"][0] / 127.0
    assert kept @ projected(vector) == pytest.approx(1.0, abs=0.02)
