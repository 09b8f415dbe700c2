"""A Faust transport that delivers one message a fetched partition batch, reads only what is committed, and leaves offsets alone.

Stock Faust spends four tasks and futures on every record; here a record is a place in columns. Flows in: fetches of the shard
topics. Flows out: one `Message` a partition and fetch whose value is a `RecordBatch`. Always holds: the position of
a shard topic comes from the shard's cut (`app.cut_positions`), never from the group's committed offset, and the consumer
commits nothing: offsets are committed inside the checkpoint's transaction.

Registered as the scheme `headrace` (entry point group `faust.transports`).
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import aiokafka
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message
from faust.types.tuples import ConsumerMessage

from agents.fetched import read_columns
from topics.record_batch import RecordBatch

#: How long a fetch may wait for data, in ms. aiokafka keeps one fetch in flight a broker: a partition that has just been read
#: joins the next one only after this, so it bounds the delay of a quiet topic; at 20 ms an idle worker makes 50 fetches a second.
FETCH_WAIT_MS = 20


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer, set to read committed records and to answer soon."""

    async def on_start(self) -> None:
        """Start the consumer."""
        await super().on_start()
        read_columns(self._ensure_consumer())

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust passes neither setting on; both are read when the consumer starts.
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class Consumer(driver.Consumer):
    """Faust's consumer with batches for messages and the cut for positions."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust calls it so
        """Fetch, and yield one message a partition; nothing once the flow is stopped or the assignment is another one."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records or self.should_stop or not self.flow_active:
            return
        for tp, batch in records.items():
            if not self.flow_active or generation != self.app.consumer_generation_id:
                break
            if not len(batch):
                continue
            if active is not None and tp not in active and tp not in self._buffered_partitions:
                # Paused while the fetch was under way. The position is behind these records already: they have to come again.
                await self.seek(tp, batch[0].offset)
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            message = self._batch_message(tp, cast(RecordBatch, batch))
            if self._takes_at_once(message):
                # Nothing in this waits. Faust's own way takes three rounds of the loop a message, for it might.
                await self.callback(message)
                self._read_offset[tp] = message.offset
            else:
                yield tp, message

    def _takes_at_once(self, message: Message) -> bool:
        """Whether all agents of the partition have room for the message, and Faust would not drop it for having read further."""
        read = self._read_offset[message.tp]
        channels = cast(Any, self.app.topics)._tp_index[message.tp]
        return (
            (read is None or message.offset >= read)
            and self.app.flow_control.is_active()
            and not any(channel.queue.full() for channel in channels)
        )

    def _batch_message(self, tp: TP, batch: RecordBatch) -> Message:
        last = batch[-1]
        message = ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000.0, cast(Any, None), [], None, cast(Any, batch),
            None, tp=tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        return cast(Message, message)

    async def perform_seek(self) -> None:
        """Seek every assigned shard topic to its place in the shard's cut."""
        positions: Mapping[TP, int] = cast(Any, self.app).cut_positions()
        assigned = self.assignment()
        await self.seek_wait({tp: offset for tp, offset in positions.items() if tp in assigned})

    def _new_offset(self, tp: TP) -> int | None:
        """Never anything to commit: the checkpoint does. Forget the acks, or they would pile up."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return None

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Compaction and transaction markers leave gaps; nobody waits for them here."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's livelock detector watches committed offsets, which say nothing here."""


class Transport(driver.Transport):
    """`headrace://host:port`."""

    Consumer = Consumer
