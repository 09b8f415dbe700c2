"""Canonical replays of a real log: whether their digests are equal, and whether they are as fast as learning it live.

The log goes to the embedded broker in two halves. Between them it is replayed; afterwards a replay as of that moment must have the
same digests. Replays of the whole log, in processes of their own with other hash seeds and other sizes of fetches, must have equal
ones. In turns with them a real worker learns the whole log under a version of its own, which is then compared with its log
(`headrace verify`).

    python -m bench.replay --json
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench import full_learning
from bench.contender import Run, on_core
from bench.logs import LOGS, Read, data_folder
from bench.rates import Sample
from bench.report import SCRATCH, emit, summary
from cli.worker_process import worker_environment
from infra.embedded_kafka import EmbeddedKafka
from infra.logs import configure_logs
from ingestion.produce import produce_events, produce_users, produce_videos
from topics import specs

FOLDER = SCRATCH / "replay"
PARTITIONS = 4
#: Hash seeds and sizes of fetches of the replays, which must not matter.
WAYS = ((1, 5_000), (2, 777), (3, 2_500), (4, 100))
#: A process that takes longer has hung.
TIMEOUT_S = 3_600.0
#: A worker without progress for so long has hung.
STALL_S = 120.0


class ReplayFailed(RuntimeError):
    """A process ended without a result; the message has the end of its output."""


def replay(bootstrap: str, core: int, way: int, until_ms: int | None = None) -> dict[str, Any]:
    """Replay in a process of its own. Raises ReplayFailed."""
    hash_seed, fetch = WAYS[way % len(WAYS)]
    arguments = [bootstrap, str(fetch), *([] if until_ms is None else [str(until_ms)])]
    return _ask(["-m", "bench.replaying", *arguments], bootstrap, core, {"PYTHONHASHSEED": str(hash_seed)})


def verify(bootstrap: str, core: int, version: str) -> dict[str, Any]:
    """Compare a version with its log. Raises ReplayFailed."""
    return _ask(["-m", "cli.main", "verify", "--json", "--version", version], bootstrap, core, {}, statuses=(0, 1))


def _ask(
    arguments: Sequence[str], bootstrap: str, core: int, variables: dict[str, str], statuses: Sequence[int] = (0,)
) -> dict[str, Any]:
    environment = {**worker_environment(bootstrap, FOLDER / "home", 1, {}), **variables}
    with on_core(core):
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if done.returncode not in statuses:
        raise ReplayFailed(f"{arguments[1]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cpu_s() -> float:
    """Seconds of the processor that processes which were started from here, and have ended, have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def live_rate(samples: Sequence[Sample]) -> float:
    """Events/s from the first sign of progress until all is committed."""
    return (samples[-1].done - samples[0].done) / (samples[-1].at_s - samples[0].at_s)


def run(bootstrap: str, log: Read, runs: int, core: int) -> dict[str, Any]:
    """Load, replay, learn and compare."""
    specs.ensure_topics(bootstrap, specs.specs("headrace", "v1", PARTITIONS))
    produce_videos(bootstrap, log.videos)
    produce_users(bootstrap, log.users)
    half, events = len(log.table) // 2, len(log.table)
    produce_events(bootstrap, log.table.interactions(0, half))
    told(f"replaying {half:,} events")
    ended_there = replay(bootstrap, core, 0)
    # Arrival times are milliseconds of this machine's clock.
    time.sleep(0.05)
    then_ms = int(time.time() * 1000)
    time.sleep(0.05)
    produce_events(bootstrap, log.table.interactions(half, events))
    told("replaying as of then")
    as_of = replay(bootstrap, core, 1, then_ms)
    replays, live, verified = [], [], {}
    replay_cpu_us, live_cpu_us = [], []
    for number in range(max(2, runs)):
        told(f"replaying {events:,} events")
        before_s = cpu_s()
        replays.append(replay(bootstrap, core, number + 2))
        replay_cpu_us.append(1e6 * (cpu_s() - before_s) / events)
        if number < runs:
            told("learning them live")
            identity = f"live-{number}"
            (FOLDER / identity).mkdir()
            turn = Run(bootstrap, identity, FOLDER / identity, events, core, TIMEOUT_S, STALL_S)
            before_s = cpu_s()
            live.append(live_rate(full_learning.measure(turn, repeats=True)))
            live_cpu_us.append(1e6 * (cpu_s() - before_s) / events)
            if number == 0:
                told("comparing")
                verified = verify(bootstrap, core, identity)
    rates = [found["events_per_s"] for found in replays]
    return {
        "digests_equal": all(found["digests"] == replays[0]["digests"] for found in replays),
        "as_of_equal": as_of["digests"] == ended_there["digests"] != replays[0]["digests"],
        "events_per_s": round(median(rates)),
        "live_events_per_s": round(median(live)),
        "ratio": round(median(rates) / median(live), 3),
        "spread": {"replay": summary(rates, 0), "live": summary(live, 0)},
        # Of whole processes, their start and the catalogue included: others on the machine do not count.
        "cpu_us_per_event": {"replay": round(median(replay_cpu_us), 1), "live": round(median(live_cpu_us), 1)},
        "verify": {name: value for name, value in verified.items() if name != "first"},
        "digest": replays[0]["digests"]["all"],
        "events": events,
    }


def told(what: str) -> None:
    """Say what is being done."""
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.replay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the log's events, the first (default: all)")
    parser.add_argument(
        "--runs", type=int, default=3, help="of live learning, in turns with replays (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    configure_logs(level="warning")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the broker, one for who learns")
    log = LOGS["kuairand"].read(data_folder(), options.share)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with on_core(cores[0]):
        broker = EmbeddedKafka(FOLDER)
        broker.start()
    try:
        figures = run(broker.bootstrap, log, options.runs, cores[1])
    finally:
        broker.stop()
    shutil.rmtree(FOLDER)
    emit(figures, n=options.runs, as_json=options.json)


if __name__ == "__main__":
    main()
