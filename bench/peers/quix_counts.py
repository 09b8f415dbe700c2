"""Quix Streams: JSON in, one count a user in its RocksDB state, changelog on; all settings are its defaults."""

import sys
from pathlib import Path
from typing import Any

from quixstreams import Application, State

from bench.peers.progress import Progress

INTERACTIONS = "interactions"


def main(bootstrap: str, group: str, folder: str, events: int) -> None:
    """Count until told to stop; the last checkpoint is made before this returns."""
    progress = Progress(events)

    def count(_: Any, state: State) -> None:
        state.set("count", state.get("count", 0) + 1)
        progress.add()

    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=Path(folder),
        loglevel="WARNING",
    )
    topic = app.topic(INTERACTIONS, value_deserializer="json")
    app.dataframe(topic).update(count, stateful=True)
    app.run()
    progress.stopped()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
