import json
from typing import Any

import pytest

from agents import ranking
from bench import learning
from bench.brokerless import BrokerlessWorker
from bench.learning import QUICK, Timed, learn, micro_batches, targets
from ingestion.simulate import Audience
from state.engine import EngineOptions


def worker(audience: Audience) -> BrokerlessWorker:
    made = BrokerlessWorker(EngineOptions(partitions=4, max_users=100, max_videos=100))
    made.publish(audience.videos())
    return made


def test_micro_batches_are_whole_of_one_partition_and_keep_its_order() -> None:
    audience = Audience(seed=1, users=50, videos=60)
    batches = list(micro_batches(worker(audience), audience.events(1_000), size=100))
    assert sum(map(len, batches)) == 1_000
    assert all(len({partition for partition, _ in batch}) == 1 for batch in batches)
    assert sum(len(batch) < 100 for batch in batches) <= 4, "only the last of each partition"
    for partition in range(4):
        offsets = [record.offset for batch in batches for at, record in batch if at == partition]
        assert offsets == list(range(len(offsets)))


def test_stretches_add_up_to_the_whole() -> None:
    audience = Audience(seed=1, users=50, videos=60)
    mine = worker(audience)
    real = ranking.learn
    found = learn(mine, audience.events(9_100), 9_100, 3_000)
    assert ranking.learn is real, "a timer that stays would count what others learn"
    assert [part["events"] for part in found["stretches"]] == [3_000, 3_000, 3_100]
    assert found["events"] == 9_100
    totals = mine.engine.totals()
    assert found["positives"] == totals["positives"] == sum(part["positives"] for part in found["stretches"]) > 500
    assert found["lessons"]["learned"] == mine.engine.lessons["learned"] > 0
    assert found["lessons"]["learned"] == sum(part["lessons"]["learned"] for part in found["stretches"])
    assert found["taught_share"] == pytest.approx(found["lessons"]["learned"] / found["positives"], abs=1e-4)
    assert 0 < found["ranker_us"] < found["us"]
    assert found["ranker_share"] == pytest.approx(found["ranker_us"] / found["us"], abs=0.01)


def test_a_timer_counts_calls_and_gives_results_and_errors_on() -> None:
    class Module:
        @staticmethod
        def work(n: int) -> int:
            return 10 // n

    module = Module()
    with Timed(module, "work") as timed:
        assert module.work(5) == 2
        with pytest.raises(ZeroDivisionError):
            module.work(0)
    assert timed.calls == 2
    assert module.work(5) == 2
    assert timed.calls == 2


def test_targets_are_of_the_whole_of_the_last_stretch_and_of_medians() -> None:
    learned = {"simulated": {"us": 99.0, "stretches": [{"us": 300.0}, {"us": 25.0}]}}
    small: dict[str, Any] = {"videos": 6_000, "search": "exact", "rank_ms": {"p50": 0.6, "p99": 9.0}}
    large = {"videos": 100_000, "search": "index", "rank_ms": {"p50": 1.9, "p99": 9.0}}
    found = targets(learned, [small, large])
    assert {name: target["reached"] for name, target in found.items()} == {
        "learn_us": False,
        "learn_us_last": True,
        "learn_us_aim": False,
        "rank_ms_6000": False,
        "rank_ms_100000": True,
    }
    assert set(targets(learned, [small, small])) == {"learn_us", "learn_us_last", "learn_us_aim", "rank_ms_6000"}


def test_a_quick_run_has_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    learning.main(["--quick", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    simulated = found["learning"]["simulated"]
    assert simulated["events"] == QUICK.events == sum(part["events"] for part in simulated["stretches"])
    assert [ranked["videos"] for ranked in found["ranking"]] == [videos for videos, _ in QUICK.catalogues]
    for ranked in found["ranking"]:
        assert ranked["lists"] == QUICK.lists
        for name in ("score_rows_ms", "rank_ms"):
            assert 0 < ranked[name]["p50"] <= ranked[name]["p99"]
    assert {"learn_us", "learn_us_last", "learn_us_aim", "rank_ms_300"} == set(found["targets"])
    assert all({"at_most", "measured", "reached"} == set(target) for target in found["targets"].values())
    assert found["n"] == QUICK.lists
