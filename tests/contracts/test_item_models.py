"""What every item model keeps, whatever it learns."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import online_models
from online_models import MODELS
from online_models.base import FACTORS, Context, Int32Array, ItemModel, ModelError
from online_models.content import DIMENSIONS, ContentModel

ITEMS = 24
ROWS = np.arange(ITEMS, dtype=np.int32)
GROUP = 6
"""Rows that one kind of user keeps to: 0 to 5, 6 to 11, and so on."""


def make(name: str, seed: int = 5, capacity: int = ITEMS) -> ItemModel:
    """Make a model whose rows hold items, those of one group with like content."""
    model = MODELS[name](capacity, seed)
    rows = np.arange(capacity, dtype=np.int32)
    model.admit(rows, rows.astype(np.uint64) + np.uint64(1_000))
    if isinstance(model, ContentModel):
        vectors = np.zeros((capacity, DIMENSIONS), np.float32)
        vectors[rows, rows // GROUP] = 1.0
        model.describe(rows, vectors)
    return model


def context(history: list[int], ticks: float = 0.0) -> Context:
    segments = np.array([1, 0], np.uint64)
    return Context(np.array(history, np.int32), np.zeros(FACTORS, np.float32), ticks, segments=segments)


def teach(model: ItemModel, events: int = 400, group: int = 1) -> None:
    """Let users who stay in one group's rows choose on and on."""
    rng = np.random.default_rng(0)
    history: list[int] = []
    for e in range(events):
        row = group * GROUP + int(rng.integers(GROUP))
        model.learn_one(context(history, float(e)), row, float(e))
        history = [row, *history][:20]


