"""Serving: what a worker answers while it learns, and what it learns while it answers.

A real `headrace worker` with default settings has a core alone; the broker, wrk (`bench.wrk`) and this program share another. For
each catalogue it first learns a log of a simulated audience's events, so that lists are personal. wrk then asks for lists of ten of
users who are in that log, each as likely as any other, over 1, 8 and 32 connections that ask again as soon as they are answered.

idle, learning_5000: `GET /v1/recommend/{user_id}` with no events coming, and with the audience's next ones at 5,000 a second.
Quantiles are wrk's, which count what a late answer held up; `answered_p99_ms` is of the answers alone. `owner_share` is of the
answers that were computed from the user's live state. `learned_per_s` and what follows it is of the same seconds: where
`worker_core_busy` is more than `worker_cpu`, others on the machine took the worker's time. `cpu_ms` is the worker's CPU time over
the answers, learning included; `taken_by_others` is of all levels.

backlog: events/s from a tenth to nine tenths of a backlog, alone and while 8 connections ask. It is written while the worker is
stopped (SIGSTOP), so that it is whole when the worker reads it.

freshness: from the send of an event to the first answer that shows it (`bench.probing`), at 5,000 events/s and while 8 connections
ask. Probes look at most every 20 ms (`hop`, across the evidence topic: 100), so their looks add little to what is asked; a sample is
late by up to that.

post: `POST /v1/events`, batches of 100 over 8 connections, events acknowledged a second. Then the topic is counted and the worker
learns: each acknowledged event is in the log, and each in the log is learned, or this fails.

Each run measures all levels once; a figure is the median of the runs, in whose `spread` each is. Freshness is of all samples.

    python -m bench.serving --json
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from bench import wrk
from bench.contender import on_core
from bench.freshness import SETTLE_S, STALL_S, loaded
from bench.probing import EVERY_S, Pair, Prober, hop_pairs, quantiles
from bench.rates import Sample, TooShort
from bench.report import SCRATCH, emit, summary
from bench.warm_worker import WarmWorker, warm_worker
from bench.workload import PARTITIONS, USERS
from bench.wrk import Load, Wrk
from cli.demo_probes import read_totals
from cli.worker_client import WorkerRefused
from infra.embedded_kafka import EmbeddedKafka
from infra.logs import configure_logs
from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import START_MS
from topics.catalog import Video
from topics.interactions import encode

FOLDER = SCRATCH / "serving"
#: Connections that ask; there are targets for AIMED of them.
CONNECTIONS = (1, 8, 32)
AIMED = 8
#: Events a second of the learning load.
LEARNING = 5_000
#: A level may take so much longer than it should: the load must last.
SPARE_S = 2.0
#: So much longer than its probes lasts the load that they are taken under.
AFTER_S = 5.0
#: Of a backlog, what is timed: as it begins and ends, the worker does other things too.
TIMED = (0.1, 0.9)
LOOK_S = 0.05
#: Between a probe's looks: they are requests too, and come on top of those of wrk.
OWN_LOOK_S, HOP_LOOK_S = 0.02, 0.1
#: Share of the worker's core up to which others on the machine do not matter.
QUIET = 0.05
#: Events that are there to be posted, for each second: enough not to begin anew.
POSTED_PER_S = 30_000
#: What is aimed at. Up to FEW videos a catalogue counts as small.
FEW = 6_000
P99_FEW_MS, P99_MANY_MS = 20.0, 35.0
IDLE_PER_S, LEARNING_PER_S = 1_000.0, 600.0
KEPT = 0.7
FRESH_P99_MS = 300.0
POST_PER_S = 20_000.0

Figures = dict[str, Any]


class Plan(NamedTuple):
    """How much is measured.

    Attributes
    ----------
    seconds : of a level
    runs : of each level
    warm_up, backlog : events
    """

    seconds: int
    runs: int
    warm_up: int
    backlog: int


def ask(worker: WarmWorker, connections: int, seconds: int) -> dict[str, float]:
    """Ask for lists over so many connections; figures of this run."""
    before = worker.meters.read()
    answers = wrk.run(worker.url, worker.lists(), connections, seconds)
    rates = worker.meters.read().since(before)
    return {
        "requests_per_s": answers.per_s,
        **{f"{name}_ms": value for name, value in answers.latency_ms.items()},
        "answered_p99_ms": answers.answered_ms["p99"],
        "errors": answers.errors,
        "owner_share": answers.counts["owner"] / answers.requests,
        "cpu_ms": 1000 * rates.worker_cpu / answers.per_s,
        **rates._asdict(),
    }


def combined(runs: Sequence[Mapping[str, float]]) -> Figures:
    """Medians, and the sum of the errors; how far the runs were apart."""
    return {
        **{name: round(float(np.median([run[name] for run in runs])), 3) for name in runs[0]},
        "errors": int(sum(run["errors"] for run in runs)),
        "spread": {name: summary([run[name] for run in runs]) for name in ("requests_per_s", "p99_ms")},
    }


def levels(worker: WarmWorker, plan: Plan) -> Figures:
    """Lists while nothing else comes, and while events do, in turn."""
    idle: dict[str, list[dict[str, float]]] = {f"c{connections}": [] for connections in CONNECTIONS}
    learning: dict[str, list[dict[str, float]]] = {name: [] for name in idle}
    sent_per_s, late_s = [], 0.0
    lasting = SETTLE_S + len(CONNECTIONS) * (plan.seconds + SPARE_S)
    for _ in range(plan.runs):
        worker.drain()
        for connections in CONNECTIONS:
            idle[f"c{connections}"].append(ask(worker, connections, plan.seconds))
        with loaded(worker.bootstrap, worker.events, LEARNING, lasting, worker.folder / "load") as load:
            time.sleep(SETTLE_S)
            for connections in CONNECTIONS:
                learning[f"c{connections}"].append(ask(worker, connections, plan.seconds))
        sent_per_s.append(load["sent"] / load["seconds"])
        late_s = max(late_s, load["latest_s"])
    return {
        "idle": {name: combined(runs) for name, runs in idle.items()},
        f"learning_{LEARNING}": {name: combined(runs) for name, runs in learning.items()},
        "events_per_s": round(float(np.median(sent_per_s))),
        "load_late_ms": round(late_s * 1000),
    }


def taken_by_others(found: Mapping[str, Any]) -> float:
    """Share of the worker's core that others on the machine took, over all levels: with much of it, all figures are too bad."""
    each = [level for load in ("idle", f"learning_{LEARNING}") for level in found[load].values()]
    return round(max(0.0, float(np.mean([level["worker_core_busy"] - level["worker_cpu"] for level in each]))), 3)


