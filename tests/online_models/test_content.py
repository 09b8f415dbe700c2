"""Content vectors: what is near, what is not, and what they ignore."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from online_models.base import Context, Float32Array, ModelError
from online_models.content import (
    BUCKETS,
    CATEGORIES,
    DIMENSIONS,
    GROUP_WEIGHTS,
    LEAST_RARITY,
    STEPS,
    ContentModel,
    Terms,
    Vocabulary,
    terms,
)


@dataclass
class Video:
    """A catalogue entry."""

    title: str = ""
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    author: str | None = None
    description: str = ""
    language: str | None = None
    duration_seconds: float | None = None
    published_ms: int | None = None
    embedding: bytes | None = None


CATALOGUE = [
    Video("sourdough from scratch", ("cooking",), ("bread",), "ann"),
    Video("thirty minute noodles", ("cooking",), ("dinner",), "bob"),
    Video("volley drills for beginners", ("tennis",), ("sport",), "cid"),
    Video("the longest rally ever", ("tennis",), ("sport",), "dee"),
]


def published() -> ContentModel:
    model = ContentModel(len(CATALOGUE) + 2)
    model.publish(np.arange(len(CATALOGUE), dtype=np.int32), CATALOGUE)
    return model


def context(*history: int) -> Context:
    return Context(np.array(history, np.int32), np.zeros(32, np.float32), 0.0)


def test_a_new_video_is_near_to_its_category_and_far_from_others() -> None:
    model = published()
    model.publish(np.array([4], np.int32), [Video("a title of other words", ("cooking",))])
    cook = model.score_many(context(0, 1), np.array([4], np.int32))[0]
    player = model.score_many(context(2, 3), np.array([4], np.int32))[0]
    assert cook > 0.3
    assert abs(player) < 0.15


def test_scores_are_cosines_of_the_decayed_mean() -> None:
    model = published()
    vectors = model.columns["content"].astype(np.float64) / STEPS
    mean = vectors[2] + 0.9 * vectors[0] + 0.81 * vectors[1]
    expected = vectors @ mean / np.linalg.norm(mean)
    np.testing.assert_allclose(model.score_many(context(2, 0, 1), np.arange(6, dtype=np.int32)), expected, atol=1e-6)
    out = np.empty(4, np.float32)
    model.scores(model.user_vector(np.array([2, 0, 1], np.int32)), out)
    np.testing.assert_allclose(out, expected[:4], atol=1e-6)


def vector(vocabulary: Vocabulary, described: Terms) -> Float32Array:
    """Without counting it."""
    made: Float32Array = vocabulary.vectors([described], np.zeros(1, np.bool_))[0]
    return made


def test_together_or_one_by_one_is_the_same() -> None:
    together, apart = published(), ContentModel(len(CATALOGUE) + 2)
    for row, video in enumerate(CATALOGUE):
        apart.publish(np.array([row], np.int32), [video])
    np.testing.assert_array_equal(together.columns["content"], apart.columns["content"])
    np.testing.assert_array_equal(together.vocabulary.frequency, apart.vocabulary.frequency)


def test_a_row_named_twice_counts_once_and_the_last_description_stays() -> None:
    model = ContentModel(1)
    model.publish(np.zeros(2, np.int32), CATALOGUE[:2])
    assert model.vocabulary.documents.tolist() == [1]
    alone = ContentModel(1)
    alone.publish(np.zeros(1, np.int32), CATALOGUE[:1])
    alone.publish(np.zeros(1, np.int32), CATALOGUE[1:2])
    np.testing.assert_array_equal(model.columns["content"], alone.columns["content"])


def test_a_vector_is_the_sum_of_its_groups_by_the_formula() -> None:
    vocabulary = Vocabulary()
    for number in range(9):
        vocabulary.vectors([terms(title="cat", tags=[f"t{number % 2}"])], np.ones(1, np.bool_))
    described = terms(title="cat cat dog", tags=["t1"], author="ann")
    expected = np.zeros(DIMENSIONS)
    for group, counts in described.items():
        part = np.zeros(DIMENSIONS)
        for term, count in counts.items():
            used = vocabulary.frequency[(term >> 32) % BUCKETS]
            rarity = max(np.log((1 + 9) / (1 + used)) + 1, LEAST_RARITY)
            part[term % DIMENSIONS] += (1 if term >> 63 else -1) * (1 + np.log(count)) * rarity
        expected += GROUP_WEIGHTS[group] * part / np.linalg.norm(part)
    np.testing.assert_allclose(vector(vocabulary, described), expected / np.linalg.norm(expected), atol=1e-6)


def test_vectors_have_length_one_or_are_empty() -> None:
    model = published()
    lengths = np.linalg.norm(model.columns["content"].astype(np.float64), axis=1) / STEPS
    np.testing.assert_allclose(lengths, [1, 1, 1, 1, 0, 0], atol=0.01)
    assert not vector(Vocabulary(), terms()).any()
    assert model.score_many(context(4), np.arange(6, dtype=np.int32)).tolist() == [0.0] * 6
    assert model.score_many(context(), np.arange(6, dtype=np.int32)).tolist() == [0.0] * 6


def test_a_cosine_loses_little_by_the_steps_of_its_vectors() -> None:
    rng = np.random.default_rng(3)
    exact = rng.normal(0, 1, (200, DIMENSIONS)) * (rng.random((200, DIMENSIONS)) < 0.06)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    model = ContentModel(200)
    model.describe(np.arange(200, dtype=np.int32), exact.astype(np.float32))
    asked = exact[:20].mean(axis=0)
    asked /= np.linalg.norm(asked)
    out = np.empty(200, np.float32)
    model.scores(asked.astype(np.float32), out)
    np.testing.assert_allclose(out, exact @ asked, atol=0.01)


def test_rare_terms_weigh_more() -> None:
    vocabulary = Vocabulary()
    for number in range(50):
        vocabulary.vectors([terms(title=f"common word{number}")], np.ones(1, np.bool_))
    both = vector(vocabulary, terms(title="common rare"))
    assert both @ vector(vocabulary, terms(title="rare")) > 2 * abs(both @ vector(vocabulary, terms(title="common")))


def test_case_and_order_of_words_do_not_matter() -> None:
    vocabulary = Vocabulary()
    np.testing.assert_array_equal(
        vector(vocabulary, terms(title="Big CAT")), vector(vocabulary, terms(title="cat big"))
    )


def test_a_tag_is_not_a_word() -> None:
    vocabulary = Vocabulary()
    assert abs(vector(vocabulary, terms(title="cat")) @ vector(vocabulary, terms(tags=["cat"]))) < 0.5


def test_publishing_again_replaces_the_vector_and_counts_once() -> None:
    model = published()
    model.publish(np.array([0], np.int32), [Video("smash", ("tennis",), ("sport",))])
    assert model.vocabulary.documents.tolist() == [4]
    assert model.score_many(context(2), np.array([0], np.int32))[0] > 0.3


def test_a_vector_of_another_width_is_refused() -> None:
    with pytest.raises(ModelError, match="256"):
        ContentModel(2).describe(np.zeros(1, np.int32), np.zeros((1, 8), np.float32))
    with pytest.raises(ModelError, match="finite"):
        ContentModel(2).describe(np.zeros(1, np.int32), np.full((1, DIMENSIONS), np.nan, np.float32))


def codes(*videos: Video) -> dict[str, Any]:
    """What the columns say of videos, each in a row of its own."""
    model = ContentModel(len(videos))
    model.publish(np.arange(len(videos), dtype=np.int32), videos)
    return {name: model.columns[name].tolist() for name in ("categories", "author", "language", "duration")}


def test_nothing_known_is_zero() -> None:
    assert codes(Video()) == {"categories": [[0] * CATEGORIES], "author": [0], "language": [0], "duration": [0.0]}


def test_the_same_name_has_the_same_code_in_any_case() -> None:
    found = codes(
        Video(categories=("Straße", "tennis"), author="ÄNN", language="DE"),
        Video(categories=("STRASSE", "Tennis"), author="änn", language="de"),
        Video(categories=("tennis",), author="bob", language="en"),
    )
    first, second, third = found["categories"]
    assert first == second
    assert third == [first[1], 0, 0, 0]
    for name in ("author", "language"):
        one, same, other = found[name]
        assert one == same != other
        assert 0 not in (one, other)


def test_codes_are_16_bits_and_hardly_ever_the_same() -> None:
    names = [f"author {number}" for number in range(2_000)]
    found = [*codes(*(Video(author=name) for name in names))["author"]]
    assert min(found) >= 1
    assert max(found) <= 65_535
    # 2,000 of 65,535 drawn blindly: 30 pairs.
    assert len(set(found)) > 1_930
    # All bits are used.
    assert np.bitwise_or.reduce(found) == 65_535
    assert len({code % 8 for code in found}) == 8


def test_only_the_first_categories_have_codes_and_all_shape_the_vector() -> None:
    many = tuple(f"kind{number}" for number in range(6))
    whole, first = codes(Video(categories=many)), codes(Video(categories=many[:CATEGORIES]))
    assert whole["categories"] == first["categories"]
    assert len(set(whole["categories"][0])) == CATEGORIES
    model = ContentModel(2)
    model.publish(np.arange(2, dtype=np.int32), [Video(categories=many), Video(categories=many[:CATEGORIES])])
    assert (model.columns["content"][0] != model.columns["content"][1]).any()


def test_durations_are_logarithms_of_seconds() -> None:
    found = codes(*(Video(duration_seconds=seconds) for seconds in (0.0, 1.0, 99.0, 1e9, None)))["duration"]
    np.testing.assert_allclose(found, np.log1p([0.0, 1.0, 99.0, 1e9, 0.0]), rtol=1e-6)


def test_publishing_again_replaces_all_codes() -> None:
    model = ContentModel(1)
    for video in (Video("x", ("a", "b"), (), "ann", "", "de", 9.0), Video("y", ("b",))):
        model.publish(np.zeros(1, np.int32), [video])
    fresh = ContentModel(1)
    fresh.publish(np.zeros(1, np.int32), [Video("y", ("b",))])
    for name in ("categories", "author", "language", "duration"):
        np.testing.assert_array_equal(model.columns[name], fresh.columns[name], err_msg=name)
