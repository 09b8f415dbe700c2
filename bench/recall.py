"""Recall@100 of the live graph index against exact search, while the vectors that it holds drift.

The engine learns a simulated audience at a given rate with no broker. The index is refreshed as in a worker: in its own thread,
with the worker's budget and pause. About once a second the lists of some users, as the index answers them, are compared with the
exact order by `b + q . z` over the same rows. What the index costs beside its thread is in `search_ms` (`apart` rows of it are
scored one by one) and, for comparison, `exact_ms`: scoring all rows.

    python -m bench.recall --json
"""

import argparse
import random
import threading
import time
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np

from agents.app import INDEX_BUDGET_S, INDEX_PAUSE_S
from agents.transport import FETCH_WAIT_MS
from bench.brokerless import BrokerlessWorker
from bench.report import emit
from ingestion.simulate import Audience
from state.engine import Engine, EngineOptions
from state.index_recall import AT, recall
from topics.record_batch import Record


class Sample(NamedTuple):
    """Mean over some users' lists, and the seconds that each search took."""

    recall: float
    searches_s: list[float]
    exact_s: list[float]


class Indexing:
    """The worker's index thread; counts its CPU seconds and the rows it wrote."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)
        self.cpu_s = 0.0
        self.written = 0
        self.longest_s = 0.0

    def __enter__(self) -> "Indexing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INDEX_PAUSE_S):
            began = time.monotonic()
            columns = self._engine.mf.columns
            self.written += self._engine.index.refresh(columns["q"], columns["b"], INDEX_BUDGET_S)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.cpu_s = time.thread_time()


def sample(engine: Engine, users: int, random_: random.Random) -> Sample:
    """Compare lists of some users who have a history."""
    with_history = np.flatnonzero(engine.users.history[: len(engine.users), 0] >= 0).tolist()
    allowed = engine.replica.active[: len(engine.replica)]
    scores = np.empty(len(allowed), np.float32)
    q, b = engine.mf.columns["q"], engine.mf.columns["b"]
    recalls, searches_s, exact_s = [], [], []
    for slot in random_.sample(with_history, min(users, len(with_history))):
        context = engine.context(slot)
        z = engine.mf.user_vector(context.p, context.history)
        began = time.perf_counter()
        found = engine.index.search(z, AT, q, b)
        searches_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        engine.mf.scores(z, scores)
        exact_s.append(time.perf_counter() - began)
        recalls.append(recall(found, scores, allowed, AT))
    return Sample(fmean(recalls), searches_s, exact_s)


def measured_maximum(worker: BrokerlessWorker, records: list[tuple[int, Record]]) -> float:
    """Events/s of learning as fast as it goes."""
    began = time.monotonic()
    turn = 2_000
    for first in range(0, len(records), turn):
        worker.learn(records[first : first + turn])
    return len(records) / (time.monotonic() - began)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Learn, index and compare; see the module."""
    random_ = random.Random(options.seed)
    worker = BrokerlessWorker(EngineOptions(max_users=options.users, max_videos=options.videos, seed=options.seed))
    engine = worker.engine
    audience = Audience(options.seed, options.users, options.videos)
    stream = audience.events(2**62)
    worker.publish(audience.videos())
    worker.checkpoint()

    def take(n: int) -> list[tuple[int, Record]]:
        return worker.records(next(stream) for _ in range(n))

    for _ in range(max(1, options.warm_up // 50_000)):
        measured_maximum(worker, take(min(50_000, options.warm_up)))
    began = time.monotonic()
    while engine.index.waiting:
        engine.index.refresh(engine.mf.columns["q"], engine.mf.columns["b"])
    fill_s = time.monotonic() - began
    at_start = sample(engine, options.lists, random_).recall

    maximum = None
    rate = options.events_per_s
    if rate is None:
        probe = take(100_000)
        with Indexing(engine):
            maximum = measured_maximum(worker, probe)
        rate = maximum / 2
    ready = take(int(rate * options.seconds * 1.05))

    curve: list[dict[str, float]] = []
    searches_s: list[float] = []
    exact_s: list[float] = []
    done = 0
    with Indexing(engine) as indexing:
        began = time.monotonic()
        sample_at = began + options.every
        while (elapsed := time.monotonic() - began) < options.seconds:
            due = min(int(elapsed * rate), len(ready))
            worker.learn(ready[done:due])
            done = due
            if time.monotonic() >= sample_at:
                found = sample(engine, options.lists, random_)
                searches_s += found.searches_s
                exact_s += found.exact_s
                curve.append(
                    {
                        "s": round(elapsed, 1),
                        "recall": round(found.recall, 4),
                        "waiting": engine.index.waiting,
                        "apart": engine.index.apart,
                    }
                )
                sample_at = time.monotonic() + options.every
            time.sleep(FETCH_WAIT_MS / 1000)
        seconds = time.monotonic() - began
    settled = [point for point in curve if point["s"] >= options.settle]
    return {
        "recall@100": round(fmean(point["recall"] for point in settled), 4),
        "recall@100_min": min(point["recall"] for point in settled),
        "recall@100_at_start": round(at_start, 4),
        "cpu_share": round(indexing.cpu_s / seconds, 4),
        "videos": len(engine.index),
        "events_per_s": round(done / seconds),
        "max_events_per_s": None if maximum is None else round(maximum),
        "users": options.users,
        "waiting": engine.index.waiting,
        "apart": engine.index.apart,
        "rows_written_per_s": round(indexing.written / seconds),
        "refresh_longest_ms": round(indexing.longest_s * 1000, 1),
        "search_ms": {"p50": _ms(median(searches_s)), "p99": _ms(float(np.quantile(searches_s, 0.99)))},
        "exact_ms": {"p50": _ms(median(exact_s))},
        "budget": {"work_s": INDEX_BUDGET_S, "pause_s": INDEX_PAUSE_S},
        "vectors": f"initial ones, then {options.warm_up} events learned before the index was filled in {fill_s:.0f} s",
        "curve": curve,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--warm-up", type=int, default=300_000, help="events learned before the index is filled")
    parser.add_argument("--events-per-s", type=float, help="default: half of the maximum, measured at the start")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--settle", type=float, default=5.0, help="seconds left out of the mean")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between comparisons")
    parser.add_argument("--lists", type=int, default=20, help="users compared each time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = run(options)
    emit(figures, n=len(figures["curve"]) * options.lists, as_json=options.json)


if __name__ == "__main__":
    main()
