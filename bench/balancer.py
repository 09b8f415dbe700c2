"""A load generator that asks workers for lists as clients behind a load balancer do.

Addresses and paths flow in, one answer (`bench.answers`) a request flows out. Workers that are ready by their `/readyz` are asked in
turn; where a connection is refused or broken off, or the answer is 5xx, the request goes on to the next one until `PATIENCE_S` have
passed. Requests are due at a fixed rate whether those before them are answered or not, and are timed from when they were due.

    python -m bench.balancer REQUESTS_PER_S PATHS ANSWERS URL...

Prints "ready" when all workers are, asks until stdin ends, then writes the answers to a file, one JSON array a line.
"""

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from bench.answers import PATIENCE_S, Answer

#: Between health checks of a worker, and for how long one waits.
CHECK_EVERY_S, CHECK_S = 0.25, 1.0
#: Before all are tried once more, where none has answered.
PAUSE_S = 0.05


@dataclass
class Worker:
    """One that may be asked; `ready` as of its last health check, False as soon as a connection fails."""

    url: str
    ready: bool = False
    seen_ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Balancer:
    """Asks `urls` for `paths`, drawn at random."""

    urls: Sequence[str]
    paths: Sequence[str]
    rate: float
    seed: int = 1
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._workers = [Worker(url) for url in self.urls]
        self._turn = 0

    async def run(self, stop: asyncio.Event, started: asyncio.Event) -> None:
        """Ask from when all workers are ready, which sets `started`, until `stop` is set and all requests have ended."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            checks = [asyncio.create_task(self._check(worker)) for worker in self._workers]
            try:
                await asyncio.gather(*(worker.seen_ready.wait() for worker in self._workers))
                started.set()
                await self._ask_all(stop)
            finally:
                for check in checks:
                    check.cancel()
                await asyncio.gather(*checks, return_exceptions=True)

    async def _ask_all(self, stop: asyncio.Event) -> None:
        draw = random.Random(self.seed)
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(self._ask(draw.choice(self.paths), due))
                due += 1 / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self, path: str, due: float) -> None:
        # Patience begins with the sending: where this process is late, no worker is to blame.
        sent = time.monotonic()
        due_ms = time.time() * 1000 - (sent - due) * 1000
        passed_on: list[str] = []
        status, source, by_peer, age_ms = 0, "", False, None
        tried: set[str] = set()
        while status == 0 and (left_s := sent + PATIENCE_S - time.monotonic()) > 0:
            worker = self._next(tried)
            if worker is None:
                tried.clear()
                await asyncio.sleep(min(PAUSE_S, left_s))
                continue
            tried.add(worker.url)
            try:
                async with self._session.get(worker.url + path, timeout=aiohttp.ClientTimeout(left_s)) as answer:
                    body = await answer.read()
            except TimeoutError:
                passed_on.append("timeout")
            except aiohttp.ClientError as error:
                worker.ready = False
                passed_on.append("refused" if isinstance(error, aiohttp.ClientConnectorError) else "reset")
            else:
                if answer.status >= 500:
                    passed_on.append(str(answer.status))
                    continue
                status = answer.status
                if answer.ok:
                    found = msgspec.json.decode(body)
                    source, by_peer = found["source"], answer.headers.get("X-Answered-By") == "peer"
                    as_of_ms = found["as_of_ms"]
                    age_ms = max(0.0, time.time() * 1000 - as_of_ms) if as_of_ms else None
        took_ms = (time.monotonic() - due) * 1000
        self.answers.append(Answer(due_ms, took_ms, status, passed_on, source, by_peer, age_ms, (sent - due) * 1000))

    def _next(self, tried: set[str]) -> Worker | None:
        """The next in turn that was not tried: a ready one, if there is one at all."""
        ready = [worker for worker in self._workers if worker.ready] or self._workers
        untried = [worker for worker in ready if worker.url not in tried]
        self._turn += 1
        return untried[self._turn % len(untried)] if untried else None

    async def _check(self, worker: Worker) -> None:
        timeout = aiohttp.ClientTimeout(CHECK_S)
        while True:
            try:
                async with self._session.get(f"{worker.url}/readyz", timeout=timeout) as answer:
                    worker.ready = answer.ok
                if worker.ready:
                    worker.seen_ready.set()
            except (aiohttp.ClientError, TimeoutError):
                worker.ready = False
            await asyncio.sleep(CHECK_EVERY_S)


def read_answers(file: Path) -> list[Answer]:
    """What a balancer wrote."""
    return [Answer(*msgspec.json.decode(line)) for line in file.read_bytes().splitlines()]


async def _ask_until_told(balancer: Balancer) -> None:
    stop, started = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(balancer.run(stop, started))
    await asyncio.wait((running, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    await running


def _main(rate: str, paths: str, answers: str, *urls: str) -> None:
    balancer = Balancer(urls, Path(paths).read_text().splitlines(), float(rate))
    asyncio.run(_ask_until_told(balancer))
    Path(answers).write_bytes(b"".join(msgspec.json.encode(answer) + b"\n" for answer in balancer.answers))


if __name__ == "__main__":
    _main(*sys.argv[1:])
