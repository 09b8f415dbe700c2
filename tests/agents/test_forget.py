"""What users did who were erased is as if it had never been, where a log is read anew; and the mark that says so is not lost."""

from collections.abc import Iterator

import numpy as np
import pytest

from agents.replayer import Replayer
from cli.canonical import digests_of, rows_of
from online_models.heads import INPUTS
from state.prediction import INPUT_NAMES
from state.profiles import profile_of
from tests.agents.world import NOW_MS, TOLERANCE_MS, World, WorldLog, liked, random_events, world
from topics.canonical_order import Stream, event_stream
from topics.catalog import User, decode_user_value
from topics.erasures import Erasures
from topics.recommendations import encode_list
from topics.record_batch import RecordBatch
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS

GONE_USER = "user7"
GONE = User(erased_ms=NOW_MS)
NORTH, SOUTH = User(country="no"), User(country="pt")


class Forgetting(WorldLog):
    """A log of which all erasures are known beforehand."""

    def _stream(self, topic: str, partition: int) -> Stream:
        erasures = erasures_of(self._state)
        stream = (
            event_stream(partition, self._partitions, TOLERANCE_MS, erasures)
            if topic == INTERACTIONS
            else Stream(topic, partition, erasures=erasures if topic == RECOMMENDATIONS else None)
        )
        records = self._state.log(topic, partition)
        for first in range(0, len(records), 37):  # in pieces, as they are fetched
            stream.add(RecordBatch.of(records[first : first + 37]))
        stream.ended = True
        return stream


def erasures_of(state: World) -> Erasures:
    found = Erasures()
    for partition in state.partitions:
        for record in state.log(USERS, partition):
            found.note(record.key, record.value, record.timestamp)
    return found


def replayed(state: World) -> Replayer:
    replayer = Replayer(state.options, TOLERANCE_MS)
    replayer.run(Forgetting(state))
    return replayer


def told() -> World:
    """What 25 users did, one of whom is erased in the end, and says something of themselves afterwards."""
    state = world(partitions=2)
    state.send(*random_events(3, 3_000))
    for user in ("user3", GONE_USER):
        for number in range(3):
            key, value = user.encode(), served(f"{user}-{number}", [f"video{n}" for n in range(number, number + 5)])
            state.append(RECOMMENDATIONS, state.partition_of(user), key, value)
    state.describe(GONE_USER, NORTH)
    state.describe("user3", SOUTH)
    state.describe(GONE_USER, GONE)
    return state


def served(recommendation_id: str, video_ids: list[str]) -> bytes:
    """A list, as a worker has served it."""
    inputs = np.zeros((len(video_ids), len(INPUTS)), np.float32)
    return encode_list(recommendation_id, NOW_MS - 10**9, "owner", video_ids, [], INPUT_NAMES, inputs)


def without(state: World) -> World:
    """The same log without the events and lists of the erased user, as if its retention had taken them alone."""
    other = World(state.options)
    other.logs = {
        place: [r for r in log if place[0] == USERS or r.key != GONE_USER.encode()] for place, log in state.logs.items()
    }
    return other


def test_a_replay_equals_that_of_a_log_without_what_the_user_did() -> None:
    """Byte for byte: counters, and vectors, too."""
    state = told()
    assert any(r.key == GONE_USER.encode() for p in state.partitions for r in state.log(INTERACTIONS, p))
    expected = Replayer(state.options, TOLERANCE_MS)
    expected.run(WorldLog(without(state)))
    found = replayed(state)
    assert digests_of(found) == digests_of(expected)
    met = Replayer(state.options, TOLERANCE_MS)
    met.run(WorldLog(state))
    assert digests_of(met)["counters"] != digests_of(expected)["counters"]
    assert GONE_USER.encode() not in b"".join(value for (_, key), value in rows_of(found).items())


def test_what_the_user_did_since_is_learned() -> None:
    state = told()
    state.send(*[liked(GONE_USER, f"video{n}", 9_000 + n, at_ms=NOW_MS + 1_000) for n in range(2)])
    profile = profile_of(replayed(state).engine, GONE_USER, state.partition_of(GONE_USER))
    assert profile is not None
    assert sum(profile.events.values()) == 2


