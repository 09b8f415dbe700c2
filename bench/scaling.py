"""Scaling: how much faster two workers learn than one, each with as much CPU time as the one.

Each turn has a broker and one or two real `headrace worker` processes of its own, with default settings, each held to `--quota` of a
core (`bench.quota`). They first learn `--warm-up` events, unhindered. Then a backlog of a simulated audience's events is written; the
clock runs from when it is whole until all of it is learned, and its evidence applied and committed.

events_per_s: of what was left to learn when the backlog was whole; `learned_per_s` until it is learned, without the wait for the last
evidence and commits. Shares are of a core: of each worker, of the broker, and of all that ran on the machine. Where a worker got less
than its quota, the machine had no more to give; `cpu_us` is the workers' CPU time an event, and `ratio_of_cpu` what the ratio would be
if each had got the same. `idle_cpu` is what a worker takes while nothing comes.

    python -m bench.scaling --json
"""

import argparse
import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console

from bench.full_learning import nothing_left, position_reader
from bench.quota import Quota, cpu_s
from bench.rates import TooShort
from bench.report import SCRATCH, emit, summary
from bench.workload import PARTITIONS, SEED, USERS, VIDEOS
from cli.worker_process import HOST, WorkerProcess, handled
from infra.embedded_kafka import EmbeddedKafka
from infra.kafka_probe import free_port
from infra.logs import configure_logs
from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import Audience
from topics.interactions import Interaction
from topics.specs import INTERACTIONS, ensure_topics, evidence_topic, specs

FOLDER = SCRATCH / "scaling"
APP, VERSION = "scaling", "v1"
LOOK_S = 0.2
#: Nothing comes for so long before and while the workers' CPU time of doing nothing is read.
IDLE_S = 3.0
#: Without progress, a turn has failed.
STALL_S = 120.0
#: Of the backlog, what must be left when it is whole.
LEAST_LEFT = 0.5
TARGET = 1.6


class ScalingFailed(RuntimeError):
    """A turn stood still, or workers started anew in it."""


