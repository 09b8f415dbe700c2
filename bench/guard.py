"""What guards the HTTP interface, in microseconds of CPU a request.

A server process that answers `GET /v1/recommend/{user_id}` with 2 KB of JSON at once, on a core of its own, and one client on another
that asks on one connection, again and again. Its CPU time is measured for the same requests with nothing but problems as answers
(`bare`), and with all middlewares and the account of connections: with no keys asked for, with a key, and with a log line for each.
The kinds take turns.

    python -m bench.guard --json
"""

import argparse
import asyncio
import datetime
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
from aiohttp import web

from api.access_log import AccessLog
from api.cors import Cors
from api.guard import Guard
from api.keys import SCHEMA, KeyList, KeyRing, Scope
from api.middleware import answer, problems
from bench.contender import on_core
from bench.report import emit, summary
from infra.kafka_probe import free_port
from infra.logs import configure_logs

HOST = "127.0.0.1"
KINDS = ("bare", "no_keys", "key", "key_and_line")
REQUESTS, WARM_UP = 5_000, 1_000
ROUNDS = 7
BODY = {"items": ["x" * 40] * 45}
START_TIMEOUT_S = 20.0


async def recommend(_: web.Request) -> web.Response:
    """An answer of the usual size, at no cost."""
    return answer(BODY)


async def serve(kind: str, port: int, file: Path) -> None:
    """Serve one kind for ever."""
    if kind == "bare":
        app = web.Application(middlewares=[problems])
        runner = web.AppRunner(app, access_log=None)
    else:
        guard = Guard(
            keys=None if kind == "no_keys" else KeyRing(file),
            cors=Cors.parse("https://site.example", with_keys=True),
            access_log=AccessLog("all" if kind == "key_and_line" else "errors"),
        )
        app = guard.application()
        runner = guard.runner(app)
    app.router.add_route("GET", "/v1/recommend/{user_id}", recommend)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    await asyncio.Event().wait()


def run_server(kind: str, port: int, file: Path, core: int) -> None:
    """The process of one kind; what it logs goes nowhere, as far as it is made."""
    os.sched_setaffinity(0, {core})
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    configure_logs("json", "info")
    asyncio.run(serve(kind, port, file))


@contextmanager
def server(kind: str, file: Path, core: int) -> Iterator[tuple[psutil.Process, socket.socket]]:
    """A started server and a connection to it."""
    port = free_port(HOST)
    child = multiprocessing.get_context("spawn").Process(target=run_server, args=(kind, port, file, core), daemon=True)
    child.start()
    try:
        for _ in range(int(START_TIMEOUT_S / 0.05)):
            try:
                connection = socket.create_connection((HOST, port))
                break
            except ConnectionRefusedError:
                child.join(0.05)
        else:
            raise TimeoutError(f"the server of {kind} does not start")
        with connection:
            yield psutil.Process(child.pid), connection
    finally:
        child.kill()
        child.join()


def ask(connection: socket.socket, request: bytes, times: int) -> None:
    """Ask, and read each answer to its end."""
    for _ in range(times):
        connection.sendall(request)
        received = b""
        while not received.endswith(b"]}"):
            received += connection.recv(65_536)
        if not received.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"answered {received[:200]!r}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    as_json = parser.parse_args().json
    cores = sorted(os.sched_getaffinity(0))
    held, token = KeyList(SCHEMA).with_new("bench", [Scope.READ], datetime.date(2026, 1, 1))
    request = f"GET /v1/recommend/u1?n=10 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys.json"
        file.write_bytes(held.encode())
        for _ in range(ROUNDS):
            for kind in KINDS:
                with on_core(cores[-1]), server(kind, file, cores[0]) as (process, connection):
                    ask(connection, request, WARM_UP)
                    before = sum(process.cpu_times()[:2])
                    ask(connection, request, REQUESTS)
                    taken[kind].append((sum(process.cpu_times()[:2]) - before) / REQUESTS * 1e6)
    bare = median(taken["bare"])
    emit(
        {
            "cpu_us_a_request": {kind: summary(values) for kind, values in taken.items()},
            "added_us": {kind: round(median(taken[kind]) - bare, 1) for kind in KINDS[1:]},
        },
        n=ROUNDS,
        as_json=as_json,
    )


if __name__ == "__main__":
    main()
