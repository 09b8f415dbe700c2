"""The lake beside a real broker: killed with SIGKILL wherever it may hurt, it has each committed record once, as DuckDB counts."""

import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cli.main import main
from infra.embedded_kafka import EmbeddedKafka
from infra.settings import PREFIX
from ingestion.lake.buffers import Bounds
from ingestion.lake.errors import LakeError, LakeTaken
from ingestion.lake.files import TOPICS, holes
from ingestion.lake.store import Lake
from ingestion.lake.tables import Judge
from ingestion.lake.tail import Tail
from tests.agents.faults import Fault
from tests.ingestion.lake.lives import live
from tests.ingestion.lake.made import dead, event, listed, offsets
from topics.catalog import User
from topics.catalog import encode as encode_user
from topics.interactions import encode
from topics.partitions import partition_of
from topics.specs import (
    DEAD,
    INTERACTIONS,
    RECOMMENDATIONS,
    USERS,
    TopicMismatch,
    TopicSpec,
    TopicsUnavailable,
    ensure_topics,
    specs,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

PARTITIONS = 2
JUDGE = Judge(PARTITIONS, 600_000)
ERASED = "user3"
DOCS = Path(__file__).parents[3] / "docs" / "lake.md"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker whose topics have events, some of which are none, in transactions, some of which were aborted."""
    with EmbeddedKafka(tmp_path_factory.mktemp("lake") / "broker") as broker:
        ensure_topics(broker.bootstrap, specs("lake", "v1", PARTITIONS))
        produce(broker.bootstrap, 0, 1_200)
        yield broker.bootstrap


def produce(bootstrap: str, first: int, n: int) -> None:
    random_, now_ms = random.Random(first), int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "lake-test"})
    producer.init_transactions(20)
    for begin in range(first, first + n, 100):
        for aborted in (True, False):
            producer.begin_transaction()
            for number in range(begin, begin + (5 if aborted else 100)):
                made = event(number, f"user{number % 7}", now_ms)
                key = made.user_id.encode()
                partition = partition_of(key, PARTITIONS)
                value = random_.choice([b"{", b"\xff", None]) if random_.random() < 0.05 else encode(made)
                producer.produce(INTERACTIONS, value, key, partition)
                if number % 3 == 0:
                    served = listed(number, made.user_id, now_ms)
                    producer.produce(RECOMMENDATIONS, served.value, served.key, partition)
                if number % 20 == 0:
                    letter = dead(number)
                    producer.produce(DEAD, letter.value, letter.key, partition, headers=list(letter.headers or ()))
            # What is aborted has to be in the log first; ended before that, brokers may not know the transaction at all.
            assert producer.flush(20) == 0
            (producer.abort_transaction if aborted else producer.commit_transaction)(20)


def committed(bootstrap: str, topic: str) -> list[tuple[int, int]]:
    """Partition and offset of each committed record, as a plain consumer finds them."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "lake-test",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
    )
    found, left = [], set(range(PARTITIONS))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
    while left:
        for message in consumer.consume(1_000, timeout=0.1):
            if message.error() is None:
                found.append((message.partition() or 0, message.offset() or 0))
            elif message.error().code() == KafkaError._PARTITION_EOF:  # type: ignore[union-attr] # it is there
                left.discard(message.partition() or 0)
    consumer.close()
    return sorted(found)


def in_lake(folder: Path, dataset: str) -> list[tuple[int, int]]:
    """The same of the rows of a dataset, as DuckDB finds them."""
    if not list((folder / dataset).rglob("*.parquet")):
        return []
    read = duckdb.read_parquet(f"{folder}/{dataset}/**/*.parquet")
    return [tuple(row) for row in read.project("kafka_partition, kafka_offset").order("ALL").fetchall()]


def require_equal(bootstrap: str, folder: Path) -> None:
    for topic in TOPICS:
        found = sorted(in_lake(folder, topic) + in_lake(folder, f"refused/topic={topic}"))
        assert found == committed(bootstrap, topic)
    assert in_lake(folder, f"refused/topic={INTERACTIONS}")


