"""The sentence model against vectors that its authors' library prints, and against itself."""

import numpy as np
import pytest

from ingestion.sentences import DIMENSIONS, MAX_TOKENS, SentenceModel, SentencesUnavailable


@pytest.fixture(scope="module")
def model() -> SentenceModel:
    try:
        return SentenceModel()
    except SentencesUnavailable as why:
        pytest.skip(str(why))


def test_vectors_are_those_of_the_authors_library(model: SentenceModel) -> None:
    found = model.vectors(["This is an example sentence", "Each sentence is converted"])
    assert found.dtype == np.float32
    assert found.shape == (2, DIMENSIONS)
    # As sentence-transformers/all-MiniLM-L6-v2's model card has them printed.
    assert found[0, :4] == pytest.approx([0.067657, 0.063496, 0.048713, 0.079305], abs=2e-6)
    assert found[1, :4] == pytest.approx([0.086439, 0.102763, 0.005395, 0.002044], abs=2e-6)


def test_company_changes_nothing(model: SentenceModel) -> None:
    texts = ["short", "a somewhat longer text about cats that play the piano", "", "word " * (MAX_TOKENS + 9)]
    alone = np.concatenate([model.vectors([text]) for text in texts])
    assert model.vectors(texts) == pytest.approx(alone, abs=1e-5)
    assert np.linalg.norm(alone, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    # What is beyond the bound is not read.
    assert model.vectors(["word " * MAX_TOKENS]) == pytest.approx(alone[3:], abs=1e-5)


def test_meaning_counts_not_words(model: SentenceModel) -> None:
    cat, kitten, markets = model.vectors(
        ["A cat plays piano", "A kitten at the keyboard", "Stock markets fall sharply"]
    )
    assert cat @ kitten > 0.4 > 0.1 > cat @ markets
