"""A worker that is killed with SIGKILL in mid-stream: what it has committed in the end, against a recount of the log."""

import random
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient

from cli.committed import latest, read_committed
from cli.recount import Recount
from cli.worker_process import handled
from infra.embedded_kafka import EmbeddedKafka
from ingestion.produce import produce_videos
from ingestion.simulate import Audience
from state import rows
from state.replica import video_code
from state.store import RocksStore
from state.users import DUPLICATE, IGNORED, KINDS, POSITIVE, SIGNAL
from tests.agents.running_worker import RunningWorker
from topics.evidence import SHOWN
from topics.interactions import Interaction, decode_value, encode
from topics.partitions import partition_of
from topics.rejected import Rejected
from topics.specs import DEAD, INTERACTIONS, changelog_topic, ensure_topics, specs

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

APP, VERSION, PARTITIONS, SEED = "killed", "v1", 4, 7
EVENTS, USERS = 20_000, 600
CODECS = ("gzip", "snappy", "lz4", "zstd", "none")
BAD = [b"{", b"\xff\xfe", b"[1]", b'{"v":9}', b'{"event_id":"a","user_id":"u","video_id":"v","event":"sing","at_ms":1}']
#: Fewer slots than users: they are evicted and read back all the time.
SETTINGS = {"max_users": 400, "partitions": PARTITIONS}


@dataclass
class Finished:
    """A worker's work after two kills, with nothing left to do."""

    bootstrap: str
    home: Path
    log: list[Message]
    totals: dict[str, int]


