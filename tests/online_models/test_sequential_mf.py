"""The factorisation against the same steps in plain numpy, and its first vectors."""

import numpy as np
import pytest

from online_models.base import EMPTY, FACTORS, HISTORY, Float32Array, Int32Array, ModelError
from online_models.counters import initial_vector, mix64, seed_key
from online_models.sequential_mf import LAGS, NEGATIVES, SequentialMF

ITEMS, USERS = 60, 5


def model() -> SequentialMF:
    made = SequentialMF(ITEMS, seed=7)
    made.admit(np.arange(ITEMS, dtype=np.int32), np.arange(ITEMS, dtype=np.uint64))
    return made


def stream(n: int, seed: int = 1) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Slots, histories and rows of `n` events."""
    rng = np.random.default_rng(seed)
    slots = rng.integers(0, USERS, n).astype(np.int32)
    rows = rng.integers(0, ITEMS, n).astype(np.int32)
    histories = np.full((n, HISTORY), EMPTY, np.int32)
    for e in range(n):
        length = int(rng.integers(0, HISTORY + 1))
        histories[e, :length] = rng.integers(0, ITEMS, length)
    return slots, histories, rows


def reference(
    made: SequentialMF,
    p: Float32Array,
    pacc: Float32Array,
    events: tuple[Int32Array, Int32Array, Int32Array],
    pool: Int32Array,
    n_items: int,
    seed: int,
) -> None:
    """Learn as the module's docstring says, one array operation a line."""
    q, b, acc = made.columns["q"], made.columns["b"], made.columns["acc"]
    for e, (slot, history, row) in enumerate(zip(*events, strict=True)):
        recent = history[:LAGS][history[:LAGS] >= 0]
        shares = 0.9 ** np.arange(len(recent))
        shares = shares / np.sqrt(shares.sum()) if len(recent) else shares
        z = p[slot] + shares @ q[recent]
        start = int(mix64(np.array([np.uint64(seed_key(seed)) ^ np.uint64(e)]))[0] % np.uint64(len(pool)))
        window = np.roll(pool, -start)[:NEGATIVES]
        chosen = [row] + [other for other in window if other != row and other not in history]
        logits = b[chosen] + q[chosen] @ z
        logits[1:] += np.log((n_items - 1) / (len(chosen) - 1))
        gradient = np.exp(logits - logits.max())
        gradient /= gradient.sum()
        gradient[0] -= 1.0
        gz = np.zeros(FACTORS, np.float32)
        for each, slope in zip(chosen, gradient, strict=True):
            gz += slope * q[each]
            step(q, acc, each, np.float32(slope) * z.astype(np.float32))
            b[each] -= 0.3 * (slope + 0.001 * b[each])
        for held, share in zip(recent, shares, strict=True):
            step(q, acc, held, share * gz)
        step(p, pacc, slot, gz)


def step(vectors: Float32Array, acc: Float32Array, row: int, gradient: Float32Array) -> None:
    """Take one AdaGrad step with an accumulator a row."""
    gradient = gradient + 0.001 * vectors[row]
    acc[row] += np.mean(gradient**2)
    vectors[row] -= 0.1 * gradient / np.sqrt(acc[row] + 1e-3)


def users() -> tuple[Float32Array, Float32Array]:
    return np.zeros((USERS, FACTORS), np.float32), np.zeros(USERS, np.float32)


