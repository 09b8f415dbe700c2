"""Freshness: milliseconds from the send of an event to the first answer that shows its effect, under load.

A real `headrace worker` with default settings has a core alone; the broker, the producer of the load and the probes
(`bench.probing`) share another. First a backlog gives the maximum, measured as `bench.ingest` measures full learning, unless
`--max-rate` does. Then a simulated audience's events come at 10, 50 and 80% of it, while probes of two kinds look for what they
changed: the user's own next list, and across the hop through the evidence topic. Samples end with a look, so they are late by
up to `look_every_ms` (a tenth of themselves, if that is more) and by the time that an answer takes.

    python -m bench.freshness --json
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.contender import Contender, Run, on_core
from bench.full_learning import COMMAND, HOST, await_committed, environment, learn
from bench.pacing import write_lines
from bench.probing import EVERY_S, HOP_LOOK_S, LOOK_S, Pair, Prober, hop_pairs, quantiles
from bench.rates import Sample, steady_rate
from bench.report import SCRATCH, emit
from bench.workload import PARTITIONS, SEED, USERS, VIDEOS
from cli.demo_probes import read_totals
from cli.worker_client import WorkerClient, WorkerUnavailable
from infra.embedded_kafka import EmbeddedKafka
from infra.kafka_probe import free_port
from infra.logs import configure_logs
from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import START_MS, Audience
from topics.catalog import Video
from topics.interactions import Interaction
from topics.specs import ensure_topics, specs

FOLDER = SCRATCH / "freshness"
SHARES = (10, 50, 80)
STALL_S = 120.0
#: The load flows this long before the first sample.
SETTLE_S = 3.0
#: Totals that stand still for so long mean that all is learned.
STILL_S = 1.0


def totals_of(client: WorkerClient) -> int:
    """Events that are learned, ignored, doubled or dead; 0 while nobody answers."""
    try:
        return sum(read_totals(client).values())
    except WorkerUnavailable:
        return 0


def learn_backlog(worker: Contender, run: Run, client: WorkerClient) -> list[Sample]:
    """Wait until a worker has learned the backlog, and applied its evidence; returns its progress. Raises ContenderFailed."""
    samples: list[Sample] = []
    learn(worker, run, client, samples, lambda: samples[-1].done >= run.events)
    await_committed(worker, run)
    samples.append(Sample(time.monotonic(), run.events))
    return samples


def drain(worker: Contender, client: WorkerClient) -> None:
    """Wait until nothing is left to learn. Raises ContenderFailed."""
    deadline = time.monotonic() + STALL_S
    last, since = -1, time.monotonic()
    while time.monotonic() - since < STILL_S:
        worker.check()
        if time.monotonic() > deadline:
            raise worker.failed(f"what was sent is not learned within {STALL_S:.0f} s")
        time.sleep(0.2)
        if (done := totals_of(client)) != last:
            last, since = done, time.monotonic()


@contextlib.contextmanager
def loaded(
    bootstrap: str, events: Iterator[Interaction], rate: float, seconds: float, file: Path
) -> Iterator[dict[str, float]]:
    """Send events at `rate` during the block, in a process of its own that reads them from `file`, which is made.

    What it yields is filled when the block is over.
    """
    write_lines(islice(events, int(rate * seconds)), file)
    command = [sys.executable, "-m", "bench.pacing", bootstrap, str(file), str(rate)]
    found: dict[str, float] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101 - as above
        try:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the producer of the load did not start")
            process.stdin.write("go\n")
            process.stdin.flush()
            yield found
            found |= json.loads(process.stdout.readline())
        finally:
            process.kill()


def level(
    bootstrap: str, url: str, events: Iterator[Interaction], pairs: Iterator[Pair], rate: float, seconds: float
) -> dict[str, Any]:
    """Freshness at `rate` events/s."""
    # The load lasts longer than the probes, whose first and last samples are to be taken under it too.
    lasting = SETTLE_S + seconds + 5.0
    with loaded(bootstrap, events, rate, lasting, FOLDER / "load.tsv") as load:
        prober = Prober(bootstrap, url, START_MS, pairs)
        began = time.monotonic()
        asyncio.run(prober.run(seconds))
        probed_s = time.monotonic() - began
    return {
        **quantiles(prober.own_s),
        "hop": quantiles(prober.hop_s),
        "events_per_s": round(load["sent"] / load["seconds"]),
        "load_late_ms": round(load["latest_s"] * 1000),
        "requests_per_s": round(prober.requests / probed_s),
    }


def run(bootstrap: str, options: argparse.Namespace, core: int) -> dict[str, Any]:
    """Measure the maximum, then each level."""
    audience = Audience(SEED, USERS, VIDEOS)
    events = audience.events(2**62)
    ensure_topics(bootstrap, specs("headrace", "freshness", PARTITIONS))
    pairs = list(islice(hop_pairs(PARTITIONS), len(SHARES) * (int(options.seconds / EVERY_S) + 10)))
    produce_videos(bootstrap, audience.videos())
    produce_videos(bootstrap, [(video, Video()) for pair in pairs for video in (pair.a, pair.b)])
    produce_events(bootstrap, islice(events, options.backlog))
    folder = FOLDER / "worker"
    folder.mkdir()
    setup = Run(bootstrap, "freshness", folder, options.backlog, core, STALL_S, STALL_S)
    port = free_port(HOST)
    url = f"http://{HOST}:{port}"
    client = WorkerClient(url)
    unused = iter(pairs)
    with Contender(setup, COMMAND, environment(setup, port)) as worker, contextlib.closing(client):
        samples = learn_backlog(worker, setup, client)
        maximum = options.max_rate or steady_rate(samples, options.backlog, STALL_S)
        figures: dict[str, Any] = {"max_events_per_s": round(maximum)}
        for share in SHARES:
            drain(worker, client)
            figures[f"load_{share}"] = level(bootstrap, url, events, unused, maximum * share / 100, options.seconds)
        worker.end()
    return {
        **figures,
        "look_every_ms": {"own": LOOK_S * 1000, "hop": HOP_LOOK_S * 1000},
        "users": USERS,
        "videos": VIDEOS + 2 * len(pairs),
    }


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-rate", type=float, help="events/s that count as the maximum; default: measured here")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="events that are learned first")
    parser.add_argument("--seconds", type=float, default=20.0, help="of probes, a level")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configure_logs(level="warning")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the worker, one for all else")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with on_core(cores[0]):
        broker = EmbeddedKafka(FOLDER)
        broker.start()
        try:
            figures = run(broker.bootstrap, options, cores[1])
        finally:
            broker.stop()
    shutil.rmtree(FOLDER)
    least = min(min(figures[f"load_{share}"]["n"], figures[f"load_{share}"]["hop"]["n"]) for share in SHARES)
    emit(figures, n=least, as_json=options.json)


if __name__ == "__main__":
    main()
