from collections import Counter

from bench.restore import changed, of_one_table, rates
from bench.state_rows import MEAN_SEEN, PARTITIONS, make_rows
from state import rows
from state.engine import Engine, EngineOptions
from topics.partitions import partition_of


def test_made_up_rows_are_rows_of_state() -> None:
    made = list(make_rows(20_000))
    assert abs(len(made) - 20_000) <= 3 + PARTITIONS
    keys = Counter((table, key) for table, _, key, _ in made)
    cuts = keys.pop(("users", rows.CUT_KEY))
    assert cuts == PARTITIONS
    assert max(keys.values()) == 1, "a row that comes twice is restored once"
    assert [(table, partition) for table, partition, key, _ in made[-PARTITIONS:] if key == rows.CUT_KEY] == [
        ("users", partition) for partition in range(PARTITIONS)
    ]
    users = [rows.read_user(value) for table, _, key, value in made if key.startswith(rows.USER)]
    assert len(users) > 16_000
    assert abs(sum(len(user["seen"]) for user in users) / len(users) - MEAN_SEEN) < 5
    assert all(partition == partition_of(key[2:], PARTITIONS) for _, partition, key, _ in made[:-PARTITIONS])


def test_made_up_rows_of_videos_load_into_a_replica() -> None:
    items = [(key, value) for table, _, key, value in make_rows(3_000) if table == "items"]
    engine = Engine(EngineOptions(max_videos=200), b"test")
    engine.take_rows(items)
    assert len(engine.replica) * 3 == len(items) == 450
    links = (engine.covisitation.columns["neighbour"][:150] >= 0).sum(axis=1)
    assert links.min() < 30 < links.max(), "lists differ in length"
    assert all(engine.replica.described(row) for row in range(len(engine.replica)))


def test_stock_gets_the_same_rows_under_keys_of_its_own() -> None:
    made = list(make_rows(500))
    stock = of_one_table(made)
    assert len({key for _, _, key, _ in stock}) == len(stock) == len(made)
    assert [value for *_, value in stock] == [value for *_, value in made]
    assert changed(made, 3) == made[-3:]


def test_rates_are_medians_and_the_ratio_is_theirs() -> None:
    ours = [{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 4.0}]
    found = rates(1_000, ours, [{"seconds": 10.0}])
    assert (found["rows_per_s"], found["stock_faust_rows_per_s"]) == (500.0, 100.0)
    assert found["ratios"] == {"stock_faust": 5.0}
    assert "ratios" not in rates(1_000, ours, [])
