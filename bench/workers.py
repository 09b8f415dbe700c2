"""Several workers: what clients notice of workers that die, stop and come back, and of a broker that restarts; then a recount.

One embedded broker and `--workers` real `headrace worker` processes in one group. Events of a simulated audience come at `--rate`,
with retries, repeats and nonsense (`cli.chaos_load`), while `bench.balancer` asks for lists of random users at `--requests` a second,
spread over the workers that are ready. In mid-stream a worker is killed with SIGKILL and started again once the others have its
shards, another one is told to stop and started again, and the broker is restarted.

failed: requests that no worker answered with a success within 5 s. `retried` went on to another one. `stale` is the age of the state
that answered (now - `as_of_ms`).

faults: `owned_s` is from the fault until all shards are owned by workers that are ready, `learned_s` until all that was acknowledged
by then is learned too, `rejoined_s` from the worker's new start until all workers own some. With each are the requests from the fault
until the last of these.

lost, doubled: events too few and too many in what was committed, by user, by video and in the totals, against a recount of the log
(`cli.chaos_verify`), and acknowledged events that are not in the log. `differences` counts all else that differs too.

log_bytes: what the broker keeps of each topic as the run ends, an event; of the changelogs, which are compacted, and of
`recommendations`, a list.

Nothing is pinned to a core: all processes share the machine's, so times are those of a crowded machine.

    python -m bench.workers --json
"""

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bench.answers import PATIENCE_S, Answer, between, summarize
from bench.balancer import read_answers
from bench.report import SCRATCH, emit
from cli.chaos_compare import Comparison
from cli.chaos_faults import ChaosFailed, Faults
from cli.chaos_load import THREADS, Load, Shape, user_name
from cli.chaos_verify import LoggedEvents
from cli.worker_process import HOST, WorkerProcess, handled
from infra.embedded_kafka import EmbeddedKafka
from infra.kafka_probe import free_port
from infra.logs import configure_logs
from topics.specs import INTERACTIONS, RECOMMENDATIONS, changelog_topic, ensure_topics, evidence_topic, specs

FOLDER = SCRATCH / "workers"
APP, VERSION, PARTITIONS, SEED = "workers", "v1", 4, 1
#: Of the audience: users of each producing thread, and videos.
USERS, VIDEOS = 7_000, 2_000
#: About those of a day of the audience's events, so that links fade as they would.
POSITIVES_PER_DAY = 300_000.0
FUTURE_TOLERANCE_S = 600
N = 10
PER_EVENT = {
    "interactions": INTERACTIONS,
    "evidence": evidence_topic(APP, VERSION),
    "users_changelog": changelog_topic(APP, VERSION, "users"),
    "items_changelog": changelog_topic(APP, VERSION, "items"),
}
#: What is done, and after which share of the events.
FAULTS = {"kill": 0.15, "stop": 0.45, "broker": 0.75}
#: A killed member is missed after 10 s.
OWNED_S = 15.0
#: All must be well again within it.
WELL_S = 120.0
LOOK_S = 0.05
SHOWN_DIFFERENCES = 20


class Plan(NamedTuple):
    """How much is done."""

    workers: int
    events: int
    events_per_s: float
    requests_per_s: float
    faults: Sequence[str]


