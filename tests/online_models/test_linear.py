"""Products of rows against numpy's."""

import numpy as np
import pytest

from online_models.base import ModelError
from online_models.linear import dot_rows, weighted_sum

RNG = np.random.default_rng(1)
MATRIX = RNG.normal(size=(50, 32)).astype(np.float32)
WEIGHTS = RNG.normal(size=50).astype(np.float32)
VECTOR = RNG.normal(size=32).astype(np.float32)


def test_products_equal_numpys() -> None:
    out = np.empty(40, np.float32)
    dot_rows(MATRIX, VECTOR, out)
    np.testing.assert_allclose(out, MATRIX[:40] @ VECTOR, rtol=1e-4, atol=1e-5)
    rows = np.array([49, 3, 3], np.int32)
    some = np.empty(3, np.float32)
    dot_rows(MATRIX, VECTOR, some, rows)
    np.testing.assert_allclose(some, MATRIX[rows] @ VECTOR, rtol=1e-4, atol=1e-5)
    mixed = np.empty(32, np.float32)
    weighted_sum(WEIGHTS, MATRIX, mixed)
    np.testing.assert_allclose(mixed, WEIGHTS @ MATRIX, rtol=1e-4, atol=1e-4)


def test_a_broken_row_breaks_its_own_product_only() -> None:
    matrix = MATRIX.copy()
    matrix[7, 3] = np.nan
    out = np.empty(50, np.float32)
    dot_rows(matrix, VECTOR, out)
    assert np.flatnonzero(np.isnan(out)).tolist() == [7]


@pytest.mark.parametrize(("width", "length", "row"), [(31, 2, 0), (32, 3, 0), (32, 2, 50), (32, 2, -1)])
def test_shapes_and_rows_that_do_not_fit_are_refused(width: int, length: int, row: int) -> None:
    with pytest.raises(ModelError):
        dot_rows(MATRIX, np.zeros(width, np.float32), np.empty(length, np.float32), np.array([0, row], np.int32))
    with pytest.raises(ModelError):
        dot_rows(MATRIX, VECTOR, np.empty(51, np.float32))
    with pytest.raises(ModelError):
        weighted_sum(np.zeros(3, np.float32), MATRIX, np.empty(32, np.float32))