@pytest.fixture
def environment(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    chosen = {"home": str(tmp_path), "partitions": str(PARTITIONS), "lake": str(tmp_path / "lake")}
    for name, value in chosen.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    return dict(os.environ)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Status and both outputs of `headrace lake ...` in this process."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", ["headrace", "lake", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    said = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), said.out, said.err


ONCE = ("run", "--once", "--rows", "40")
#: Wherever a range, a merge or a rewritten file can be cut in two; what each leaves is in test_writer.py and test_compact.py.
RUN_FAULTS = [
    Fault("ingestion.lake.store:Lake.claim", nth=3),
    Fault("ingestion.lake.store:Lake.claim", "after", nth=2),
    Fault("infra.folder:Folder.publish", "after", nth=4),  # what was refused is there, or a range is
    Fault("ingestion.lake.writer:write_table", "after", nth=6),
    Fault("infra.folder:Folder._link", nth=9),
]
REWRITE_FAULTS = [
    Fault("infra.folder:Folder._rename", nth=2),
    Fault("infra.folder:Folder.remove", "after", nth=2),
]


def test_a_lake_that_is_killed_anywhere_has_each_record_once(
    kafka: str, environment: dict[str, str], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    there = {topic: set(committed(kafka, topic)) for topic in TOPICS}
    for fault in RUN_FAULTS:
        assert live([*ONCE], environment, fault) == -signal.SIGKILL, fault
        for topic in TOPICS:  # what is there while it is dead is right, if not all
            found = in_lake(lake, topic)
            assert len(set(found)) == len(found)
            assert set(found) <= there[topic]
    assert live([*ONCE], environment) == 0
    require_equal(kafka, lake)
    for number, fault in enumerate(REWRITE_FAULTS):
        produce(kafka, 1_000 + 100 * number, 100)  # something to merge
        assert live([*ONCE], environment) == 0
        assert live(["compact"], environment, fault) == -signal.SIGKILL, fault
        assert live([*ONCE], environment) == 0  # it removes what was left
        require_equal(kafka, lake)
    assert live(["compact"], environment) == 0
    require_equal(kafka, lake)
    assert not list((lake / "_tmp").rglob("*")) or all(path.is_dir() for path in (lake / "_tmp").rglob("*"))


GOING = ["run", "--rows", "30", "--seconds", "0.2"]


def passed(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed since it was called."""
    at_s = time.monotonic() + seconds
    return lambda: time.monotonic() > at_s


def claims(folder: Path) -> set[str]:
    return {path.name for path in (folder / "_claims").rglob("*.json")}


def test_it_is_stopped_killed_and_merged_while_records_arrive(
    kafka: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """Killed at any moment, by another process's clock; merging goes on beside it."""
    lake, over = tmp_path / "lake", threading.Event()

    def go_on() -> None:
        for begin in range(10_000, 20_000, 100):
            produce(kafka, begin, 100)
            if over.wait(0.05):
                return

    more = threading.Thread(target=go_on)
    more.start()
    random_ = random.Random(5)
    try:
        for _ in range(2):
            assert live(GOING, environment, until=passed(random_.uniform(0.5, 1.2))) == -signal.SIGKILL
            assert live(["compact"], environment) == 0
        before = claims(lake)
        assert live(GOING, environment, until=lambda: bool(claims(lake) - before), signum=signal.SIGTERM) == 0
        # What it had read and not written yet became files when it was told to end.
        assert Lake(str(lake)).ends(Lake(str(lake)).files()).keys() >= {(INTERACTIONS, p) for p in range(PARTITIONS)}
    finally:
        over.set()
        more.join()
    assert live([*ONCE], environment) == 0
    require_equal(kafka, lake)


def test_commands_say_what_they_did_and_forgetting_reaches_the_lake(
    kafka: str,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert environment
    status, out, _ = run(monkeypatch, capsys, *ONCE)
    assert (status, "were added" in out) == (0, True)
    status, out, _ = run(monkeypatch, capsys, "check", "--json")
    found = json.loads(out)
    assert (status, found["ok"]) == (0, True)
    assert {place["behind"] for place in found["partitions"]} <= {0, 1, 2}  # markers of transactions
    for topic in TOPICS:
        assert sum(p["log"] for p in found["partitions"] if p["topic"] == topic) == len(committed(kafka, topic))

    mark = encode_user(User(erased_ms=int(time.time() * 1000) + 1_000))
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(USERS, mark, ERASED.encode(), partition_of(ERASED.encode(), PARTITIONS))
    assert producer.flush(20) == 0
    status, out, _ = run(monkeypatch, capsys, "compact")
    assert status == 0
    gone = int(re.findall(r"([\d,]+) rows of erased users", out)[0].replace(",", ""))
    assert gone > 50
    assert run(monkeypatch, capsys, "forget", "--all")[1].endswith("0 rows of erased users went from 0 files\n")
    for topic in (INTERACTIONS, RECOMMENDATIONS):
        rows = duckdb.read_parquet(f"{tmp_path}/lake/{topic}/**/*.parquet").filter(f"user_id = '{ERASED}'")
        assert rows.fetchall() == []
    status, out, _ = run(monkeypatch, capsys, "check", "--json")
    found = json.loads(out)
    assert (status, sum(place["forgotten"] for place in found["partitions"])) == (0, gone)


def test_the_check_misses_files_and_sees_what_is_there_twice(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert environment
    assert run(monkeypatch, capsys, *ONCE)[0] == 0
    files = sorted(
        (tmp_path / "lake" / INTERACTIONS).rglob("0-*.parquet"), key=lambda path: int(path.stem.split("-")[1])
    )
    gone = (files[0], files[2])  # the first, and one in the middle
    for file in gone:
        file.rename(tmp_path / file.name)
    status, _, err = run(monkeypatch, capsys, "check")
    assert status == 1
    for file in gone:
        _, first, last = file.stem.split("-")
        assert f"interactions[0]: no file has offsets {first} to {last}" in err
        (tmp_path / file.name).rename(file)
    partition, first, last = files[1].stem.split("-")
    shutil.copy(files[1], files[1].with_name(f"{partition}-{first}-{int(last) - 1}.parquet"))
    status, _, err = run(monkeypatch, capsys, "check")
    assert (status, "is there twice" in err) == (1, True)
    assert run(monkeypatch, capsys, "compact")[0] == 0
    assert run(monkeypatch, capsys, "check")[0] == 0


def test_lists_are_exported_as_json(
    kafka: str,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert environment
    assert run(monkeypatch, capsys, *ONCE)[0] == 0
    file = next((tmp_path / "lake" / RECOMMENDATIONS).rglob("*.parquet"))
    partition, first, last = file.stem.split("-")
    shutil.copy(file, file.with_name(f"{partition}-{first}-{int(last) - 1}.parquet"))  # as a merge has left it
    assert run(monkeypatch, capsys, "export", "--to", str(tmp_path / "out"))[0] == 0
    lists = json.loads((tmp_path / "out" / "recommendation_logs.json").read_bytes())
    assert len(lists) == len(committed(kafka, RECOMMENDATIONS))
    assert lists[0].keys() >= {"recommendation_id", "user_id", "at_ms", "video_ids"}
    assert abs(lists[0]["at_ms"] / 1000 - time.time()) < 3600
    assert run(monkeypatch, capsys, "export", "--to", str(tmp_path / "out"), "--until", "2020-01-01")[0] == 0
    assert json.loads((tmp_path / "out" / "recommendation_logs.json").read_bytes()) == []


def test_the_lines_of_the_manual_work(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert environment
    assert run(monkeypatch, capsys, *ONCE)[0] == 0
    queries = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(queries) >= 3
    monkeypatch.chdir(tmp_path)
    for query in queries:
        found = duckdb.sql(query)
        assert found is not None
        assert found.fetchall(), query


def test_a_second_lake_is_refused(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert environment
    with Lake(str(tmp_path / "lake")).turn("run", "fills"):
        status, _, err = run(monkeypatch, capsys, *ONCE)
    assert (status, "another `headrace lake` command fills" in err) == (1, True)


def run_once(kafka: str, lake: Lake, rows: int = 40, topics: tuple[str, ...] = TOPICS) -> Tail:
    with Tail(kafka, lake, JUDGE, Bounds(rows=rows), topics) as tail:
        tail.run(once=True, ended=threading.Event())
    return tail


def test_two_lakes_on_an_object_store_double_nothing(kafka: str) -> None:
    """There is no lock: who comes second finds the range taken, and ends."""
    lake = Lake(f"memory://two-{time.time_ns()}/lake")
    with Tail(kafka, lake, JUDGE, Bounds(rows=33)) as one, Tail(kafka, lake, JUDGE, Bounds(rows=50)) as other:
        one.run(once=True, ended=threading.Event())
        with pytest.raises(LakeTaken):
            other.run(once=True, ended=threading.Event())
    run_once(kafka, lake)
    for topic in TOPICS:
        assert len(offsets(lake, topic)) + len(offsets(lake, f"refused/topic={topic}")) == len(committed(kafka, topic))


def test_what_retention_has_taken_is_recorded_and_passed_over(
    kafka: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    run_once(kafka, lake)
    before = lake.ends(lake.files())[DEAD, 0]
    produce(kafka, 30_000, 400)
    end = committed(kafka, DEAD)
    high = max(offset for partition, offset in end if partition == 0)
    low = high - 2
    place = TopicPartition(DEAD, 0, low)
    admin = AdminClient({"bootstrap.servers": kafka})  # it has to live until the answer comes
    admin.delete_records([place])[place].result()
    capsys.readouterr()
    run_once(kafka, lake)
    said = "".join(capsys.readouterr())
    assert "the log has lost records before they were read" in said
    assert lake.gaps() == [((DEAD, 0), before, low - 1)]
    files = [file for file in lake.files() if (file.dataset, file.partition) == (DEAD, 0)]
    assert holes(files) == [(before, low - 1)]
    run_once(kafka, lake)
    assert len(lake.gaps()) == 1


def make_anew(bootstrap: str, spec: TopicSpec) -> None:
    """Delete a topic and create it; Kafka takes its time for the former."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([spec.name])[spec.name].result()
    for _ in range(300):
        try:
            ensure_topics(bootstrap, [spec])
        except (TopicMismatch, TopicsUnavailable):
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{spec.name} is not there again")


def test_a_lake_of_another_log_is_refused(kafka: str, tmp_path: Path) -> None:
    """The last test: the topics are other ones from here on."""
    lake = Lake(str(tmp_path / "lake"))
    run_once(kafka, lake, rows=1_000, topics=(INTERACTIONS,))
    make_anew(kafka, next(each for each in specs("lake", "v1", PARTITIONS) if each.name == INTERACTIONS))
    with pytest.raises(LakeError, match="was filled from another topic interactions"):
        Tail(kafka, lake, JUDGE)
    make_anew(kafka, TopicSpec(RECOMMENDATIONS, PARTITIONS, {"message.timestamp.type": "CreateTime"}))
    with pytest.raises(TopicMismatch, match="LogAppendTime"):
        Tail(kafka, lake, JUDGE, topics=(RECOMMENDATIONS,))
