"""The app's part of the protocol with a broker of lists: handing shards on, and waiting for room."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from agents import app as app_module
from agents.app import HeadraceApp
from agents.scoring import Scorer
from agents.worker import create_app
from infra import metrics
from infra.settings import Settings
from state.engine import Engine
from state.prediction import INPUT_NAMES
from state.rows import CUT_KEY, Cut, decode_cut
from state.shard import Shard
from state.store import MemoryStore
from tests.agents.world import NOW_MS, Record, World, liked, world
from topics.recommendations import encode_list
from topics.specs import INTERACTIONS, RECOMMENDATIONS


class ListWriter:
    """A shard's writer whose transactions land in the world's logs and stores, and take as long as `gate` is closed."""

    def __init__(self, state: World) -> None:
        self.state = state
        self.gate = asyncio.Event()
        self.gate.set()
        self._lock = asyncio.Lock()

    async def checkpoint(self, engine: Engine, shard: Shard) -> float:
        async with self._lock:
            if not shard.dirty:
                return 0.0
            taken = shard.swap(engine.users, engine.replica, engine.origin)
            await asyncio.sleep(0)
            await self.gate.wait()
            for target, block in taken.blocks:
                self.state.append(self.evidence, target, None, block)
            self.state.dead += taken.dead
            shard.users_store.write(taken.users, 0)
            shard.items_store.write(taken.items, 0)
            engine.users.unpin(taken.pinned)
            return 0.001

    evidence = "headrace.v1.evidence"

    def give_up(self, reason: Exception) -> None:
        """Nothing to refuse."""

    async def stop(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def state() -> World:
    return world(partitions=2)


def build(state: World, folder: Path, monkeypatch: pytest.MonkeyPatch, max_users: int = 1_000) -> HeadraceApp:
    monkeypatch.chdir(folder)
    settings = Settings(home=folder, partitions=2, max_users=max_users, checkpoint_interval_ms=10)
    app = create_app(settings, "127.0.0.1:1")

    async def take_over(
        _bootstrap: str, _topics: object, partition: int, _folder: Path, _start: object
    ) -> tuple[ListWriter, Shard]:
        users, items = state.stores.setdefault(partition, (MemoryStore(), MemoryStore()))
        data = users.get(CUT_KEY)
        return ListWriter(state), Shard(partition, users, items, Cut({}) if data is None else decode_cut(data))

    monkeypatch.setattr(app_module, "take_over", take_over)
    return app


def due(app: HeadraceApp, state: World, topic: str, partition: int) -> list[Record]:
    following = app.engine.shards[partition].next.get(topic, 0)
    return [record for record in state.log(topic, partition) if record.offset >= following]


async def settle(app: HeadraceApp, state: World) -> None:
    for _ in range(6):
        for partition in (0, 1):
            for topic in (INTERACTIONS, ListWriter.evidence):
                await app.apply(topic, partition, due(app, state, topic, partition))
            await app.checkpoint(partition)


async def test_nothing_is_learned_behind_the_last_checkpoint(
    state: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters of a video that has no row yet would otherwise keep what the next owner of the shard counts again."""
    app = build(state, tmp_path, monkeypatch)
    await app.take_over({0, 1})
    state.send(*(liked(f"user{n}", f"video{n % 7}", n) for n in range(200)))
    for partition in (0, 1):
        await app.apply(INTERACTIONS, partition, due(app, state, INTERACTIONS, partition)[:50])
        await app.checkpoint(partition)
    # Only catalogue positions and evidence are left to learn: hold the last checkpoint open, and deliver more meanwhile.
    for partition in (0, 1):
        await app.apply(INTERACTIONS, partition, due(app, state, INTERACTIONS, partition)[:1])
        writer = app.writers[partition]
        assert isinstance(writer, ListWriter)
        writer.gate.clear()
        release = asyncio.create_task(app._release(partition))
        await asyncio.sleep(0.01)
        for topic in (ListWriter.evidence, INTERACTIONS):
            await app.apply(topic, partition, due(app, state, topic, partition))
        writer.gate.set()
        await release
    assert not app.engine.shards
    await app.take_over({0, 1})
    await settle(app, state)
    assert app.engine.totals()["learned"] == 200
    plays = app.engine.popularity.columns["plays"]
    assert {n: plays[app.engine.replica.row_of(f"video{n}")] for n in range(7)} == {
        n: len(range(n, 200, 7)) for n in range(7)
    }


