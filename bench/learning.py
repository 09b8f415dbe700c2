"""What an event costs to learn, and a list to rank, with no broker (`bench.brokerless`).

Learning: microseconds an event of everything that a worker does with it but for the broker and RocksDB, and the ranker's share of
them, over a simulated audience and over real logs where they are at hand, in micro-batches of a worker's size. The first
positives of a stream each teach the ranker, later ones in parts, so stretches are reported one by one. Microseconds are of the
processor (`us`); `wall_us` are those of the clock, in which others on the machine count too.

Ranking: the places of one user's list, once among their scores alone (`score_rows`), once as it is served (`rank`), for users who
have a history. Up to 20,000 videos all are searched for factors, beyond by the index, which holds everything before it is timed.

    python -m bench.learning --json
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from agents import ranking
from agents.app import CHUNK
from bench.brokerless import BrokerlessWorker
from bench.logs import LOGS, Log, data_folder
from bench.report import emit
from bench.workload import PARTITIONS, SEED, USERS, VIDEOS
from ingestion.simulate import Audience
from state.engine import Engine, EngineOptions
from state.expiry import DAY_MS
from state.index import EXACT_BELOW
from state.lists import rank
from state.ranking import score_rows
from topics.interactions import Interaction
from topics.record_batch import Record

#: Microseconds an event of the processor, of the simulated audience: all of it and its last stretch at most, and what is aimed at in
#: the latter, when the ranker has had most of its lessons.
LEARN_US, LEARN_AIM_US = 30.0, 20.0
#: Milliseconds a served list, in the median, of the least and the most videos.
RANK_LEAST_MS, RANK_MOST_MS = 0.5, 2.0
#: Length of the lists.
N = 10
#: Events made into records at once, so that a large log is not held twice.
PIECE = 10_000


class Plan(NamedTuple):
    """How much is measured.

    Attributes
    ----------
    users, videos, events, stretch : of the simulated audience that is learned, and after how many events a stretch ends
    logs : real ones that are learned too, where they are at hand
    catalogues : videos, and events learned before lists of them are ranked
    lists : users who get one
    """

    users: int = USERS
    videos: int = VIDEOS
    events: int = 300_000
    stretch: int = 50_000
    logs: tuple[Log, ...] = tuple(LOGS.values())
    catalogues: tuple[tuple[int, int], ...] = ((6_000, 100_000), (EXACT_BELOW, 100_000), (100_000, 300_000))
    lists: int = 500


QUICK = Plan(400, 300, 6_000, 3_000, (), ((300, 4_000), (600, 4_000)), 60)


class Timed:
    """Seconds of the processor and calls of one function of a module, while this is open.

    Parameters
    ----------
    module, name : where it is looked up when it is called
    """

    def __init__(self, module: Any, name: str) -> None:
        self._module, self._name = module, name
        self._real: Callable[..., Any] = getattr(module, name)
        self.seconds = 0.0
        self.calls = 0

    def __enter__(self) -> "Timed":
        setattr(self._module, self._name, self._timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._module, self._name, self._real)

    def _timed(self, *arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return self._real(*arguments, **named)
        finally:
            self.seconds += time.process_time() - began
            self.calls += 1


def micro_batches(
    worker: BrokerlessWorker, events: Iterable[Interaction], size: int = CHUNK
) -> Iterator[list[tuple[int, Record]]]:
    """Events as records, `size` of one partition at a time; what is left of each at the end."""
    waiting: dict[int, list[tuple[int, Record]]] = defaultdict(list)
    stream = iter(events)
    while piece := worker.records(islice(stream, PIECE)):
        for partition, made in piece:
            waiting[partition].append((partition, made))
            if len(waiting[partition]) == size:
                yield waiting.pop(partition)
    yield from waiting.values()


class Stretch:
    """What some events cost: the clocks and counters of a worker, from here on."""

    def __init__(self, worker: BrokerlessWorker, ranker: Timed) -> None:
        self._worker, self._ranker = worker, ranker
        self._lessons, self._positives = Counter(worker.engine.lessons), self._positives_now()
        self._ranker_s = ranker.seconds
        self.events = 0
        self.cpu_s = self.wall_s = 0.0

    def _positives_now(self) -> int:
        return self._worker.engine.totals().get("positives", 0)

    def add(self, events: int, work: Callable[[], None]) -> None:
        """Do work that learns so many events."""
        began, cpu_began = time.perf_counter(), time.process_time()
        work()
        self.cpu_s += time.process_time() - cpu_began
        self.wall_s += time.perf_counter() - began
        self.events += events

    def to_json(self) -> dict[str, Any]:
        """What it was up to now; microseconds are an event's, but for `lesson_us`."""
        ranker_s = self._ranker.seconds - self._ranker_s
        lessons = Counter(self._worker.engine.lessons)
        lessons.subtract(self._lessons)
        positives, given = self._positives_now() - self._positives, sum(lessons.values())
        per_event = 1e6 / max(self.events, 1)
        return {
            "events": self.events,
            "us": round(self.cpu_s * per_event, 1),
            "wall_us": round(self.wall_s * per_event, 1),
            "ranker_us": round(ranker_s * per_event, 1),
            "ranker_share": round(ranker_s / max(self.cpu_s, 1e-9), 3),
            "lesson_us": round(1e6 * ranker_s / given, 1) if given else None,
            "lessons": {name: lessons[name] for name in ("learned", "refused", "no_candidate")},
            "positives": positives,
            "taught_share": round(lessons["learned"] / max(positives, 1), 4),
        }