def produce(bootstrap: str, events: list[Interaction], seed: int) -> None:
    """Send events through one producer a codec, with repeats (a producer's retry) and records that are none."""
    random_ = random.Random(seed)
    producers = [Producer({"bootstrap.servers": bootstrap, "compression.type": c, "linger.ms": 5}) for c in CODECS]
    for n, event in enumerate(events):
        key = event.user_id.encode()
        partition = partition_of(key, PARTITIONS)
        # One producer a partition at a time keeps the order of a user's events.
        producer = producers[(partition + n // 2_000) % len(producers)]
        if n % 2_000 == 0:
            for each in producers:
                each.flush(20)
        for _ in range(2 if random_.random() < 0.03 else 1):
            producer.produce(INTERACTIONS, encode(event), key, partition)
        if random_.random() < 0.01:
            producer.produce(INTERACTIONS, random_.choice(BAD), random_.choice([None, key]), partition)
        producer.poll(0)
    for each in producers:
        assert each.flush(20) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Two kills at drawn moments while events still arrive; then the rest, and a clean stop."""
    home = tmp_path_factory.mktemp("killed")
    random_ = random.Random(SEED)
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        bootstrap = kafka.bootstrap
        ensure_topics(bootstrap, specs(APP, VERSION, PARTITIONS))
        audience = Audience(SEED, USERS, 500)
        produce_videos(bootstrap, audience.videos())
        events = list(audience.events(EVENTS))
        produce(bootstrap, events[: EVENTS // 2], 1)
        rest = threading.Thread(target=produce, args=(bootstrap, events[EVENTS // 2 :], 2))
        for kill in range(2):
            target, pause_s = random_.randrange(1_000, 6_000) + 7_000 * kill, random_.uniform(0, 0.2)
            print(f"kill {kill}: {pause_s:.3f} s after {target} events")  # noqa: T201 - to repeat what failed
            with RunningWorker(bootstrap, home, APP, **SETTINGS) as worker:
                worker.wait(lambda totals, target=target: handled(totals) >= target)  # type: ignore[misc] # bound now
                if kill == 0:
                    rest.start()
                time.sleep(pause_s)
        rest.join()
        log = read_committed(bootstrap, INTERACTIONS)
        with RunningWorker(bootstrap, home, APP, **SETTINGS) as worker:
            worker.wait(lambda totals: handled(totals) == len(log))
            totals = wait_for_items(bootstrap, worker, log)
            assert worker.stop() == 0, worker.log
        # A worker that fails starts anew by itself: that must not be what made it come out right.
        assert not [file for file in home.glob("worker-*.log") if "the worker stops" in file.read_text()]
        yield Finished(bootstrap, home, log, totals)


def wait_for_items(bootstrap: str, worker: RunningWorker, log: list[Message]) -> dict[str, int]:
    """Wait until all evidence is in committed rows of videos."""
    totals = worker.totals()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        items = latest(read_committed(bootstrap, changelog_topic(APP, VERSION, "items")))
        counted = sum(
            int(rows.read_item(v)["counts"][:SHOWN].sum()) for (_, key), v in items.items() if key[:2] == rows.ITEM
        )
        if counted >= len(log) - totals["dead"] - totals["duplicate"]:
            break
        time.sleep(0.2)
    return totals


def interactions(log: list[Message]) -> Iterator[Interaction]:
    for record in log:
        try:
            event = decode_value(record.value() or b"")
        except Rejected:
            continue
        if event.user_id.encode() == record.key():
            yield event


def changelog(finished: Finished, table: str) -> dict[tuple[int, bytes], bytes]:
    return latest(read_committed(finished.bootstrap, changelog_topic(APP, VERSION, table)))


def test_totals_and_dead_letters_add_up(finished: Finished) -> None:
    recount = Recount(interactions(finished.log))
    expected = {
        "learned": recount.outcomes[POSITIVE] + recount.outcomes[SIGNAL],
        "ignored": recount.outcomes[IGNORED],
        "duplicate": recount.outcomes[DUPLICATE],
        "dead": len(finished.log) - recount.outcomes.total(),
    }
    assert recount.outcomes[DUPLICATE] > 400
    assert expected["dead"] > 100
    cuts = [rows.decode_cut(v) for (_, key), v in changelog(finished, "users").items() if key == rows.CUT_KEY]
    for totals in (finished.totals, {name: sum(cut.totals.get(name, 0) for cut in cuts) for name in expected}):
        assert {name: totals[name] for name in expected} == expected
    dead = [(record.key(), record.value()) for record in read_committed(finished.bootstrap, DEAD)]
    good = {(encode(event)) for event in interactions(finished.log)}
    refused = [(record.key(), record.value()) for record in finished.log if record.value() not in good]
    assert sorted(dead, key=repr) == sorted(refused, key=repr)


def test_every_user_is_as_if_nothing_had_happened(finished: Finished) -> None:
    recount = Recount(interactions(finished.log))
    stored = {
        key[2:].decode(): rows.read_user(value)
        for (_, key), value in changelog(finished, "users").items()
        if key[:2] == rows.USER
    }
    assert stored.keys() == recount.users.keys()
    for user_id, plain in recount.users.items():
        row = stored[user_id]
        assert row["counts"].tolist() == [plain.counts[kind] for kind in range(KINDS)], user_id
        assert row["history"] == plain.history, user_id
        assert row["seen"].tolist() == [video_code(v) | int(flag) for v, flag in plain.seen.items()], user_id
        assert row["last_ms"] == plain.last_ms, user_id


def test_every_video_is_as_if_nothing_had_happened(finished: Finished) -> None:
    recount = Recount(interactions(finished.log))
    stored = {
        key[2:].decode(): (partition, rows.read_item(value))
        for (partition, key), value in changelog(finished, "items").items()
        if key[:2] == rows.ITEM
    }
    for video_id in {video_id for video_id, _ in recount.items}:
        partition, row = stored[video_id]
        assert partition == partition_of(video_id.encode(), PARTITIONS)
        assert row["counts"].tolist() == [recount.items[video_id, kind] for kind in range(KINDS)], video_id
        assert row["plays"] == recount.plays[video_id], video_id
    assert len(stored) == 500


def test_a_lost_disk_is_rebuilt_from_the_changelogs(finished: Finished) -> None:
    shutil.rmtree(finished.home / "state")
    with RunningWorker(finished.bootstrap, finished.home, APP, **SETTINGS) as worker:
        assert worker.wait(lambda totals: handled(totals) >= len(finished.log)) == finished.totals
        assert worker.stop() == 0, worker.log
    for table in ("users", "items"):
        expected = changelog(finished, table)
        for partition in range(PARTITIONS):
            store = RocksStore(finished.home / "state" / VERSION / f"{table}-{partition}")
            found = {key: value for prefix in (b"!", *b"uainmd") for key, value in scan(store, prefix)}
            store.close()
            assert found == {key: value for (where, key), value in expected.items() if where == partition}


def scan(store: RocksStore, prefix: bytes | int) -> Iterator[tuple[bytes, bytes]]:
    return store.scan(prefix if isinstance(prefix, bytes) else bytes([prefix]))


def test_a_wiped_changelog_under_a_full_store_is_an_error(finished: Finished) -> None:
    """Runs last: it ends the version."""
    admin = AdminClient({"bootstrap.servers": finished.bootstrap})
    name = changelog_topic(APP, VERSION, "items")
    admin.delete_topics([name])[name].result(20)
    deadline = time.monotonic() + 20
    while name in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with RunningWorker(finished.bootstrap, finished.home, APP, **SETTINGS) as worker:
        assert worker.process.wait(40) == 1
        assert f"headrace: {name}" in worker.log
        assert "was wiped" in worker.log
        assert "HEADRACE_VERSION" in worker.log
