"""Events/s: full learning, beside what Kafka's Python clients and other stream processors make of the same log.

    python -m bench.ingest --json

What is measured, in one run and on one log (`bench.workload`: simulated, four partitions by user, lz4):

raw_decode              aiokafka's `getmany` and `orjson.loads` of every value
batch_agent             our transport, and an agent that only decodes and checks
full_learning           a real `headrace worker`, default settings: decode, dedupe, all models, checkpoints, evidence hop
stock_faust             one RocksDB table write an event, changelog on
quix_streams            a count a user in its RocksDB state, changelog on; state is written at its checkpoints, every 5 s
kafka_streams           a count a user in RocksDB, changelog on, one thread, at least once, heap as printed; written at its commits,
                        every 30 s, as its default record cache of 10 MB holds all users here
kafka_streams_uncached  the same without the cache: a RocksDB write and a changelog record an event, as stock Faust does
kafka_streams_exactly_once  the same with the cache and the guarantee that ours has, exactly_once_v2, with its commit every 100 ms

All decode the JSON of every event. The peers' programs are in `bench/peers/`, each with the settings that are not its defaults.

How: the broker has a core, and this program with it; each contender has another one, alone, with all its threads. Contenders take
turns: all of them once, then all again. Each starts with nothing (a group, topics and folders of its own), at the beginning of a log
that is complete before. Its rate is counted from the end of the warm-up, a third of the events or of the time limit, to the last event
or the limit. Full learning has no limit and counts until the evidence of its last event is applied and committed; others are not
asked to commit. Progress is what a peer's own program says, checked against the sum of all counts in its changelog; ours
is `/readyz`, checked against the committed positions. The ratios are full learning's median over a peer's median.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka.admin import AdminClient

from bench import full_learning
from bench.contender import Run, on_core
from bench.peers import kafka_streams
from bench.peers.peer import PEERS, prepare
from bench.peers.peer import measure as measure_peer
from bench.rates import ratios, steady_rate
from bench.report import SCRATCH, emit, summary
from bench.workload import load
from infra.embedded_kafka import EmbeddedKafka
from infra.logs import configure_logs

OURS = "full_learning"
STREAMS = ("kafka_streams", "kafka_streams_uncached", "kafka_streams_exactly_once")
COMPARED = (*STREAMS, "quix_streams", "stock_faust", "raw_decode")
NAMES = ("raw_decode", "batch_agent", OURS, "stock_faust", "quix_streams", *STREAMS)
FOLDER = SCRATCH / "ingest"
#: A start may compile kernels, and joins a group; after that a contender that says nothing has failed.
STALL_S = 120.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    options = _parser().parse_args(arguments)
    configure_logs(level="warning")
    wanted = options.only.split(",") if options.only else NAMES
    if unknown := set(wanted) - set(NAMES):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    names = [name for name in NAMES if name in wanted]
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the broker, one for a contender")
    for name in names:
        if name in PEERS:
            prepare(name, SCRATCH)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with on_core(cores[0]):
        broker = EmbeddedKafka(FOLDER)
        broker.start()
    try:
        workload = load(broker.bootstrap, options.events, options.file)
        with on_core(cores[0]):
            rates = _run_all(broker.bootstrap, names, workload.events, cores[1], options)
    finally:
        broker.stop()
    summaries = {name: summary(runs, 0) for name, runs in rates.items()}
    emit(
        {
            "events_per_s": {name: found["median"] for name, found in summaries.items()},
            "ratios": ratios(rates, OURS, COMPARED),
            "spread": summaries,
            "events": workload.events,
            "positives_share": round(workload.positives_share, 4),
            "value_bytes": round(workload.value_bytes, 1),
            "workload": workload.source,
            "limit_s": options.limit_s,
            "cores": {"broker": cores[0], "contender": cores[1]},
            "kafka_streams_heap": " ".join(kafka_streams.HEAP),
        },
        n=options.runs,
        as_json=options.json,
    )


def _run_all(
    bootstrap: str, names: Sequence[str], events: int, core: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Rates by name, a run after the other."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    rates: dict[str, list[float]] = {name: [] for name in names}
    for run in range(options.runs):
        for name in names:
            identity = f"bench-{name}-{run}".replace("_", "-")
            folder = FOLDER / identity
            folder.mkdir()
            before = _topics(admin)
            turn = Run(bootstrap, identity, folder, events, core, options.limit_s, STALL_S)
            if name == OURS:
                samples = full_learning.measure(turn, options.profile if run == 0 else None)
            else:
                samples = measure_peer(name, SCRATCH, turn)
            rates[name].append(steady_rate(samples, events, options.limit_s))
            print(f"run {run + 1}: {name} {rates[name][-1]:,.0f} events/s", file=sys.stderr, flush=True)
            _remove(admin, _topics(admin) - before)
    return rates


def _topics(admin: AdminClient) -> set[str]:
    return set(admin.list_topics(timeout=10).topics)


def _remove(admin: AdminClient, topics: set[str]) -> None:
    """Remove a contender's own topics, so that the broker has no work left from it."""
    own = [topic for topic in topics if not topic.startswith("__")]
    if own:
        for future in admin.delete_topics(own).values():
            future.result()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.ingest", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="in the log (default %(default)s)")
    parser.add_argument("--file", type=Path, help="of events, instead of simulated ones: CSV, Parquet or JSON lines")
    parser.add_argument("--runs", type=int, default=3, help="of each contender (default %(default)s)")
    parser.add_argument("--limit-s", type=float, default=30.0, help="for a slow peer (default %(default)s s)")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="stacks of full learning's first run, by py-spy")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


if __name__ == "__main__":
    main()
