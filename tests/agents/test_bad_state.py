"""State and logs that do not fit each other, disks that fail, rows from the future: a worker that says what to do, or a rebuild."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from infra.embedded_kafka import EmbeddedKafka
from state import rows
from state.store import RocksStore
from tests.agents.faults import Fault
from tests.agents.lives import Life, Lives
from tests.agents.stage import PARTITIONS, VERSION, Stage, stores
from tests.small_disk import SmallDisk
from topics.evidence import SCHEMA_VERSION
from topics.specs import changelog_topic, ensure_topics, evidence_topic, specs

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("bad")
    with EmbeddedKafka(folder / "broker") as kafka, Lives() as lives:
        yield Stage(kafka.bootstrap, lives, folder, 500)


@pytest.fixture(autouse=True)
def _nobody_stays(stage: Stage) -> Iterator[None]:
    yield
    stage.lives.end()


def learned(stage: Stage, app: str) -> None:
    """A worker that has learned everything and stopped."""
    life = stage.start(app)
    stage.settled(life, app)
    life.stop()


def refuses(stage: Stage, app: str, *words: str) -> Life:
    """A worker that ends with status 1 and one line for the operator."""
    life = stage.start(app)
    assert life.status() == 1, life.log[-3000:]
    said = life.log.splitlines()[-1]
    assert said.startswith("headrace: ")
    for word in words:
        assert word in said
    return life


def wipe(stage: Stage, app: str, *topics: str) -> None:
    """Delete topics and create them anew, empty."""
    admin = AdminClient({"bootstrap.servers": stage.bootstrap})
    for future in admin.delete_topics(list(topics)).values():
        future.result(20)
    deadline = time.monotonic() + 20
    while set(topics) & admin.list_topics(timeout=10).topics.keys():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ensure_topics(stage.bootstrap, specs(app, VERSION, PARTITIONS))


def write(stage: Stage, topic: str, partition: int, *records: tuple[bytes | None, bytes | None]) -> None:
    producer = Producer({"bootstrap.servers": stage.bootstrap})
    for key, value in records:
        producer.produce(topic, value, key, partition)
    assert producer.flush(20) == 0


def folder_of(stage: Stage, app: str) -> Path:
    return stage.folder / app / "state" / VERSION


def remove(folder: Path) -> None:
    for file in folder.glob("*"):
        file.unlink()
    folder.rmdir()


def test_a_lost_disk_and_a_lost_half_are_rebuilt(stage: Stage) -> None:
    learned(stage, "rebuilt")
    before = stores(stage.folder / "rebuilt")
    remove(folder_of(stage, "rebuilt") / "items-0")
    remove(folder_of(stage, "rebuilt") / "users-1")
    life = stage.start("rebuilt")
    stage.caught_up(life)
    life.stop()
    assert stores(stage.folder / "rebuilt") == before


@pytest.mark.parametrize("disk", ["full", "empty"])
@pytest.mark.parametrize("table", ["users", "items"])
def test_a_wiped_changelog_is_refused(stage: Stage, table: str, disk: str) -> None:
    """Even where it has grown past the store meanwhile, and where no store is left that knew better."""
    app = f"wiped-{table}-{disk}"
    learned(stage, app)
    topic = changelog_topic(app, VERSION, table)
    old = stage.table(app, table)
    wipe(stage, app, topic)
    if disk == "full":
        for _ in range(3):
            write(stage, topic, 0, *((key, value) for (partition, key), value in old.items() if partition == 0))
            write(stage, topic, 1, *((key, value) for (partition, key), value in old.items() if partition == 1))
    else:
        for folder in folder_of(stage, app).glob("*-[0-9]"):
            remove(folder)
    refuses(stage, app, topic, "wiped", "HEADRACE_VERSION")


def test_all_of_a_versions_topics_wiped_under_its_group_is_refused(stage: Stage) -> None:
    """Only the group's offsets remember; the log would be learned twice by whoever still has its evidence."""
    learned(stage, "forgotten")
    wipe(stage, "forgotten", *(changelog_topic("forgotten", VERSION, table) for table in ("users", "items")))
    for folder in folder_of(stage, "forgotten").glob("*-[0-9]"):
        remove(folder)
    refuses(stage, "forgotten", "has learned before", "wiped", "HEADRACE_VERSION")


