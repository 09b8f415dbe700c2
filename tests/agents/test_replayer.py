"""The canonical replay of logs in memory, and its comparison with an engine that learned them in another order, by halves."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agents.replayer import Replayer
from cli.canonical import digests_of, rows_of
from cli.recount import Recount
from cli.snapshot import ShardRows, Snapshot, _count_late
from cli.verify_compare import Comparison, compare_counters, overlaps
from infra.settings import Settings
from state import rows
from state.digest import digests
from state.engine import EngineOptions
from state.users import KINDS
from tests.agents.world import EVIDENCE, NOW_MS, TOLERANCE_MS, World, WorldLog, liked, random_events, world
from topics.catalog import User, Video
from topics.interactions import Interaction, event_code
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS


def replayed(state: World, until: dict[str, dict[int, int]] | None = None) -> Replayer:
    replayer = Replayer(state.options, TOLERANCE_MS)
    replayer.run(WorldLog(state, until))
    return replayer


def snapshot(state: World) -> Snapshot:
    """What the world has committed, as `take_snapshot` reads it of a broker."""
    logs = {partition: state.log(EVIDENCE, partition) for partition in state.partitions}
    ends = {partition: log[-1].offset + 1 if log else 0 for partition, log in logs.items()}
    shards = {
        partition: ShardRows({key: row for store in stores for key, row in store.scan(b"")}, ends)
        for partition, stores in state.stores.items()
    }
    found = Snapshot(shards)
    for partition in state.partitions:
        for record in state.log(EVIDENCE, partition):
            _count_late(found, EVIDENCE, Read(partition, record.offset, record.value))  # type: ignore[arg-type] # as read
    return found


class Read:
    """A record as a consumer gives it."""

    def __init__(self, partition: int, offset: int, value: bytes | None) -> None:
        self.partition, self.offset, self.value = (lambda: partition), (lambda: offset), (lambda: value)


def compared(state: World, slack: Counter[tuple[str, int]] | None = None) -> Comparison:
    live = snapshot(state)
    replayer = replayed(state, live.places((INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS)))
    return compare_counters(live, replayer, rows_of(replayer), slack)


def filled(events: list[Interaction], **options: int) -> World:
    state = world(**options)
    for number in range(30):
        state.put(f"video{number}", Video(title=f"Video {number}"))
    state.describe("user1", User(country="no"))
    state.send(*events)
    for partition in state.partitions:
        state.append(INTERACTIONS, partition, b"user1", b"{")
    return state


def test_it_counts_what_a_recount_counts() -> None:
    events = random_events(1, 3_000)
    replayer = replayed(filled(events))
    recount = Recount(events)
    table = rows_of(replayer)
    users = {key[2:].decode(): rows.read_user(row) for (_, key), row in table.items() if key[:2] == rows.USER}
    assert users.keys() == recount.users.keys()
    for user_id, plain in recount.users.items():
        assert users[user_id]["counts"].tolist() == [plain.counts[kind] for kind in range(KINDS)]
        assert users[user_id]["history"] == plain.history
    videos = {key[2:].decode(): rows.read_item(row) for (_, key), row in table.items() if key[:2] == rows.ITEM}
    for video_id in {video_id for video_id, _ in recount.items}:
        assert videos[video_id]["counts"].tolist() == [recount.items[video_id, kind] for kind in range(KINDS)]
        assert videos[video_id]["plays"] == recount.plays[video_id]
    assert replayer.engine.totals()["dead"] == 4
    assert not any(shard.dead for shard in replayer.shards)


def test_users_that_do_not_fit_into_memory_change_what_is_exact_in_nothing() -> None:
    events = random_events(2, 3_000)
    few, many = rows_of(replayed(filled(events, max_users=8))), rows_of(replayed(filled(events)))
    users = {place for place in many if place[1].startswith(rows.USER)}
    assert users == {place for place in few if place[1].startswith(rows.USER)}
    assert len(users) == 25
    for place in users:
        one, other = rows.read_user(few[place]), rows.read_user(many[place])
        assert one["history"] == other["history"]
        assert one["seen"].tolist() == other["seen"].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_learned_by_halves_in_another_order_has_equal_counters(seed: int) -> None:
    """Checkpoints at any moment, evidence that waits, and events that no checkpoint holds yet."""
    state = filled(random_events(seed, 2_000))
    random_ = random.Random(seed)
    for _ in range(60):
        partition = random_.randrange(4)
        state.step(
            random_.choice([INTERACTIONS, INTERACTIONS, EVIDENCE, VIDEOS, USERS]), partition, random_.randrange(90)
        )
        if random_.random() < 0.4:
            state.checkpoint(partition)
    found = compared(state)
    assert found.differences == []
    assert found.users > 10
    assert found.videos > 10
    live = snapshot(state)
    assert sum(live.late.values()) > 0
    state.settle()
    assert compared(state).differences == []


def test_evidence_that_rows_of_videos_are_ahead_by_is_taken_off() -> None:
    """Shards are read one after another: one that was read later may hold what another has taught since."""
    state = filled(random_events(4, 600))
    state.settle()
    early = snapshot(state)
    state.send(*(liked("user3", f"video{n}", 10_000 + n) for n in range(25)))
    state.settle()
    late = snapshot(state)
    sender = state.partition_of("user3")
    mixed = Snapshot({**late.shards, sender: early.shards[sender]})
    for partition in state.partitions:
        for record in state.log(EVIDENCE, partition):
            _count_late(mixed, EVIDENCE, Read(partition, record.offset, record.value))  # type: ignore[arg-type] # as read
    assert sum(mixed.late.values()) < 0
    replayer = replayed(state, mixed.places((INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS)))
    assert compare_counters(mixed, replayer, rows_of(replayer)).differences == []


def test_a_changed_row_is_found_and_named() -> None:
    state = filled(random_events(5, 800))
    state.settle()
    live = snapshot(state)
    user = rows.USER + b"user3"
    held = live.shards[state.partition_of("user3")].rows
    row = np.frombuffer(bytearray(held[user]), rows._USER, 1)
    row["counts"][0, 2] += 1
    held[user] = row.tobytes() + held[user][row.nbytes :]
    video = rows.ITEM + b"video7"
    held = live.shards[state.partition_of("video7")].rows
    row = np.frombuffer(bytearray(held[video][: rows.ITEM_BYTES]), rows._ITEM, 1)
    row["counts"][0, 1] -= 1
    held[video] = row.tobytes() + held[video][rows.ITEM_BYTES :]
    replayer = replayed(state)
    found = compare_counters(live, replayer, rows_of(replayer))
    assert [difference.split(":")[0] for difference in found.differences] == [
        "user user3, counters",
        "video video7, counters",
    ]


def test_what_was_deleted_or_erased_is_left_out_and_the_rest_compared() -> None:
    events = random_events(6, 1_500)
    state = filled(events)
    for partition in state.partitions:
        state.step(VIDEOS, partition)
        state.step(INTERACTIONS, partition, 300)
    state.arrival_ms = NOW_MS + 1
    state.put("video3", None)
    state.put("video4", None)
    state.put("video4", Video(title="Back"))
    state.describe("user2", User(erased_ms=NOW_MS - 10**8))
    state.settle()
    erased = Counter((event.video_id, event_code(event.event)) for event in events if event.user_id == "user2")
    found = compared(state, erased)
    assert found.differences == []
    assert found.left_out == 3
    assert compared(state).differences


def test_lists_of_two_versions_of_one_log_have_most_in_common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    state = filled(random_events(7, 3_000))
    state.settle()
    replayer = replayed(state)
    settings = Settings(max_users=1_000, max_videos=1_000)
    found = overlaps(settings, snapshot(state), replayer, rows_of(replayer))
    assert found["vectors"]["users"] == 25
    assert 0.5 < found["vectors"]["p10"] <= found["vectors"]["mean"] <= 1.0
    assert found["lists"]["mean"] > 0.5


def test_digests_are_of_parts_and_of_nothing_else() -> None:
    state = filled(random_events(8, 500))
    replayer = replayed(state)
    found = digests_of(replayer)
    assert found == digests_of(replayed(state))
    table = dict(rows_of(replayer))
    assert digests(dict(reversed(table.items())), (INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS)) == found
    for prefix, part in ((rows.USER, "users"), (rows.VIDEO, "items"), (rows.NEIGHBOURS, "neighbours")):
        place = next(place for place in table if place[1].startswith(prefix))
        changed = digests({**table, place: table[place] + b"!"}, (INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS))
        assert {name for name in found if found[name] != changed[name]} == {part, "all"}
    assert digests_of(Replayer(EngineOptions(), TOLERANCE_MS))["all"] != found["all"]