def backlogs(worker: WarmWorker, plan: Plan) -> Figures:
    """Events/s of a backlog, alone and while lists are asked for, in turn."""
    alone, asked, requests_per_s = [], [], []
    for _ in range(plan.runs):
        alone.append(timed(worker, write_backlog(worker, plan.backlog)))
        begin = write_backlog(worker, plan.backlog)
        with Wrk(worker.url, worker.lists(), AIMED, int(STALL_S)) as asking:
            asked.append(timed(worker, begin))
            requests_per_s.append(asking.stop().per_s)
    return {
        "events": plan.backlog,
        "alone_per_s": summary(alone, 0),
        f"c{AIMED}_per_s": summary(asked, 0),
        "kept": round(float(np.median(asked) / np.median(alone)), 3),
        "requests_per_s": round(float(np.median(requests_per_s)), 1),
    }


def write_backlog(worker: WarmWorker, events: int) -> int:
    """Write events while the worker is stopped, for a shorter time than its group waits for it; how many it had learned before."""
    waiting = list(islice(worker.events, events))
    begin = worker.drain().learned
    os.kill(worker.contender.pid, signal.SIGSTOP)
    try:
        produce_events(worker.bootstrap, waiting)
    finally:
        os.kill(worker.contender.pid, signal.SIGCONT)
    return begin


def timed(worker: WarmWorker, begin: int) -> float:
    """Events/s while the backlog is learned, of which `begin` is the first. Raises ContenderFailed, TooShort."""
    end, began = worker.meters.records(), time.monotonic()
    samples: list[Sample] = []
    while not samples or samples[-1].done < end:
        worker.contender.check()
        if time.monotonic() - began > STALL_S:
            raise worker.contender.failed(f"a backlog is not learned within {STALL_S:.0f} s")
        time.sleep(LOOK_S)
        done = sum(read_totals(worker.client).values())
        samples.append(Sample(time.monotonic(), done))
    return middle_rate(samples, begin, end)


