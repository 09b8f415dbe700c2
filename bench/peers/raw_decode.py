"""Raw aiokafka: `getmany`, and `orjson.loads` of every value. The ceiling for Python on this client."""

import asyncio
import signal
import sys

import orjson
from aiokafka import AIOKafkaConsumer

from bench.peers.progress import Progress
from topics.specs import INTERACTIONS


async def main(bootstrap: str, group: str, events: int) -> None:
    """Decode until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    progress = Progress(events)
    consumer = AIOKafkaConsumer(
        INTERACTIONS,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        while not stop.is_set():
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    orjson.loads(record.value)
                progress.add(len(records))
    progress.stopped()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[4])))