def learn(worker: BrokerlessWorker, events: Iterable[Interaction], total: int, stretch: int) -> dict[str, Any]:
    """Learn all `total` events; figures of all, and of each stretch of so many, the last with what is left."""
    with Timed(ranking, "learn") as ranker:
        whole, stretches = Stretch(worker, ranker), []
        now = Stretch(worker, ranker)

        def work(events: int, todo: Callable[[], None]) -> None:
            whole.add(events, lambda: now.add(events, todo))

        for batch in micro_batches(worker, events):
            if now.events >= stretch and total - whole.events >= stretch / 2:
                stretches.append(now.to_json())
                now = Stretch(worker, ranker)
            work(len(batch), lambda batch=batch: worker.learn(batch))  # type: ignore[misc] # binds it now
        work(0, worker.checkpoint)
        return {**whole.to_json(), "stretches": [*stretches, now.to_json()]}


def learn_audience(plan: Plan) -> dict[str, Any]:
    """Learn the simulated audience."""
    worker = _worker(plan.users, plan.videos)
    audience = Audience(SEED, plan.users, plan.videos)
    worker.publish(audience.videos())
    return learn(worker, audience.events(plan.events), plan.events, plan.stretch)


def learn_log(log: Log, plan: Plan) -> dict[str, Any]:
    """Learn a real log as a worker would: what is positive is its own rule, and its clock is as fast as the log."""
    read = log.read(data_folder())
    positives = int(read.table.positive().sum())
    days = max(int(read.table.at_ms[-1] - read.table.at_ms[0]) / DAY_MS, 1.0)
    worker = _worker(
        len(read.table.user_ids.unique()),
        len(read.table.video_ids.unique()) + len(read.videos),
        max(positives / days, 1e-3),
    )
    worker.publish(read.videos)
    worker.describe(read.users)
    return learn(worker, read.table.interactions(), len(read.table), plan.stretch)


def _worker(users: int, videos: int, positives_per_day: float = 5000.0) -> BrokerlessWorker:
    return BrokerlessWorker(EngineOptions(PARTITIONS, users, videos, positives_per_day, SEED))


def rank_lists(videos: int, events: int, plan: Plan) -> dict[str, Any]:
    """Learn some events of a catalogue, index it if it is that large, and rank lists."""
    worker = _worker(plan.users, videos)
    audience = Audience(SEED, plan.users, videos)
    worker.publish(audience.videos())
    for batch in micro_batches(worker, audience.events(events)):
        worker.learn(batch)
    worker.checkpoint()
    engine = worker.engine
    indexed = videos > EXACT_BELOW
    while indexed and engine.index.waiting:
        engine.index.refresh(engine.mf.columns["q"], engine.mf.columns["b"])
    return {"videos": videos, "search": "index" if indexed else "exact", **time_lists(engine, plan.lists)}


def time_lists(engine: Engine, lists: int) -> dict[str, Any]:
    """Milliseconds of a list for so many users with a history, by the scores alone and as served."""
    slots = np.flatnonzero(engine.users.history[: len(engine.users), 0] >= 0).tolist()
    slots = random.Random(SEED).sample(slots, min(lists, len(slots)))
    ways: Mapping[str, Callable[..., object]] = {"score_rows_ms": score_rows, "rank_ms": rank}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        # The first ones load code and caches.
        for slot in [*slots[:5], *slots]:
            context = engine.context(slot)
            allowed = engine.allowed(slot)
            began = time.perf_counter()
            way(engine, context, allowed, N)
            took[name].append(1000.0 * (time.perf_counter() - began))
    return {"lists": len(slots), **{name: _quantiles(times[5:]) for name, times in took.items()}}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.quantile(values, q / 100)), 3) for q in (50, 99)}


def targets(learned: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is aimed at, and whether it is reached; of the index only where a catalogue is large enough for it."""

    def at_most(limit: float, measured: float) -> dict[str, Any]:
        return {"at_most": limit, "measured": measured, "reached": measured <= limit}

    whole_us, last_us = learned["simulated"]["us"], learned["simulated"]["stretches"][-1]["us"]
    made = {
        "learn_us": at_most(LEARN_US, whole_us),
        "learn_us_last": at_most(LEARN_US, last_us),
        "learn_us_aim": at_most(LEARN_AIM_US, last_us),
    }
    for found, limit in ((ranked[0], RANK_LEAST_MS), (ranked[-1], RANK_MOST_MS)):
        if limit == RANK_LEAST_MS or found["search"] == "index":
            made[f"rank_ms_{found['videos']}"] = at_most(limit, found["rank_ms"]["p50"])
    return made


def run(plan: Plan, told: Callable[[str], None] = lambda _what: None) -> dict[str, Any]:
    """Learn, rank and compare; see the module."""
    # Compiled code is loaded here, not in the first stretch.
    learn_audience(QUICK._replace(events=2_000))
    told("learning a simulated audience")
    learned: dict[str, Any] = {"simulated": learn_audience(plan)}
    for log in plan.logs:
        if why := log.missing(data_folder()):
            told(f"leaving {log.name} out: {why}")
            continue
        told(f"learning {log.name}")
        learned[log.name] = learn_log(log, plan)
    ranked = []
    for videos, events in plan.catalogues:
        told(f"ranking {videos:,} videos")
        ranked.append(rank_lists(videos, events, plan))
    return {"targets": targets(learned, ranked), "learning": learned, "ranking": ranked}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny audience: shows that it runs, measures nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()
    errors = Console(stderr=True)
    figures = run(plan, lambda what: errors.print(what, soft_wrap=True, markup=False))
    emit(figures, n=plan.lists, as_json=options.json)


if __name__ == "__main__":
    main()