async def test_served_factors_equal_the_owners_after_a_shard_comes_back(
    state: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps sent before the shards were let go come back afterwards: into rows that no longer hold them."""
    app = build(state, tmp_path, monkeypatch)
    await app.take_over({0, 1})
    state.send(*(liked(f"user{n % 20}", f"video{n % 17}", n) for n in range(300)))
    for partition in (0, 1):
        await app.apply(INTERACTIONS, partition, due(app, state, INTERACTIONS, partition))
        await app._release(partition)
    await app.take_over({0, 1})
    await settle(app, state)
    replica, served = app.engine.replica, app.engine.mf.columns
    n = len(replica)
    assert np.abs(replica.base["q"][:n]).max() > 0.1
    for name, base in replica.base.items():
        np.testing.assert_allclose(served[name][:n], base[:n], rtol=1e-4, atol=1e-5)


async def test_more_users_than_slots_wait_for_a_checkpoint(
    state: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer slots than a chunk has users, and than the two shards have between two checkpoints."""
    app = build(state, tmp_path, monkeypatch, max_users=30)
    await app.take_over({0, 1})
    state.send(*(liked(f"user{n % 150}", f"video{n % 17}", n) for n in range(600)))
    await asyncio.wait_for(
        asyncio.gather(*(app.apply(INTERACTIONS, p, due(app, state, INTERACTIONS, p)) for p in (0, 1))), 20
    )
    await settle(app, state)
    totals = app.engine.totals()
    assert (totals["learned"], totals.get("dead", 0), state.dead) == (600, 0, [])
    assert len(app.engine.users) <= 30


async def test_taking_over_again_and_seeking_back_change_nothing(
    state: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust may start its recovery twice for one assignment, and seeks as often as it likes (step 4)."""
    app = build(state, tmp_path, monkeypatch)
    await app.take_over({0, 1})
    shards, writers = dict(app.engine.shards), dict(app.writers)
    state.send(*(liked(f"user{n % 20}", f"video{n % 17}", n) for n in range(300)))
    await settle(app, state)
    await app.take_over({0, 1})
    assert (app.engine.shards, app.writers) == (shards, writers)
    plays = app.engine.popularity.columns["plays"].copy()
    for first in (0, 37):
        for partition in (0, 1):
            for topic in (INTERACTIONS, ListWriter.evidence):
                await app.apply(topic, partition, state.log(topic, partition)[first:])
                await app.checkpoint(partition)
    assert app.engine.totals()["learned"] == 300
    assert app.engine.totals().get("duplicate", 0) == 0
    np.testing.assert_array_equal(app.engine.popularity.columns["plays"], plays)


async def test_a_clock_that_was_set_back_is_not_before_what_is_applied(
    state: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(state, tmp_path, monkeypatch)
    await app.take_over({0, 1})
    state.send(*(liked(f"user{n}", "video", n) for n in range(20)))
    await settle(app, state)
    arrived_ms = state.log(INTERACTIONS, 0)[-1].timestamp
    assert app.as_of_ms(0, arrived_ms + 5) == arrived_ms + 5
    assert app.as_of_ms(0, arrived_ms - 30 * 3_600_000) == arrived_ms


async def test_a_worker_measures_its_lists_and_says_so_in_its_metrics(
    state: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(state, tmp_path, monkeypatch)
    assert app.scorer.budget.share == Settings().scoring_share == 0.1
    app.scorer = Scorer(1.0, app.engine.options.seed)
    await app.take_over({0, 1})
    state.send(*(liked(f"user{n % 20}", f"video{n % 17}", n) for n in range(300)))
    await settle(app, state)
    scored = app.scorer.windows.scored
    assert scored == app.engine.totals()["positives"] == len({(n % 20, n % 17) for n in range(300)})
    # All evidence has come back.
    assert app.engine.awaited == 0
    app.publish_metrics()
    assert metrics.REGISTRY.get_sample_value("headrace_online_scored") == scored
    # Evidence that was under way when the shards were let go is not waited for.
    state.send(*(liked(f"late{n}", f"video{n % 17}", 1_000 + n) for n in range(40)))
    for partition in (0, 1):
        await app.apply(INTERACTIONS, partition, due(app, state, INTERACTIONS, partition))
    assert app.engine.awaited == 40
    for partition in (0, 1):
        await app._release(partition)
    await app.take_over({0, 1})
    await settle(app, state)
    assert app.engine.awaited == 0


def test_a_version_that_is_built_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app(Settings(home=tmp_path, partitions=2), "127.0.0.1:1", until={})
    assert app.scorer.budget.share == 0.0


async def test_lists_wait_for_the_events_before_them_and_for_no_others(
    state: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(state, tmp_path, monkeypatch)
    await app.take_over({0, 1})
    everything = False
    monkeypatch.setattr(HeadraceApp, "_has_all", lambda _app, _partition: everything)
    user = next(user for user in (f"user{n}" for n in range(99)) if state.partition_of(user) == 0)
    for number in range(9):
        state.arrival_ms = NOW_MS + 1_000 * number
        state.send(liked(user, f"video{number}", number, event="view", at_ms=state.arrival_ms))
        state.arrival_ms += 1
        value = encode_list("r", state.arrival_ms, "owner", ["video1"], [], INPUT_NAMES, None)
        state.append(RECOMMENDATIONS, 0, user.encode(), value)
    shard, lists, events = app.engine.shards[0], state.log(RECOMMENDATIONS, 0), state.log(INTERACTIONS, 0)
    await app.apply(RECOMMENDATIONS, 0, lists[:5])
    assert len(shard.served) == 0
    assert shard.next.get(RECOMMENDATIONS, 0) == 0, "what is held is not in the cut"
    await app.apply(INTERACTIONS, 0, events[:3])
    assert shard.next[RECOMMENDATIONS] == lists[1].offset + 1
    # Fetched once more, as after a rebalance.
    await app.apply(RECOMMENDATIONS, 0, lists)
    await app.apply(INTERACTIONS, 0, events[3:8])
    assert shard.next[RECOMMENDATIONS] == lists[6].offset + 1
    assert app.engine.exposures["listed"] == 7
    # Nothing before the others is waiting: they need no event that follows them.
    await app.apply(INTERACTIONS, 0, events[8:])
    everything = True
    reading = asyncio.create_task(app.keep_reading_lists())
    await asyncio.sleep(5 * app_module.LISTS_PAUSE_S)
    reading.cancel()
    assert app.engine.exposures["listed"] == 9
    assert shard.arrived_ms == lists[-1].timestamp
