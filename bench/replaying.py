"""One canonical replay in a process of its own, for `bench.replay` and tests: prints its events, seconds and digests as JSON.

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
    began = time.monotonic()
    replayer = replayed(Settings(), bootstrap, StoppingPoint(until_ms), fetch=fetch)
    seconds = time.monotonic() - began
    print(json.dumps({"events": replayer.events, "seconds": seconds, "digests": digests_of(replayer)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