@dataclass
class Fault:
    """What came of a fault; times in ms of the machine's clock, and seconds."""

    kind: str
    begin_ms: float
    end_ms: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Group:
    """The broker, the workers and the load of a run, and what is done to them."""

    kafka: EmbeddedKafka
    workers: list[WorkerProcess]
    load: Load
    told: Callable[[str], None]
    done: list[Fault] = field(default_factory=list)

    def strike(self, kind: str) -> None:
        """Do one fault, and wait until all is well again. Raises ChaosFailed or WorkerEnded."""
        fault = Fault(kind, time.time() * 1000)
        began = time.monotonic()
        victim = self.workers[len(self.done) % len(self.workers)]
        self.told("restart of the broker" if kind == "broker" else f"{kind} of worker {victim.name}")
        if kind == "broker":
            self.kafka.stop()
            self.kafka.start()
            self._await(self.workers, lambda: self._owned(self.workers))
            fault.seconds["owned_s"] = time.monotonic() - began
        else:
            others = [worker for worker in self.workers if worker is not victim]
            ending = threading.Thread(target=victim.kill if kind == "kill" else victim.stop)
            ending.start()
            self._await(others, lambda: self._owned(others))
            fault.seconds["owned_s"] = time.monotonic() - began
            ending.join()
        self._await_learned(began, fault)
        if kind != "broker":
            began = time.monotonic()
            victim.start()
            self._await(self.workers, lambda: self._owned(self.workers, each=True))
            fault.seconds["rejoined_s"] = time.monotonic() - began
        fault.end_ms = time.time() * 1000
        self.done.append(fault)

    def await_ready(self) -> None:
        """Wait until each worker owns some shards, and all are owned."""
        self._await(self.workers, lambda: self._owned(self.workers, each=True))

    def await_sent(self, events: float) -> None:
        """Wait until so many events are acknowledged."""
        while self.load.acknowledged_records < events:
            self.look("")
            for worker in self.workers:
                worker.running  # noqa: B018 - raises if it has ended by itself
            time.sleep(LOOK_S)

    def look(self, _: str) -> None:
        """Raise ChaosFailed if the load has ended by itself."""
        if self.load.failure is not None:
            raise ChaosFailed(f"a producer failed: {self.load.failure!r}")

    def _await_learned(self, began: float, fault: Fault) -> None:
        acknowledged = self.load.acknowledged_records
        running = [worker for worker in self.workers if worker.running]
        self._await(running, lambda: _learned(running) >= acknowledged)
        fault.seconds["learned_s"] = time.monotonic() - began

    def _await(self, workers: Sequence[WorkerProcess], until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WELL_S
        while not until():
            self.look("")
            if time.monotonic() > deadline:
                tails = "\n".join(f"worker {worker.name}:\n{worker.log_tail}" for worker in workers)
                raise ChaosFailed(f"all was not well within {WELL_S:.0f} s; the ends of the logs:\n{tails}")
            time.sleep(LOOK_S)

    def _owned(self, workers: Sequence[WorkerProcess], *, each: bool = False) -> bool:
        owned = [set(answer["shards"]) if (answer := worker.ready()) else set() for worker in workers]
        return set().union(*owned) == set(range(PARTITIONS)) and (all(owned) or not each)


def _learned(workers: Sequence[WorkerProcess]) -> int:
    return sum(handled(answer["totals"]) for worker in workers if (answer := worker.ready()))


@contextmanager
def asked(plan: Plan, urls: Sequence[str], folder: Path, shape: Shape) -> Iterator[list[Answer]]:
    """Ask for lists during the block; what it yields is filled when the block is over."""
    paths, answers = folder / "paths", folder / "answers"
    users = (user_name(f"user-{n}", thread, 0, shape) for thread in range(THREADS) for n in range(shape.users))
    paths.write_text("".join(f"/v1/recommend/{user}?n={N}\n" for user in users))
    command = [sys.executable, "-m", "bench.balancer", str(plan.requests_per_s), str(paths), str(answers), *urls]
    found: list[Answer] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101 - as above
        try:
            if process.stdout.readline() != "ready\n":
                raise ChaosFailed("the load generator did not start")
            yield found
            process.stdin.close()
            if process.wait(10 * PATIENCE_S):
                raise ChaosFailed(f"the load generator ended with {process.returncode}")
            found += read_answers(answers)
        finally:
            process.kill()


def run(plan: Plan, folder: Path, told: Callable[[str], None]) -> dict[str, Any]:
    """Do it all; returns the figures. Raises ChaosFailed, WorkerEnded or BrokerError where it cannot go on."""
    shape = Shape(plan.events_per_s, sys.maxsize, USERS, USERS, VIDEOS)
    with ExitStack() as stack:
        kafka = EmbeddedKafka(folder, port=free_port(HOST))
        kafka.start()
        stack.callback(kafka.kill)
        settings = {
            "app": APP,
            "version": VERSION,
            "partitions": PARTITIONS,
            "positives_per_day": POSITIVES_PER_DAY,
            "future_tolerance_s": FUTURE_TOLERANCE_S,
        }
        workers = [
            WorkerProcess(name, kafka.bootstrap, folder / name, port=free_port(HOST), **settings)
            for name in "abcdefghij"[: plan.workers]
        ]
        for worker in workers:
            stack.callback(worker.close)
        load = Load(kafka.bootstrap, PARTITIONS, SEED, shape)
        stack.callback(load.abandon)
        group = Group(kafka, workers, load, told)
        ensure_topics(kafka.bootstrap, specs(APP, VERSION, PARTITIONS))
        for worker in workers:
            worker.start()
        group.await_ready()
        began = time.monotonic()
        with asked(plan, [worker.url for worker in workers], folder, shape) as answers:
            load.start()
            for kind in sorted(plan.faults, key=lambda kind: FAULTS[kind]):
                group.await_sent(FAULTS[kind] * plan.events)
                group.strike(kind)
            group.await_sent(plan.events)
            load.stop(group.look)
            lasted_s = time.monotonic() - began
        told("recounting")
        log = LoggedEvents(PARTITIONS, POSITIVES_PER_DAY, FUTURE_TOLERANCE_S * 1000)
        with Comparison(kafka.bootstrap, APP, VERSION, log, PARTITIONS) as comparison:
            faults = Faults(kafka, workers, PARTITIONS, told, group.look)
            compared = comparison.run(load, faults, workers, told, group.look)
        differences = compared.verdict.differences
        for difference in differences[:SHOWN_DIFFERENCES]:
            told(difference)
        return {
            "workers": plan.workers,
            "events_per_s": round(load.acknowledged_records / lasted_s),
            "requests": summarize(answers),
            "faults": [told_of(fault, answers) for fault in group.done],
            "restarts": sum(worker.restarts for worker in workers),
            "recount": compared.counts | {"differences": len(differences)},
            "log_bytes": {
                **{name: round(log_bytes(folder, topic) / log.records, 1) for name, topic in PER_EVENT.items()},
                "served_list": round(log_bytes(folder, RECOMMENDATIONS) / max(1, len(answers))),
            },
        }


def log_bytes(folder: Path, topic: str) -> int:
    """Size of what the broker keeps of a topic, compressed as it is sent."""
    data = folder / "kafka" / "data"
    return sum(file.stat().st_size for number in range(PARTITIONS) for file in data.glob(f"{topic}-{number}/*.log"))


def told_of(fault: Fault, answers: Sequence[Answer]) -> dict[str, Any]:
    """A fault's times, and the requests meanwhile."""
    seconds = {name: round(value, 1) for name, value in fault.seconds.items()}
    return {"kind": fault.kind, **seconds, "requests": summarize(between(answers, fault.begin_ms, fault.end_ms))}


def problems(found: dict[str, Any]) -> list[str]:
    """What should not be, in words."""
    recount, failed = found["recount"], found["requests"]["failed"]
    wrong = [f"{recount[name]} events {name}" for name in ("lost", "doubled") if recount[name]]
    if failed:
        wrong.append(f"{failed} requests failed")
    wrong += [
        f"after a {fault['kind']} all shards were owned after {fault['owned_s']} s"
        for fault in found["faults"]
        if fault["kind"] != "broker" and fault["owned_s"] >= OWNED_S
    ]
    return wrong


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, run, print; status 1 where something should not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3, choices=range(2, 5), help="default %(default)s")
    parser.add_argument("--events", type=int, default=1_000_000, help="at least (default %(default)s)")
    parser.add_argument("--rate", type=float, default=4_000, help="events a second (default %(default)s)")
    parser.add_argument("--requests", type=float, default=100, help="a second, in all (default %(default)s)")
    parser.add_argument("--faults", default=",".join(FAULTS), help="of these, the ones to do (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    faults = [kind for kind in options.faults.split(",") if kind]
    if unknown := sorted(set(faults) - FAULTS.keys()):
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    configure_logs(level="error")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    errors = Console(stderr=True)
    plan = Plan(options.workers, options.events, options.rate, options.requests, faults)
    began = time.monotonic()

    def told(what: str) -> None:
        errors.print(f"{time.monotonic() - began:6.1f} s  {what}", soft_wrap=True, markup=False, highlight=False)

    found = run(plan, FOLDER, told)
    wrong = problems(found)
    if not wrong:
        shutil.rmtree(FOLDER)
    emit(found | {"problems": wrong}, n=1, as_json=options.json)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