def test_a_version_that_is_built_passes_over_them_whatever_it_reads_first() -> None:
    state = told()
    built, expected = World(state.options), without(state)
    built.logs = {place: list(log) for place, log in state.logs.items()}
    erasures = erasures_of(state)
    for shard in built.engine.shards.values():
        shard.forgotten = erasures
    for one in (built, expected):
        for topic in (INTERACTIONS, USERS):  # the events before the erasure is met
            for partition in one.partitions:
                one.step(topic, partition)
        one.settle()
    listed = [one.engine.exposures["listed"] for one in (built, expected)]
    assert listed == [3, 3]
    counts = [dict(counted(one)) for one in (built, expected)]
    assert counts[0] == counts[1]
    assert built.totals()["ignored"] > expected.totals().get("ignored", 0)


def counted(state: World) -> Iterator[tuple[str, list[int]]]:
    """What is counted of each video, and its first positives."""
    replica = state.engine.replica
    for row in replica.active_rows().tolist():
        yield replica.ids[row], [*replica.counts[row].tolist(), int(state.engine.popularity.columns["plays"][row])]


@pytest.mark.parametrize("later", [NORTH, None])
def test_the_mark_is_carried_on_to_what_is_said_later(later: User | None) -> None:
    """The topic is compacted to the latest record of each user."""
    state = told()
    state.settle()
    state.describe(GONE_USER, later)
    state.settle()
    log = state.log(USERS, state.partition_of(GONE_USER))
    last = [r for r in log if r.key == GONE_USER.encode()][-1]
    assert last.value is not None
    assert decode_user_value(last.value) == User(country=None if later is None else "no", erased_ms=NOW_MS)
    # It is written once, and read as any other.
    before = len(log)
    state.restart()
    state.settle()
    assert len(log) == before
    compacted = World(state.options)
    compacted.logs = {place: list(records) for place, records in state.logs.items()}
    compacted.logs[USERS, state.partition_of(GONE_USER)] = [last]
    for topic in (INTERACTIONS, USERS, VIDEOS):
        for partition in compacted.partitions:
            compacted.step(topic, partition)
    compacted.settle()
    profile = profile_of(compacted.engine, GONE_USER, state.partition_of(GONE_USER))
    assert profile is None if later is None else profile is not None and not profile.events


def test_the_last_word_stays_the_last_however_checkpoints_fall() -> None:
    """Something is said before the mark that is carried on to what was said before reaches the log."""
    state = told()
    state.settle()
    partition = state.partition_of(GONE_USER)
    state.describe(GONE_USER, NORTH)
    state.step(USERS, partition)
    state.describe(GONE_USER, SOUTH)
    state.checkpoint(partition)
    state.settle()
    assert attributes(state) == User(country="pt", erased_ms=NOW_MS)

    state.describe(GONE_USER, NORTH)
    state.step(USERS, partition)
    state.arrival_ms = NOW_MS + 1_000
    state.describe(GONE_USER, User(erased_ms=NOW_MS + 1_000))
    state.checkpoint(partition)
    state.settle()
    assert attributes(state) == User(erased_ms=NOW_MS + 1_000)


def attributes(state: World) -> User:
    """What the latest record of the topic says, which is what is known."""
    last = [r for r in state.log(USERS, state.partition_of(GONE_USER)) if r.key == GONE_USER.encode()][-1]
    assert last.value is not None
    found = decode_user_value(last.value)
    known = profile_of(state.engine, GONE_USER, state.partition_of(GONE_USER))
    assert (known is None and found.country is None) or (
        known is not None and known.segments == [f"country:{found.country}"]
    )
    return found


def test_a_version_that_reads_what_another_has_read_writes_nothing() -> None:
    state = told()
    state.describe(GONE_USER, NORTH)
    partition = state.partition_of(GONE_USER)
    state.engine.shards[partition].judged = {USERS: 10**6}
    before = len(state.log(USERS, partition))
    state.settle()
    assert len(state.log(USERS, partition)) == before


def test_marks_are_bounded_and_no_later_than_their_record() -> None:
    erasures = Erasures(most=2)
    for number, user in enumerate((b"a", b"b", b"c", b"a")):
        erasures.note(user, b'{"erased_ms":%d}' % (100 + number), 102)
    erasures.note(b"b", b'{"erased_ms":"x"}', 500)
    erasures.note(b"b", b'{"country":"no"}', 500)
    assert erasures.until([b"a", b"b"]).tolist() == [102, 101]
    assert (erasures.until([b"c", None]) < 0).all()
    assert len(erasures) == 2
