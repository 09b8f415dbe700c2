"""Content vectors: what is near, what is not, and what they ignore."""

from dataclasses import dataclass

import numpy as np
import pytest

from online_models.base import Context, ModelError
from online_models.content import DIMENSIONS, ContentModel, Vocabulary, terms


@dataclass
class Video:
    """A catalogue entry."""

    title: str = ""
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    author: str | None = None
    description: str = ""


CATALOGUE = [
    Video("sourdough from scratch", ("cooking",), ("bread",), "ann"),
    Video("thirty minute noodles", ("cooking",), ("dinner",), "bob"),
    Video("volley drills for beginners", ("tennis",), ("sport",), "cid"),
    Video("the longest rally ever", ("tennis",), ("sport",), "dee"),
]


def published() -> ContentModel:
    model = ContentModel(len(CATALOGUE) + 2)
    for row, video in enumerate(CATALOGUE):
        model.publish(row, video)
    return model


def context(*history: int) -> Context:
    return Context(np.array(history, np.int32), np.zeros(32, np.float32), 0.0)


def test_a_new_video_is_near_to_its_category_and_far_from_others() -> None:
    model = published()
    model.publish(4, Video("a title of other words", ("cooking",)))
    cook = model.score_many(context(0, 1), np.array([4], np.int32))[0]
    player = model.score_many(context(2, 3), np.array([4], np.int32))[0]
    assert cook > 0.3
    assert abs(player) < 0.15


def test_scores_are_cosines_of_the_decayed_mean() -> None:
    model = published()
    vectors = model.columns["content"].astype(np.float64)
    mean = vectors[2] + 0.9 * vectors[0] + 0.81 * vectors[1]
    expected = vectors @ mean / np.linalg.norm(mean)
    np.testing.assert_allclose(model.score_many(context(2, 0, 1), np.arange(6, dtype=np.int32)), expected, atol=1e-6)
    out = np.empty(4, np.float32)
    model.scores(model.user_vector(np.array([2, 0, 1], np.int32)), out)
    np.testing.assert_allclose(out, expected[:4], atol=1e-6)


def test_vectors_have_length_one_or_are_empty() -> None:
    model = published()
    np.testing.assert_allclose(np.linalg.norm(model.columns["content"], axis=1), [1, 1, 1, 1, 0, 0], atol=1e-6)
    assert not Vocabulary().vector(terms()).any()
    assert model.score_many(context(4), np.arange(6, dtype=np.int32)).tolist() == [0.0] * 6
    assert model.score_many(context(), np.arange(6, dtype=np.int32)).tolist() == [0.0] * 6


def test_rare_terms_weigh_more() -> None:
    vocabulary = Vocabulary()
    for number in range(50):
        vocabulary.learn_one(terms(title=f"common word{number}"))
    both = vocabulary.vector(terms(title="common rare"))
    assert both @ vocabulary.vector(terms(title="rare")) > 2 * abs(both @ vocabulary.vector(terms(title="common")))


def test_case_and_order_of_words_do_not_matter() -> None:
    vocabulary = Vocabulary()
    np.testing.assert_array_equal(vocabulary.vector(terms(title="Big CAT")), vocabulary.vector(terms(title="cat big")))


def test_a_tag_is_not_a_word() -> None:
    vocabulary = Vocabulary()
    assert abs(vocabulary.vector(terms(title="cat")) @ vocabulary.vector(terms(tags=["cat"]))) < 0.5


def test_publishing_again_replaces_the_vector_and_counts_once() -> None:
    model = published()
    model.publish(0, Video("smash", ("tennis",), ("sport",)))
    assert model.vocabulary.documents.tolist() == [4]
    assert model.score_many(context(2), np.array([0], np.int32))[0] > 0.3


def test_a_vector_of_another_width_is_refused() -> None:
    with pytest.raises(ModelError, match="256"):
        ContentModel(2).describe(np.zeros(1, np.int32), np.zeros((1, 8), np.float32))
    with pytest.raises(ModelError, match="finite"):
        ContentModel(2).describe(np.zeros(1, np.int32), np.full((1, DIMENSIONS), np.nan, np.float32))