def test_a_wiped_evidence_topic_is_refused(stage: Stage) -> None:
    """Filled again past the place in the cut, so that offsets alone would not tell."""
    learned(stage, "evidence")
    topic = evidence_topic("evidence", VERSION)
    wipe(stage, "evidence", topic)
    for partition in range(PARTITIONS):
        write(stage, topic, partition, *[(None, b"x")] * 2_000)
    refuses(stage, "evidence", topic, "wiped", "HEADRACE_VERSION")


def test_a_home_of_another_app_is_refused(stage: Stage) -> None:
    learned(stage, "owner")
    (stage.folder / "owner").rename(stage.folder / "lodger")
    refuses(stage, "lodger", "HEADRACE_HOME", "HEADRACE_APP")


def future(value: bytes) -> bytes:
    return bytes([value[0] + 1]) + value[1:]


def future_cut(value: bytes) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(value), "next": [], "version": rows.LISTS_VERSION + 1})


@pytest.mark.parametrize(
    ("table", "prefix", "change"),
    [
        ("users", rows.CUT_KEY, future_cut),
        ("items", rows.ITEM, future),
        ("items", rows.NEIGHBOURS, future),
        ("items", rows.VIDEO, future),
    ],
    ids=["cut", "item", "neighbours", "video"],
)
def test_a_row_from_the_future_is_refused_and_kept(
    stage: Stage, table: str, prefix: bytes, change: Callable[[bytes], bytes], request: pytest.FixtureRequest
) -> None:
    """It comes from the changelog while tailing; what is on Kafka stays as it was, for the release that can read it."""
    app = f"future-{request.node.callspec.id}"
    learned(stage, app)
    (_, key), value = next(
        (at, value)
        for at, value in stage.table(app, table).items()
        if at == (0, at[1][:999]) and at[1].startswith(prefix)
    )
    write(stage, changelog_topic(app, VERSION, table), 0, (key, change(value)))
    expected = stage.table(app, table)
    reads = rows.LEARNED_VERSION if prefix == rows.ITEM else rows.VERSION
    later = 1 + (rows.LISTS_VERSION if prefix == rows.CUT_KEY else reads)
    for _ in range(2):
        refuses(stage, app, f"layout {later}", f"reads {reads}", "HEADRACE_VERSION")
        stage.evict(app)
    assert stage.table(app, table) == expected
    assert stores(stage.folder / app)[table, 0, key] == change(value)


def test_a_user_from_the_future_is_refused_when_they_come_back(stage: Stage) -> None:
    learned(stage, "future-user")
    users = stage.table("future-user", "users")
    write(
        stage,
        changelog_topic("future-user", VERSION, "users"),
        0,
        *((key, future(value)) for (p, key), value in users.items() if p == 0 and key.startswith(rows.USER)),
    )
    expected = stage.table("future-user", "users")
    stage.repeat(0)
    refuses(stage, "future-user", f"layout {rows.LEARNED_VERSION + 1}", "HEADRACE_VERSION")
    found = stage.table("future-user", "users")
    assert {at: value for at, value in found.items() if at[0] == 0 and at[1][:2] == rows.USER} == {
        at: value for at, value in expected.items() if at[0] == 0 and at[1][:2] == rows.USER
    }