def turn(count: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One measurement with so many workers. Raises ScalingFailed, TooShort."""
    audience = Audience(SEED, USERS, VIDEOS)
    events = audience.events(options.warm_up + options.events)
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(EmbeddedKafka(folder))
        ensure_topics(broker.bootstrap, specs(APP, VERSION, PARTITIONS))
        produce_videos(broker.bootstrap, audience.videos())
        workers = [
            WorkerProcess(name, broker.bootstrap, folder / name, port=free_port(HOST), app=APP, version=VERSION)
            for name in "ab"[:count]
        ]
        for worker in workers:
            stack.callback(worker.close)
            worker.start()
        _await_shared(workers)
        produce_events(broker.bootstrap, islice(events, options.warm_up))
        _await_learned(workers, options.warm_up)
        found = timed(workers, broker, events, options)
        _await_shared(workers)
        if any(worker.restarts for worker in workers):
            raise ScalingFailed("a worker restarted")
    shutil.rmtree(folder)
    return found


def timed(
    workers: Sequence[WorkerProcess], broker: EmbeddedKafka, events: Iterator[Interaction], options: argparse.Namespace
) -> dict[str, float]:
    """Write the backlog, and time the rest of it."""
    pids = [worker.pid for worker in workers if worker.pid is not None]
    topics = [INTERACTIONS, evidence_topic(APP, VERSION)]
    waiting = list(events)
    idle_cpu = _idle_cpu(pids)
    reader = position_reader(broker.bootstrap, f"{APP}.{VERSION}")
    with contextlib.closing(reader), Quota(pids, options.quota):
        produce_events(broker.bootstrap, waiting)
        begin = _learned(workers)
        left = options.warm_up + options.events - begin
        if left < LEAST_LEFT * options.events:
            raise TooShort(f"{options.events - left} events were learned while {options.events} were written")
        before = time.monotonic(), [cpu_s(pid) for pid in [*pids, broker.pid]], _busy_s()
        _await_learned(workers, options.warm_up + options.events)
        learned_s = time.monotonic() - before[0]
        while not nothing_left(reader, topics):
            time.sleep(LOOK_S)
        seconds = time.monotonic() - before[0]
        *used, broker_s = (cpu_s(pid) - was for pid, was in zip([*pids, broker.pid], before[1], strict=True))
        busy_s = _busy_s() - before[2]
    return {
        "events_per_s": left / seconds,
        "learned_per_s": left / learned_s,
        "idle_cpu": idle_cpu,
        "worker_cpu": sum(used) / len(used) / seconds,
        "broker_cpu": broker_s / seconds,
        "machine_cpu": busy_s / seconds,
        "cpu_us": 1e6 * sum(used) / left,
        "seconds": seconds,
    }


def compared(turns: Mapping[int, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Figures of each number of workers, and the ratio of two to one: of medians, and of the CPU time that an event takes."""
    medians = {count: {name: median(run[name] for run in runs) for name in runs[0]} for count, runs in turns.items()}
    ratio = medians[2]["events_per_s"] / medians[1]["events_per_s"]
    return {
        **{
            f"workers_{count}": {name: round(value, 3) for name, value in figures.items()}
            | {"spread": summary([run["events_per_s"] for run in turns[count]], 0)}
            for count, figures in medians.items()
        },
        "ratio": round(ratio, 3),
        "ratio_of_cpu": round(2 * medians[1]["cpu_us"] / medians[2]["cpu_us"], 3),
        "target": {"at_least": TARGET, "reached": ratio >= TARGET},
    }


def _await_shared(workers: Sequence[WorkerProcess]) -> None:
    """Wait until all shards are owned, and each worker has as many as any other."""
    deadline = time.monotonic() + STALL_S
    while True:
        owned = [answer["shards"] if (answer := worker.ready()) else [] for worker in workers]
        if all(len(shards) == PARTITIONS // len(workers) for shards in owned):
            return
        if time.monotonic() > deadline:
            raise ScalingFailed(f"shards are not shared evenly after {STALL_S:.0f} s: {owned}")
        time.sleep(LOOK_S)


def _learned(workers: Sequence[WorkerProcess]) -> int:
    return sum(handled(answer["totals"]) for worker in workers if (answer := worker.ready()))


def _await_learned(workers: Sequence[WorkerProcess], events: int) -> None:
    moved, before = time.monotonic(), -1
    while (done := _learned(workers)) < events:
        if done != before:
            moved, before = time.monotonic(), done
        elif time.monotonic() - moved > STALL_S:
            raise ScalingFailed(f"{done} of {events} events are learned, and no more for {STALL_S:.0f} s")
        time.sleep(LOOK_S)


def _idle_cpu(pids: Sequence[int]) -> float:
    """What a worker takes of a core while nothing comes."""
    time.sleep(IDLE_S)
    before = [cpu_s(pid) for pid in pids]
    time.sleep(IDLE_S)
    return sum(cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)) / len(pids) / IDLE_S


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000, help="of the backlog (default %(default)s)")
    parser.add_argument("--warm-up", type=int, default=200_000, help="events that are learned first")
    parser.add_argument("--quota", type=float, default=0.4, help="of a core, each worker's (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each number of workers (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    configure_logs(level="error")
    errors = Console(stderr=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    turns: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for number in range(options.runs):
        for count in (1, 2) if number % 2 == 0 else (2, 1):
            turns[count].append(turn(count, options, FOLDER / f"{number}-{count}"))
            errors.print(f"{count} worker(s): {turns[count][-1]}", soft_wrap=True, highlight=False)
    settings = {"quota": options.quota, "events": options.events, "users": USERS, "videos": VIDEOS}
    emit(compared(turns) | settings, n=options.runs, as_json=options.json)


if __name__ == "__main__":
    main()
