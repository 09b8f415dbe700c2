"""Headrace's transport with an agent that only decodes: what is left of the rate before anything is learned."""

import sys
from typing import Any

import faust
from faust.types import TP

from bench.peers.progress import Progress
from topics.event_columns import read_events
from topics.specs import INTERACTIONS

PARTITIONS = 4
FUTURE_TOLERANCE_MS = 600_000


class BatchApp(faust.App):
    """What the transport asks of an app; without state it begins where the group would: at the beginning."""

    def cut_positions(self) -> dict[TP, int]:
        """No state, no cut."""
        return {}


def create_app(bootstrap: str, group: str, folder: str, progress: Progress) -> BatchApp:
    """Build the app with the settings of a worker."""
    app = BatchApp(
        group,
        broker=f"headrace://{bootstrap}",
        broker_producer=f"kafka://{bootstrap}",
        datadir=folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        broker_max_poll_records=4000,
        consumer_auto_offset_reset="earliest",
    )

    async def agent(stream: faust.StreamT[Any]) -> None:
        async for event in stream.events():
            records = event.message.value
            read_events(
                records,
                partition=event.message.partition,
                partitions=PARTITIONS,
                future_tolerance_ms=FUTURE_TOLERANCE_MS,
            )
            progress.add(len(records))

    topic = app.topic(INTERACTIONS, key_serializer="raw", value_serializer="raw")
    app.agent(topic, name="decode", concurrency=1)(agent)
    return app


if __name__ == "__main__":
    counted = Progress(int(sys.argv[4]))
    worker = faust.Worker(
        create_app(sys.argv[1], sys.argv[2], sys.argv[3], counted), loglevel="warning", redirect_stdouts=False
    )
    try:
        worker.execute_from_commandline()
    finally:
        counted.stopped()