@pytest.mark.parametrize("pool_size", [3, 40, 200])
def test_learn_batch_equals_the_reference(pool_size: int) -> None:
    events = stream(80)
    pool = np.random.default_rng(2).integers(0, ITEMS, pool_size).astype(np.int32)
    fast, slow = model(), model()
    (p, pacc), (slow_p, slow_pacc) = users(), users()
    usable = np.array([np.setdiff1d(pool, [row, *history]).size > 0 for _, history, row in zip(*events, strict=True)])
    kept = events[0][usable], events[1][usable], events[2][usable]
    fast.learn_batch(p, pacc, *kept, pool, 50, 9)
    reference(slow, slow_p, slow_pacc, kept, pool, 50, 9)
    for name, column in fast.columns.items():
        np.testing.assert_allclose(column, slow.columns[name], rtol=2e-3, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(p, slow_p, rtol=2e-3, atol=2e-5)
    assert np.abs(p).max() > 0.05


def test_a_batch_equals_its_events_one_by_one() -> None:
    slots, histories, rows = stream(100)
    pool = np.arange(0, ITEMS, dtype=np.int32)
    batch, single = model(), model()
    (p, pacc), (single_p, single_pacc) = users(), users()
    batch.learn_batch(p, pacc, slots, histories, rows, pool, ITEMS, 3, first=10)
    for e in range(100):
        one = slice(e, e + 1)
        single.learn_batch(single_p, single_pacc, slots[one], histories[one], rows[one], pool, ITEMS, 3, first=10 + e)
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(single.columns[name], column, err_msg=name)
    np.testing.assert_array_equal(p, single_p)
    np.testing.assert_array_equal(pacc, single_pacc)


def test_only_the_promised_rows_are_touched() -> None:
    made = model()
    before = {name: column.copy() for name, column in made.columns.items()}
    histories = np.full((1, HISTORY), EMPTY, np.int32)
    histories[0, :12] = np.arange(12)
    negatives = np.array([30, 31], np.int32)
    made.learn_batch(*users(), np.zeros(1, np.int32), histories, np.array([20], np.int32), negatives, ITEMS, 1)
    touched = [
        row for row in range(ITEMS) if any((before[name][row] != made.columns[name][row]).any() for name in before)
    ]
    assert touched == [*range(LAGS), 20, 30, 31]


def test_an_event_without_usable_negatives_changes_nothing() -> None:
    made = model()
    before = made.columns["q"].copy()
    events = np.zeros(1, np.int32), np.full((1, HISTORY), EMPTY, np.int32), np.array([4], np.int32)
    made.learn_batch(*users(), *events, np.array([4, 4], np.int32), ITEMS, 1)
    made.learn_batch(*users(), *events, np.empty(0, np.int32), ITEMS, 1)
    np.testing.assert_array_equal(made.columns["q"], before)


def test_learning_a_sequence_ranks_its_next_item_first() -> None:
    made = model()
    p, pacc = users()
    histories = np.full((1, HISTORY), EMPTY, np.int32)
    for e in range(300):
        held = e % 2
        histories[0, 0] = held
        row = np.array([10 + held], np.int32)
        made.learn_batch(p, pacc, np.zeros(1, np.int32), histories, row, np.arange(ITEMS, dtype=np.int32), ITEMS, 1, e)
    for held in range(2):
        out = np.empty(ITEMS, np.float32)
        made.scores(made.user_vector(p[0], np.array([held], np.int32)), out)
        assert int(out.argmax()) == 10 + held


@pytest.mark.parametrize(
    ("slot", "row", "held", "negative"), [(5, 0, 0, 0), (0, 60, 0, 0), (0, 0, 60, 0), (0, 0, 0, 60)]
)
def test_rows_out_of_range_are_refused(slot: int, row: int, held: int, negative: int) -> None:
    made = model()
    histories = np.full((1, HISTORY), held, np.int32)
    rows = np.array([row], np.int32)
    with pytest.raises(ModelError):
        made.learn_batch(
            *users(), np.array([slot], np.int32), histories, rows, np.array([negative], np.int32), ITEMS, 1
        )


def test_a_wrong_dtype_is_an_error_not_a_conversion() -> None:
    made = model()
    slots, histories, rows = stream(1)
    with pytest.raises(TypeError):
        made.learn_batch(*users(), slots, histories, rows.astype(np.int64), rows, ITEMS, 1)


def test_first_vectors_depend_on_seed_and_id_alone() -> None:
    ids = np.array([5, 2**63, 12, 5], np.uint64)
    vectors = initial_vector(1, ids)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[0], vectors[3])
    np.testing.assert_array_equal(initial_vector(1, ids[::-1].copy()), vectors[::-1])
    assert not np.allclose(initial_vector(2, ids), vectors)


def test_first_vectors_are_normal_and_independent() -> None:
    vectors = initial_vector(1, np.arange(20_000, dtype=np.uint64)).astype(np.float64) / 0.03
    assert abs(vectors.mean()) < 0.01
    np.testing.assert_allclose(vectors.std(axis=0), 1.0, atol=0.03)
    np.testing.assert_allclose((vectors**4).mean(), 3.0, atol=0.1)
    correlation = np.corrcoef(vectors, rowvar=False) - np.eye(FACTORS)
    assert np.abs(correlation).max() < 0.05