@pytest.fixture(params=sorted(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_model_class_of_the_package_is_registered() -> None:
    registered = {type(make(model)) for model in MODELS}
    for module in pkgutil.walk_packages(online_models.__path__, "online_models."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(found, ItemModel) and not inspect.isabstract(found):
                assert found in registered, f"{found.__module__}.{found.__name__} is missing in online_models.MODELS"


def test_registered_under_its_own_name(name: str) -> None:
    assert make(name).name == name


def test_columns_have_a_row_for_each_item_and_references_are_row_numbers(name: str) -> None:
    model = make(name)
    teach(model)
    assert {len(column) for column in model.columns.values()} == {ITEMS} == {model.capacity}
    for reference in model.references:
        column = model.columns[reference]
        assert column.dtype == np.int32
        assert column.min() >= -1
        assert column.max() < ITEMS


def test_reads_are_pure_and_leave_inputs_alone(name: str) -> None:
    model = make(name)
    teach(model, 50)
    before = {key: column.copy() for key, column in model.columns.items()}
    asked = Context(np.array([6, 7], np.int32), np.ones(FACTORS, np.float32), 60.0)
    rows = ROWS.copy()
    first, second = model.score_many(asked, rows), model.score_many(asked, rows)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(asked.p, np.ones(FACTORS, np.float32))
    assert asked.history.tolist() == [6, 7]
    for key, column in model.columns.items():
        np.testing.assert_array_equal(column, before[key], err_msg=key)


def test_learning_leaves_the_context_alone(name: str) -> None:
    model = make(name)
    asked = Context(np.array([6, 7], np.int32), np.ones(FACTORS, np.float32), 1.0)
    model.learn_one(asked, 8, 1.0)
    assert asked.history.tolist() == [6, 7]
    np.testing.assert_array_equal(asked.p, np.ones(FACTORS, np.float32))


def test_scores_are_finite_float32_in_input_order(name: str) -> None:
    model = make(name)
    teach(model, 50)
    rows = np.array([9, 3, 9, 0], np.int32)
    scores = model.score_many(context([6, 7], 50.0), rows)
    assert scores.dtype == np.float32
    assert scores.shape == (4,)
    assert np.isfinite(scores).all()
    everything = model.score_many(context([6, 7], 50.0), ROWS)
    np.testing.assert_allclose(scores, everything[rows], rtol=1e-6, atol=1e-7)
    assert model.score_many(context([6], 50.0), np.empty(0, np.int32)).shape == (0,)


def test_scores_do_not_alias_the_state(name: str) -> None:
    model = make(name)
    teach(model, 50)
    before = {key: column.copy() for key, column in model.columns.items()}
    model.score_many(context([6], 50.0), ROWS)[:] = 99.0
    for key, column in model.columns.items():
        np.testing.assert_array_equal(column, before[key], err_msg=key)


def test_the_same_seed_and_events_give_the_same_scores(name: str) -> None:
    one, two = make(name), make(name)
    teach(one)
    teach(two)
    np.testing.assert_array_equal(
        one.score_many(context([6, 7], 400.0), ROWS), two.score_many(context([6, 7], 400.0), ROWS)
    )


def test_a_restored_model_scores_and_learns_as_the_original(name: str) -> None:
    original, restored = make(name), MODELS[name](0, 5)
    teach(original)
    restored.restore(original.columns)
    for _ in range(2):
        asked = context([6, 7], 400.0)
        np.testing.assert_array_equal(restored.score_many(asked, ROWS), original.score_many(asked, ROWS))
        teach(original, 30)
        teach(restored, 30)


def test_restore_copies_and_checks(name: str) -> None:
    model = make(name)
    columns = {key: column.copy() for key, column in model.columns.items()}
    model.restore(columns)
    for key, column in columns.items():
        assert not np.shares_memory(column, model.columns[key])
    key = next(iter(columns))
    with pytest.raises(ModelError, match="columns"):
        model.restore({other: column for other, column in columns.items() if other != key})
    with pytest.raises(ModelError, match="another version"):
        model.restore({**columns, key: columns[key].astype(np.float16)})


def test_learning_beats_the_prior(name: str) -> None:
    model = make(name)
    teach(model)
    scores = model.score_many(context([6, 7, 8], 400.0), ROWS)
    own = (ROWS // GROUP == 1) & ~np.isin(ROWS, [6, 7, 8])
    assert scores[own].min() > scores[ROWS // GROUP != 1].max()


def test_an_unseen_item_has_a_neutral_score(name: str) -> None:
    model = make(name)
    teach(model)
    model.forget(ROWS[-2:])
    scores = model.score_many(context([6, 7], 400.0), ROWS)
    assert np.isfinite(scores[-2:]).all()
    assert scores[-1] == scores[-2]
    assert scores[-1] < scores[9]


def test_forgetting_returns_rows_to_the_prior_and_unnames_them(name: str) -> None:
    model, fresh = make(name), MODELS[name](ITEMS, 5)
    teach(model)
    gone = np.array([7, 9], np.int32)
    model.forget(gone)
    for key, column in model.columns.items():
        np.testing.assert_array_equal(column[gone], fresh.columns[key][gone], err_msg=key)
    for reference in model.references:
        assert not np.isin(model.columns[reference], gone).any()


def test_growing_keeps_what_was_learned(name: str) -> None:
    model = make(name)
    teach(model)
    asked = context([6, 7], 400.0)
    before = model.score_many(asked, ROWS)
    model.resize(ITEMS + 9)
    np.testing.assert_array_equal(model.score_many(asked, ROWS), before)
    assert model.capacity == ITEMS + 9
    model.admit(np.array([ITEMS], np.int32), np.array([77], np.uint64))
    model.learn_one(asked, ITEMS, 401.0)


def test_shrinking_leaves_no_reference_to_cut_rows(name: str) -> None:
    model = make(name)
    teach(model, group=3)
    teach(model, group=1)
    model.resize(20)
    assert model.capacity == 20
    for reference in model.references:
        assert model.columns[reference].max() < 20
    assert model.score_many(context([6], 400.0), np.arange(20, dtype=np.int32)).shape == (20,)


def test_time_that_steps_back_harms_nothing(name: str) -> None:
    model = make(name)
    for ticks in (0.0, 1e9, -1e9, 5.0, 1e9):
        model.learn_one(context([6, 7], ticks), 8, ticks)
    for ticks in (-1e9, 0.0, 1e9, 1e12):
        assert np.isfinite(model.score_many(context([6, 7], ticks), ROWS)).all()


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"content"}))  # it learns nothing from events
def test_a_row_outside_is_refused(name: str) -> None:
    model = make(name)
    before: dict[str, Int32Array] = {key: column.copy() for key, column in model.columns.items()}
    with pytest.raises(ModelError):
        model.learn_one(context([6], 1.0), ITEMS, 1.0)
    for key, column in model.columns.items():
        np.testing.assert_array_equal(column, before[key], err_msg=key)


def test_a_negative_capacity_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        MODELS[name](-1, 1)
    with pytest.raises(ModelError):
        make(name).resize(-1)