def test_evidence_from_the_future_stops_the_worker(stage: Stage) -> None:
    """As a dead letter, it would be missing from the counts that a later release goes on with."""
    learned(stage, "future-block")
    block = msgspec.msgpack.encode([SCHEMA_VERSION + 1, b"12345678", 0, [], b"", b"", b"", b"", "new"])
    write(stage, evidence_topic("future-block", VERSION), 1, (None, block))
    before = stage.dead_letters()
    refuses(stage, "future-block", f"version {SCHEMA_VERSION + 1}", f"reads {SCHEMA_VERSION}", "Run the release")
    assert stage.dead_letters() == before


def test_a_foreign_workers_row_from_the_future_stops_the_follower(stage: Stage) -> None:
    """It never tails that shard: the row comes while it answers."""
    learned(stage, "follower")
    first = stage.start("follower")
    first.until(lambda: first.totals() or None, "not ready")
    second = stage.start("follower", home="second")
    first.says("following other workers' videos")
    second.says("following other workers' videos")
    followed = (
        0 if "partitions=[0]" in next(line for line in reversed(first.log.splitlines()) if "following" in line) else 1
    )
    (_, key), value = next(
        (at, value)
        for at, value in stage.table("follower", "items").items()
        if at[0] == followed and at[1].startswith(rows.ITEM)
    )
    write(stage, changelog_topic("follower", VERSION, "items"), followed, (key, future(value)))
    assert first.status() == 1
    assert f"layout {rows.LEARNED_VERSION + 1}" in first.log.splitlines()[-1]
    second.kill()


@pytest.mark.parametrize("garbage", ["CURRENT", "MANIFEST-*"])
def test_a_broken_folder_is_refused_and_rebuilt_once_removed(stage: Stage, garbage: str) -> None:
    app = f"broken-{garbage[:3]}"
    learned(stage, app)
    before = stores(stage.folder / app)
    broken = folder_of(stage, app) / "items-1"
    [file] = broken.glob(garbage)
    file.write_bytes(b"garbage")
    refuses(stage, app, str(broken), "remove that folder")
    remove(broken)
    stage.evict(app)
    life = stage.start(app)
    stage.caught_up(life)
    life.stop()
    assert stores(stage.folder / app) == before


def test_flipped_bits_stop_the_worker_when_it_reads_them(stage: Stage) -> None:
    """Users are read when they come back, long after the start."""
    before = stage.dead_letters()
    learned(stage, "flipped")
    users = folder_of(stage, "flipped") / "users-0"
    RocksStore(users).close()  # what the log holds goes into a table file
    [file] = users.glob("*.sst")
    data = bytearray(file.read_bytes())
    # The blocks of rows, not the index behind them: that would be found at once.
    for at in range(1_000, int(len(data) * 0.8), 4_000):
        data[at] ^= 0xFF
    file.write_bytes(data)
    stage.repeat(0)
    refuses(stage, "flipped", str(users), "remove that folder")
    remove(users)
    stage.evict("flipped")
    stage.finish("flipped", stage.start("flipped"), before)


def test_a_full_disk_stops_the_worker_and_costs_nothing(stage: Stage, small_disk: SmallDisk) -> None:
    (stage.folder / "full").symlink_to(small_disk.path)
    before = stage.dead_letters()
    life = stage.start("full")
    stage.caught_up(life)
    with suppress(OSError), (small_disk.path / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 1_024):
            pass
    stage.extend(10, 1_000)
    assert life.status() == 1, life.log[-3000:]
    assert "make room" in life.log.splitlines()[-1], life.log[-3000:]
    stage.evict("full")
    refuses(stage, "full", "make room")
    small_disk.grow()
    stage.evict("full")
    stage.finish("full", stage.start("full"), before)


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_clock_that_jumps_changes_nothing(stage: Stage, hours: int) -> None:
    """What is learned knows event times and the broker's clock; checkpoints come by the monotonic one."""
    app = f"clock{hours}".replace("-", "back")
    before = stage.dead_letters()
    life = stage.start(app, Fault("time:time", what="jump", nth=500, hours=hours))
    stage.caught_up(life)
    life.says("FAULT")
    stage.finish(app, life, before)
