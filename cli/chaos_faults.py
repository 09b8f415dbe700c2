"""What goes wrong in a chaos run, and when: drawn from the seed, done one after the other.

A fault is drawn with its moment: some strike a worker that learns, at any point of its checkpoints, some while it still recovers
from the last one.
"""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cli.worker_process import WorkerProcess
from infra.embedded_kafka import EmbeddedKafka

#: Kinds of fault, what one takes on a busy machine in seconds, and how often it is drawn.
COST_S = {"kill": 10.0, "broker": 12.0, "disk": 10.0, "zombie": 30.0}
WEIGHT = {"kill": 5, "broker": 2, "disk": 2, "zombie": 1}
#: Share of the faults that strike a worker which learns; the others take what they find.
SETTLED = 0.7
#: A member of the group that is gone is missed after 10 s, and a worker that restarts may pause for up to 30 s.
READY_TIMEOUT_S = 120.0
POLL_S = 0.05


class ChaosFailed(RuntimeError):
    """The run cannot go on: what should have recovered has not; the message says what."""


@dataclass(frozen=True)
class Fault:
    """A fault as drawn; what remains to be drawn comes from `seed`."""

    kind: str
    settled: bool
    pause_s: float
    seed: int


def plan(draw: random.Random, seconds: float) -> tuple[list[Fault], Iterator[Fault]]:
    """Faults of a run of that length: those that are done in any case, then as many of the rest as there is time for.

    Each kind is among the first, in a run that is long enough for all; else as many kinds as fit, as drawn.
    """
    kinds = draw.sample(list(COST_S), len(COST_S))
    first: list[Fault] = []
    for kind in kinds:
        cost_s = sum(COST_S[fault.kind] for fault in first) + COST_S[kind]
        if cost_s <= seconds:
            first.append(_fault(draw, kind))
    first = first or [_fault(draw, "kill")]

    def rest() -> Iterator[Fault]:
        while True:
            yield _fault(draw, draw.choices(list(WEIGHT), list(WEIGHT.values()))[0])

    return first, rest()


def _fault(draw: random.Random, kind: str) -> Fault:
    settled = draw.random() < SETTLED
    return Fault(kind, settled, draw.uniform(0.2, 4.0) if settled else draw.uniform(0.0, 6.0), draw.getrandbits(32))


class Faults:
    """Does faults to a broker and two workers, of which at least one runs.

    Parameters
    ----------
    kafka, workers : to be broken
    partitions : how many shards there are
    tell : receives one line a fault
    look : called again and again while waiting; raises what ends the run
    """

    def __init__(
        self,
        kafka: EmbeddedKafka,
        workers: list[WorkerProcess],
        partitions: int,
        tell: Callable[[str], None],
        look: Callable[[str], None],
    ) -> None:
        self._kafka, self._workers, self._partitions = kafka, workers, partitions
        self._tell, self._look = tell, look
        self.done: Counter[str] = Counter()

    def strike(self, fault: Fault) -> None:
        """Do one fault. Raises ChaosFailed or WorkerEnded."""
        draw = random.Random(fault.seed)
        if fault.settled:
            self.await_ready()
        self._wait(fault.pause_s, f"{fault.kind} is next")
        {"kill": self._kill, "broker": self._restart_broker, "disk": self._lose_disk, "zombie": self._make_zombie}[
            fault.kind
        ](draw)
        self.done[fault.kind] += 1

    def running(self) -> list[WorkerProcess]:
        """Workers that run; raises WorkerEnded for one that has ended by itself."""
        return [worker for worker in self._workers if worker.running]

    def await_ready(self) -> None:
        """Wait until the running workers own all shards, each of them some."""
        what = " and ".join(worker.name for worker in self.running())
        self._await(self._all_owned, f"worker {what} to own all shards")

    def _all_owned(self) -> bool:
        owned = [self._shards(worker) for worker in self.running()]
        return all(owned) and set().union(*owned) == set(range(self._partitions))

    def _shards(self, worker: WorkerProcess) -> set[int]:
        answer = worker.ready()
        return set(answer["shards"]) if answer else set()

    def _kill(self, draw: random.Random) -> None:
        worker = draw.choice(self.running())
        self._say(f"kill -9 of worker {worker.name}", worker)
        worker.kill()
        self._wait(draw.choice([0.0, draw.uniform(0, 3)]), "down")
        worker.start()

    def _lose_disk(self, draw: random.Random) -> None:
        worker = draw.choice(self.running())
        self._say(f"loss of the disk of worker {worker.name}", worker)
        worker.kill()
        shutil.rmtree(worker.home / "state", ignore_errors=True)
        worker.start()

    def _restart_broker(self, draw: random.Random) -> None:
        crash, pause_s = draw.random() < 0.5, draw.choice([0.0, draw.uniform(0, 4)])
        self._say(f"{'kill -9' if crash else 'stop'} of the broker, down for {pause_s:.1f} s")
        (self._kafka.kill if crash else self._kafka.stop)()
        self._wait(pause_s, "the broker is down", broker=False)
        self._kafka.start()

    def _make_zombie(self, draw: random.Random) -> None:
        """Pause a worker until another one has its shards, and let it go on."""
        for worker in self._workers:
            if not worker.running:
                worker.start()
        self.await_ready()
        self._wait(draw.uniform(0, 2), "both workers learn")
        # The group may have dealt the shards out once more; then a random point of the time between two checkpoints.
        self.await_ready()
        self._wait(draw.uniform(0, 0.3), "both workers learn")
        victim, other = draw.sample(self._workers, 2)
        self._say(f"SIGSTOP of worker {victim.name}, which owns {sorted(self._shards(victim))}", victim)
        victim.pause()
        all_shards = set(range(self._partitions))
        self._await(lambda: self._shards(other) == all_shards, f"worker {other.name} to take over")
        self._wait(draw.uniform(0, 2), f"worker {other.name} learns alone")
        self._say(f"SIGCONT of worker {victim.name}: a zombie", victim)
        victim.resume()
        self._wait(draw.uniform(0, 5), "the zombie is awake")
        self.await_ready()
        leaving = draw.choice([victim, other])
        if draw.random() < 0.5:
            self._say(f"worker {leaving.name} is told to stop", leaving)
            status = leaving.stop()
            if status:
                raise ChaosFailed(f"worker {leaving.name} stopped with status {status}:\n{leaving.log_tail}")
        else:
            self._say(f"kill -9 of worker {leaving.name}, for good", leaving)
            leaving.kill()

    def _say(self, what: str, worker: WorkerProcess | None = None) -> None:
        pid = "" if worker is None else f" (process {worker.pid})"
        self._tell(what + pid)

    def _wait(self, seconds: float, what: str, *, broker: bool = True) -> None:
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self._check(what, broker=broker)
            time.sleep(min(left_s, POLL_S))

    def _await(self, until: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not until():
            self._check(f"waiting for {what}")
            if time.monotonic() > deadline:
                tails = "\n".join(f"worker {worker.name}:\n{worker.log_tail}" for worker in self._workers)
                raise ChaosFailed(f"waited {READY_TIMEOUT_S:.0f} s for {what}, in vain; the ends of the logs:\n{tails}")
            time.sleep(POLL_S)

    def _check(self, what: str, *, broker: bool = True) -> None:
        self._look(what)
        self.running()
        if broker:
            self._kafka.check()
