"""A producer that keeps to a rate: the background load of `bench.freshness`.

Events flow in from a file, a key, a tab and a value a line; they flow out at the given rate once a line comes on stdin. Prints
"ready", and at the end one JSON object with what was sent, in how many seconds, and how late the latest event was.

    python -m bench.pacing BOOTSTRAP FILE EVENTS_PER_S
"""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka import Producer

from topics.interactions import Interaction, encode
from topics.specs import INTERACTIONS, producer_config

#: Between looks at what is due: shorter than the producer's linger, so that the load is as even as its batches.
TURN_S = 0.005


def write_lines(events: Iterable[Interaction], file: Path) -> int:
    """Write events for a pacing process; returns how many."""
    count = 0
    with file.open("wb") as lines:
        for event in events:
            lines.write(event.user_id.encode() + b"\t" + encode(event) + b"\n")
            count += 1
    return count


def read_lines(file: Path) -> list[tuple[bytes, bytes]]:
    """Keys and values."""
    found = []
    for line in file.read_bytes().splitlines():
        key, _, value = line.partition(b"\t")
        found.append((key, value))
    return found


def pace(bootstrap: str, records: list[tuple[bytes, bytes]], rate: float) -> dict[str, float]:
    """Send the records at `rate` a second."""
    producer = Producer(producer_config(bootstrap))
    began = time.monotonic()
    sent = 0
    latest_s = 0.0
    while sent < len(records):
        elapsed = time.monotonic() - began
        due = min(int(elapsed * rate), len(records))
        if due > sent:
            latest_s = max(latest_s, elapsed - sent / rate)
        for key, value in records[sent:due]:
            producer.produce(INTERACTIONS, value, key)
        sent = due
        producer.poll(0)
        time.sleep(TURN_S)
    seconds = time.monotonic() - began
    if producer.flush(60):
        raise TimeoutError("the broker did not take all events in 60 s")
    return {"sent": sent, "seconds": seconds, "latest_s": latest_s}


if __name__ == "__main__":
    given = read_lines(Path(sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(pace(sys.argv[1], given, float(sys.argv[3]))), flush=True)
