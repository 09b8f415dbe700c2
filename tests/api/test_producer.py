"""What is written behind: it comes in batches and in order, what is lost is counted, and nothing piles up."""

import asyncio
import time

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from api import producer
from api.producer import LogWriter
from infra import metrics
from infra.kafka_probe import free_port
from tests.agents.running_worker import HOST, read_committed
from topics.partitions import partition_of

PARTITIONS = 4


def lost() -> float:
    """Lists that were lost so far, in this process."""
    return float(metrics.LISTS_LOST._value.get())


@pytest.fixture(scope="module")
def topic(bootstrap: str) -> str:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic("written-behind", PARTITIONS, 1)]).values():
        future.result()
    return "written-behind"


@pytest.mark.broker
async def test_all_arrive_in_order_and_in_few_batches(
    bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, before, calls = LogWriter(bootstrap, PARTITIONS), lost(), 0
    append = writer._append

    async def counted(records: dict[tuple[str, int], list[tuple[bytes, bytes]]]) -> int:
        nonlocal calls
        calls += 1
        return await append(records)

    monkeypatch.setattr(writer, "_append", counted)
    for number in range(300):
        writer.write_behind(topic, f"user{number % 7}", b"%06d" % number)
        if number % 100 == 99:
            await asyncio.sleep(0)
    await writer.stop()
    records = [(record.partition(), record.key(), record.value()) for record in read_committed(bootstrap, topic)]
    assert sorted(value or b"" for _, _, value in records) == [b"%06d" % number for number in range(300)]
    for user in range(7):
        key = f"user{user}".encode()
        mine = [
            value for partition, each, value in records if each == key and partition == partition_of(key, PARTITIONS)
        ]
        assert mine == [b"%06d" % number for number in range(user, 300, 7)]
    assert calls < 10
    assert lost() == before


@pytest.mark.broker
async def test_one_that_is_too_large_is_lost_alone(bootstrap: str, topic: str) -> None:
    writer, before = LogWriter(bootstrap, PARTITIONS), lost()
    for value in (b"first", bytes(producer.BATCH_BYTES + 1), b"last"):
        writer.write_behind(topic, "large", value)
    await writer.stop()
    assert [record.value() for record in read_committed(bootstrap, topic) if record.key() == b"large"] == [
        b"first",
        b"last",
    ]
    assert lost() == before + 1


async def test_without_a_broker_nobody_waits_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "ACK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(producer, "MAX_BEHIND", 10)
    writer, before = LogWriter(f"{HOST}:{free_port(HOST)}", PARTITIONS), lost()
    began = time.perf_counter()
    for number in range(25):
        writer.write_behind("nowhere", f"user{number}", b"list")
    assert time.perf_counter() - began < 1.0
    assert lost() == before + 15, "what finds no room"
    await writer.stop()
    assert lost() == before + 25, "what finds no broker"
    writer.write_behind("nowhere", "user", b"list")
    assert lost() == before + 25, "there is room again"
    await writer.stop()
