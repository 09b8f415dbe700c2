"""One canonical replay in a process of its own, for `bench.replay` and tests: prints events, their rate and digests as JSON.

The rate is from the first window with events on, when the catalogue is read: as that of a worker is from its first progress.

python -m bench.replaying BOOTSTRAP FETCH [UNTIL_MS]
"""

import json
import sys
import time

from cli.canonical import digests_of, replayed
from cli.worker import load_kernels
from infra.logs import configure_logs
from infra.settings import Settings
from topics.canonical_log import StoppingPoint


def main(bootstrap: str, fetch: int, until_ms: int | None) -> None:
    """Replay, and print."""
    configure_logs(level="warning")
    load_kernels()
    samples: list[tuple[float, int]] = []

    def told(events: int, _all: int) -> None:
        if events and not samples:
            samples.append((time.monotonic(), events))

    began = time.monotonic()
    replayer = replayed(Settings(), bootstrap, StoppingPoint(until_ms), told, fetch)
    ended = time.monotonic()
    at_s, first = samples[0] if samples else (began, 0)
    rate = (replayer.events - first) / (ended - at_s)
    found = {"events": replayer.events, "seconds": ended - began, "events_per_s": rate, "digests": digests_of(replayer)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