def middle_rate(samples: Sequence[Sample], begin: int, end: int) -> float:
    """Events/s of the middle part of what lies between `begin` and `end`. Raises TooShort."""
    least, most = (begin + share * (end - begin) for share in TIMED)
    middle = [sample for sample in samples if least <= sample.done <= most]
    if len(middle) < 2 or middle[-1].done == middle[0].done:
        raise TooShort(f"{end - begin} events were learned between two looks: take a longer backlog")
    return (middle[-1].done - middle[0].done) / (middle[-1].at_s - middle[0].at_s)


def freshness(worker: WarmWorker, plan: Plan) -> Figures:
    """How late an event shows, while lists are asked for."""
    seconds = plan.seconds * plan.runs
    pairs = list(islice(hop_pairs(PARTITIONS), int(seconds / EVERY_S) + 10))
    produce_videos(worker.bootstrap, [(video, Video()) for pair in pairs for video in (pair.a, pair.b)])
    await_videos(worker, pairs)
    prober = Prober(worker.bootstrap, worker.url, START_MS, iter(pairs), OWN_LOOK_S, HOP_LOOK_S)
    lasting = SETTLE_S + seconds + AFTER_S
    with (
        loaded(worker.bootstrap, worker.events, LEARNING, lasting, worker.folder / "load") as load,
        Wrk(worker.url, worker.lists(), AIMED, int(STALL_S) + seconds) as asking,
    ):
        began = time.monotonic()
        asyncio.run(prober.run(seconds))
        probed_s = time.monotonic() - began
        answers = asking.stop()
    return {
        **quantiles(prober.own_s),
        "hop": quantiles(prober.hop_s),
        "look_every_ms": {"own": OWN_LOOK_S * 1000, "hop": HOP_LOOK_S * 1000},
        "looks_per_s": round(prober.requests / probed_s, 1),
        "requests_per_s": round(answers.per_s, 1),
        "events_per_s": round(load["sent"] / load["seconds"]),
    }


def await_videos(worker: WarmWorker, pairs: Sequence[Pair]) -> None:
    """Wait until the worker knows the probes' videos. Raises ContenderFailed."""
    deadline = time.monotonic() + STALL_S
    for pair in pairs:
        while True:
            worker.contender.check()
            with contextlib.suppress(WorkerRefused):
                worker.client.ask("GET", f"/v1/similar/{pair.a}?n=1")
                break
            if time.monotonic() > deadline:
                raise worker.contender.failed(f"{pair.a} is not known after {STALL_S:.0f} s")
            time.sleep(LOOK_S)


def post(worker: WarmWorker, plan: Plan) -> Figures:
    """Events/s by HTTP, and what became of them. Raises ContenderFailed if it is not what was acknowledged."""
    per_s, p50_ms, p99_ms = [], [], []
    found = dict.fromkeys(("acknowledged", "refused", "errors", "records", "learned"), 0)
    for number in range(plan.runs):
        file = worker.folder / "posts"
        file.write_bytes(
            b"".join(without_id(encode(event)) for event in islice(worker.events, POSTED_PER_S * plan.seconds))
        )
        before, learned_before = worker.drain(), learned(worker)
        load = Load("wrk_events.lua", (str(file), f"post-{number}"))
        answers = wrk.run(f"{worker.url}/v1/events", load, AIMED, plan.seconds)
        after, learned_after = worker.drain(), learned(worker)
        per_s.append(answers.counts["accepted"] / answers.seconds)
        p50_ms.append(answers.latency_ms["p50"])
        p99_ms.append(answers.latency_ms["p99"])
        of_run = {
            "acknowledged": answers.counts["accepted"],
            "refused": answers.counts["refused"],
            "errors": answers.errors,
            "records": after.sent - before.sent,
            "learned": learned_after - learned_before,
        }
        if not is_whole(of_run):
            raise worker.contender.failed(f"what is acknowledged, in the log and learned does not agree: {of_run}")
        found = {name: found[name] + of_run[name] for name in found}
    return {
        "events_per_s": round(float(np.median(per_s))),
        "p50_ms": round(float(np.median(p50_ms)), 3),
        "p99_ms": round(float(np.median(p99_ms)), 3),
        "connections": AIMED,
        **found,
        "spread": {"events_per_s": summary(per_s, 0), "p99_ms": summary(p99_ms)},
    }


