"""Sums of factor steps are what learning has moved each row by, over any number of batches."""

import numpy as np

from online_models.base import FACTORS
from online_models.factor_steps import FactorSteps
from tests.online_models.test_sequential_mf import ITEMS, USERS, model, stream


def test_sums_are_the_difference_that_learning_makes() -> None:
    made, steps = model(), FactorSteps()
    p, pacc = np.zeros((USERS, FACTORS), np.float32), np.zeros(USERS, np.float32)
    rng = np.random.default_rng(2)
    for turn in range(2):
        before = {name: column.copy() for name, column in made.columns.items()}
        for batch in range(5):
            slots, histories, rows = stream(7, seed=10 * turn + batch)
            pool = rng.integers(0, ITEMS // 2, 9).astype(np.int32)
            made.learn_batch(p, pacc, slots, histories, rows, pool, ITEMS, 3, 100 * batch, steps)
        size_bytes, named = steps.size_bytes, len(steps)
        rows, sums = steps.take()
        assert size_bytes == named * 4 * (FACTORS + 3)
        assert (len(rows), len(set(rows.tolist())), len(steps)) == (named, named, 0)
        moved = {name: made.columns[name] - before[name] for name in before}
        assert np.abs(moved["q"]).max() > 0.01
        expected = np.concatenate([moved["q"], moved["b"][:, None], moved["acc"][:, None]], axis=1)
        np.testing.assert_allclose(sums, expected[rows], atol=1e-6)
        others = np.setdiff1d(np.arange(ITEMS), rows)
        assert not expected[others].any()
