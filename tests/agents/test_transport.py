"""The batch transport under Faust, with a real broker: what is delivered, once, in order, and what Faust can do to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import ConsumerRecord
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from faust.types import TP

from agents.transport import Consumer

pytestmark = pytest.mark.timeout(90)


class CutApp(faust.App):
    """What the transport asks of an app, and a list of what arrived."""

    cut: dict[TP, int]
    got: list[tuple[int, list[bytes]]]

    def cut_positions(self) -> dict[TP, int]:
        return self.cut

    def values(self, partition: int = 0) -> list[bytes]:
        return [value for where, values in self.got if where == partition for value in values]

    async def until(self, expected: list[bytes], partition: int = 0) -> None:
        """Wait for exactly these values of the partition."""
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while len(self.values(partition)) < len(expected):  # noqa: ASYNC110 - a list has no event
                    await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert self.values(partition) == expected


def create(bootstrap: str, topic: str, cut: dict[TP, int], folder: Path) -> CutApp:
    app = CutApp(
        f"group-{topic}",
        broker=f"headrace://{bootstrap}",
        broker_producer=f"kafka://{bootstrap}",
        datadir=folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    app.cut, app.got = cut, []

    async def take(stream: faust.StreamT[Any]) -> None:
        async for event in stream.events():
            records = event.message.value
            assert event.message.offset == records[-1].offset
            assert not isinstance(records[0], ConsumerRecord), "copied once more than needed"
            app.got.append((event.message.partition, [record.value for record in records]))

    app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), name=topic, concurrency=1)(take)
    return app


@asynccontextmanager
async def running(app: CutApp) -> AsyncIterator[CutApp]:
    app.finalize()
    starting = asyncio.ensure_future(app.start())
    try:
        yield app
    finally:
        await app.stop()
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting


def make_topic(bootstrap: str, name: str, partitions: int = 1, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(20)


def send(bootstrap: str, topic: str, values: list[bytes], partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce(topic, value, b"key", partition)
    assert producer.flush(20) == 0


def transact(producer: Producer, topic: str, values: list[bytes], commit: bool) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, b"key", 0)
    producer.flush(20)
    producer.commit_transaction(20) if commit else producer.abort_transaction(20)


def numbered(first: int, last: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, last)]


@pytest.mark.broker
async def test_gaps_pause_and_seek(bootstrap: str, tmp_path: Path) -> None:
    topic, tp = "transport-gaps", TP("transport-gaps", 0)
    make_topic(bootstrap, topic)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "transport-test"})
    producer.init_transactions(20)
    transact(producer, topic, numbered(0, 3), commit=True)  # offsets 0 to 2, a marker at 3
    transact(producer, topic, [b"aborted", b"too"], commit=False)  # 4, 5, a marker at 6
    transact(producer, topic, numbered(3, 6), commit=True)  # 7 to 9, a marker at 10
    async with running(create(bootstrap, topic, {}, tmp_path)) as app:
        await app.until(numbered(0, 6))
        assert app.monitor.tp_end_offsets[tp] >= 10
        assert app.monitor.messages_received_total == len(app.got)

        app.consumer.pause_partitions({tp})
        # What was fetched before the pause may still come; what is sent into it may not.
        await asyncio.sleep(0.3)
        send(bootstrap, topic, numbered(6, 9))
        await asyncio.sleep(0.7)
        assert app.values() == numbered(0, 6)
        app.consumer.resume_partitions({tp})
        await app.until(numbered(0, 9))

        app.got.clear()
        await app.consumer.seek(tp, 8)
        await app.until(numbered(4, 9))

    # Nothing acknowledged became a committed offset: that is the checkpoint's business.
    admin = AdminClient({"bootstrap.servers": bootstrap})
    [committed] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(f"group-{topic}")]).values()
    assert not committed.result(20).topic_partitions


@pytest.mark.broker
async def test_reading_begins_at_the_cut_in_each_partition(bootstrap: str, tmp_path: Path) -> None:
    topic = "transport-cut"
    make_topic(bootstrap, topic, 2)
    for partition in (0, 1):
        send(bootstrap, topic, numbered(0, 50), partition)
    cut = {TP(topic, 0): 20, TP(topic, 1): 50}
    async with running(create(bootstrap, topic, cut, tmp_path)) as app:
        await app.until(numbered(20, 50), 0)
        send(bootstrap, topic, [b"more"], 1)
        await app.until([b"more"], 1)


@pytest.mark.broker
async def test_records_removed_by_compaction_or_retention_are_passed_over(bootstrap: str, tmp_path: Path) -> None:
    topic = "transport-removed"
    make_topic(bootstrap, topic)
    send(bootstrap, topic, numbered(0, 40))
    admin = AdminClient({"bootstrap.servers": bootstrap})
    [removed] = admin.delete_records([TopicPartition(topic, 0, 30)]).values()
    removed.result(20)
    async with running(create(bootstrap, topic, {}, tmp_path)) as app:
        await app.until(numbered(30, 40))


class Records:
    """A consumer between two fetches; what Faust changes meanwhile is set by the test."""

    def __init__(self, fetched: dict[TP, list[Any]], active: set[TP] | None) -> None:
        self.app = SimpleNamespace(
            consumer_generation_id=1, monitor=SimpleNamespace(track_tp_end_offset=lambda *_: None)
        )
        self.should_stop, self.flow_active = False, True
        self._fetched, self._active = fetched, active
        self._buffered_partitions: set[TP] = set()
        self.sought: dict[TP, int] = {}
        #: What agents have no room for, or Faust would drop, is left to Faust's own way; by default all of it.
        self.at_once: set[TP] = set()
        self.handed: list[TP] = []
        self._read_offset: dict[TP, int | None] = {}

    def _takes_at_once(self, message: Any) -> bool:
        return message.tp in self.at_once

    async def callback(self, message: Any) -> None:
        self.handed.append(message.tp)

    async def seek(self, tp: TP, offset: int) -> None:
        self.sought[tp] = offset

    async def _wait_next_records(self, _timeout: float) -> tuple[dict[TP, list[Any]], set[TP] | None]:
        return self._fetched, self._active

    def highwater(self, _tp: TP) -> int:
        return 9

    def _batch_message(self, tp: TP, batch: list[Any]) -> Any:
        return SimpleNamespace(tp=tp, offset=batch[-1].offset)


def record(offset: int) -> Any:
    return SimpleNamespace(offset=offset)


FETCHED: dict[TP, list[Any]] = {TP("t", 0): [record(3)], TP("t", 1): [record(4), record(5)], TP("t", 2): []}


def consumer(active: set[TP] | None = None) -> Any:
    return Records(FETCHED, active)


async def test_a_batch_of_an_older_assignment_is_dropped() -> None:
    given, got = consumer(), []
    async for tp, _ in Consumer.getmany(given, 1.0):
        got.append(tp)
        given.app.consumer_generation_id = 2
    assert got == [TP("t", 0)]


async def test_nothing_is_delivered_while_the_flow_is_stopped() -> None:
    given, got = consumer(), []
    async for tp, _ in Consumer.getmany(given, 1.0):
        got.append(tp)
        given.flow_active = False
    assert got == [TP("t", 0)]
    given.should_stop = True
    assert [tp async for tp, _ in Consumer.getmany(given, 1.0)] == []


async def test_what_was_fetched_while_its_partition_was_paused_is_fetched_again() -> None:
    """Its position is behind these records: dropping them would lose them without a sign."""
    given = consumer({TP("t", 0)})
    assert [tp async for tp, _ in Consumer.getmany(given, 1.0)] == [TP("t", 0)]
    assert given.sought == {TP("t", 1): 4}


async def test_what_was_fetched_for_a_full_buffer_is_delivered() -> None:
    given = consumer({TP("t", 0)})
    given._buffered_partitions = {TP("t", 1)}
    assert [tp async for tp, _ in Consumer.getmany(given, 1.0)] == [TP("t", 0), TP("t", 1)]
    assert not given.sought


async def test_what_agents_have_room_for_is_handed_to_them_and_the_rest_goes_the_way_that_waits() -> None:
    given = consumer()
    given.at_once = {TP("t", 1)}
    assert [tp async for tp, _ in Consumer.getmany(given, 1.0)] == [TP("t", 0)]
    assert given.handed == [TP("t", 1)]
    assert given._read_offset == {TP("t", 1): 5}


@pytest.mark.parametrize(
    ("read", "active", "waiting", "expected"),
    [(None, True, 0, True), (5, True, 1, True), (6, True, 0, False), (None, False, 0, False), (None, True, 2, False)],
)
def test_an_agent_is_handed_what_it_has_room_for(read: int | None, active: bool, waiting: int, expected: bool) -> None:
    tp = TP("t", 0)
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    for number in range(waiting):
        queue.put_nowait(number)
    given: Any = SimpleNamespace(
        _read_offset={tp: read},
        app=SimpleNamespace(
            topics=SimpleNamespace(_tp_index={tp: [SimpleNamespace(queue=queue)]}),
            flow_control=SimpleNamespace(is_active=lambda: active),
        ),
    )
    message: Any = SimpleNamespace(tp=tp, offset=5)
    assert Consumer._takes_at_once(given, message) is expected