def is_whole(counts: Mapping[str, int]) -> bool:
    """Whether all that was acknowledged is in the log, and all that is there is learned; more may be, where an answer was cut off."""
    return counts["acknowledged"] <= counts["records"] == counts["learned"]


def without_id(value: bytes) -> bytes:
    """An event's JSON as a line for `wrk_events.lua`, which gives it an id of its own."""
    head, _, rest = value.partition(b",")
    if not head.startswith(b'{"event_id":"'):
        raise ValueError(f"an event that does not begin with its id: {value[:40]!r}")
    return rest + b"\n"


def learned(worker: WarmWorker) -> int:
    """Events that were neither dead nor doubled."""
    totals = read_totals(worker.client)
    return totals["learned"] + totals["ignored"]


def targets(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is aimed at for a catalogue, and whether it is reached."""

    def at_most(limit: float, measured: float) -> dict[str, Any]:
        return {"at_most": limit, "measured": measured, "reached": measured <= limit}

    def at_least(limit: float, measured: float) -> dict[str, Any]:
        return {"at_least": limit, "measured": measured, "reached": measured >= limit}

    idle, learning = found["idle"][f"c{AIMED}"], found[f"learning_{LEARNING}"][f"c{AIMED}"]
    few = found["videos"] <= FEW
    made = {"learning_p99_ms": at_most(P99_FEW_MS if few else P99_MANY_MS, learning["p99_ms"])}
    if few:
        made["learning_requests_per_s"] = at_least(LEARNING_PER_S, learning["requests_per_s"])
        made["idle_requests_per_s"] = at_least(IDLE_PER_S, idle["requests_per_s"])
    return made | {
        "learned_share": at_least(KEPT, round(learning["learned_per_s"] / learning["sent_per_s"], 3)),
        "backlog_kept": at_least(KEPT, found["backlog"]["kept"]),
        "fresh_p99_ms": at_most(FRESH_P99_MS, found["freshness"]["p99_ms"]),
        "post_events_per_s": at_least(POST_PER_S, found["post"]["events_per_s"]),
    }


def catalogue(videos: int, plan: Plan, cores: tuple[int, int], told: Callable[[str], None]) -> Figures:
    """All figures of a catalogue, with a broker and a worker of its own; `cores` are the worker's and that of all else."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    folder = FOLDER / "worker"
    folder.mkdir(parents=True)
    with on_core(cores[1]), EmbeddedKafka(FOLDER) as broker:
        told(f"{videos:,} videos: learning {plan.warm_up:,} events")
        with warm_worker(broker, folder, videos, plan.warm_up, cores) as worker:
            found: Figures = {
                "videos": videos,
                "users": USERS,
                "users_asked": worker.asked,
                "warm_up_events": plan.warm_up,
                "index_rows": worker.index_rows,
                "index_s": round(worker.index_s, 1),
            }
            told(f"{videos:,} videos: lists")
            found |= levels(worker, plan)
            found["taken_by_others"] = taken_by_others(found)
            if found["taken_by_others"] > QUIET:
                told(
                    f"others took {found['taken_by_others']:.0%} of the worker's core: compare nothing with these figures"
                )
            for name, phase in (("backlog", backlogs), ("freshness", freshness), ("post", post)):
                told(f"{videos:,} videos: {name}")
                found[name] = phase(worker, plan)
    shutil.rmtree(FOLDER)
    return found | {"targets": targets(found)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", default="6000,100000", help="of each catalogue (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="of a level (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each level (default %(default)s)")
    parser.add_argument(
        "--warm-up", type=int, default=1_000_000, help="events that are learned first (default %(default)s)"
    )
    parser.add_argument("--backlog", type=int, default=200_000, help="events of a backlog (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    configure_logs(level="warning")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the worker, one for all else")
    try:
        wrk.find_wrk()
    except wrk.WrkMissing as error:
        sys.exit(str(error))
    errors = Console(stderr=True)
    plan = Plan(options.seconds, options.runs, options.warm_up, options.backlog)
    found = [
        catalogue(
            int(videos), plan, (cores[1], cores[0]), lambda what: errors.print(what, soft_wrap=True, markup=False)
        )
        for videos in options.videos.split(",")
    ]
    emit({"catalogues": found, "seconds_a_level": plan.seconds}, n=plan.runs, as_json=options.json)


if __name__ == "__main__":
    main()
