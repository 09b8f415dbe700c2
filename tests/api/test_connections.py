"""Connections without end, or without sense: those who ask something are answered all the same."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from api.connections import ConnectionLimits, GuardedRunner, GuardedServer
from api.guard import Guard
from infra import metrics
from infra.open_files import allow_open_files
from tests.api.guarded import GuardedThread, Raw, problem

HEAD = b"GET /v1/trending HTTP/1.1\r\nHost: localhost\r\n"
REQUEST = HEAD + b"\r\n"
LOOK_S = 0.05


@contextmanager
def limited(**limits: float) -> Iterator[GuardedThread]:
    with GuardedThread(Guard(limits=ConnectionLimits(**{"look_s": LOOK_S, **limits}))) as running:  # type: ignore[arg-type] # all are numbers
        yield running


def closed(why: str) -> float:
    return float(metrics.CONNECTIONS_CLOSED.labels(why)._value.get())


def open_now(running: GuardedThread) -> int:
    server = running.runner.server
    assert isinstance(server, GuardedServer)
    return server.book.open


def settle(running: GuardedThread, count: int) -> None:
    """Wait until so many connections are open."""
    deadline = time.monotonic() + 5
    while open_now(running) != count:
        assert time.monotonic() < deadline, f"{open_now(running)} are open, not {count}"
        time.sleep(0.01)


@pytest.mark.parametrize(("earlier", "sent"), [(0, b""), (0, b"GET"), (0, HEAD), (1, b"G"), (2, HEAD)])
def test_a_head_that_does_not_come_to_an_end_is_not_waited_for(earlier: int, sent: bytes) -> None:
    with limited(head_looks=10) as running, httpx.Client(base_url=running.url) as neighbour:
        before = closed("slow_head")
        with Raw(running.address) as raw:
            for _ in range(earlier):
                assert raw.send(REQUEST).answer()[0] == 200
            began = time.monotonic()
            raw.send(sent)
            while time.monotonic() - began < 8 * LOOK_S:
                assert neighbour.get("/v1/trending").status_code == 200
            assert raw.rest() == b""
        assert 9 * LOOK_S < time.monotonic() - began < 10 * LOOK_S + 1
        assert closed("slow_head") == before + 1


def test_a_byte_now_and_then_gains_no_time() -> None:
    with limited(head_looks=10) as running, Raw(running.address) as raw:
        began = time.monotonic()
        raw.send(HEAD + b"X-A: ")
        with suppress(ConnectionError):
            while time.monotonic() - began < 5:
                raw.send(b"x")
                time.sleep(LOOK_S / 2)
        assert 9 * LOOK_S < time.monotonic() - began < 10 * LOOK_S + 1


def test_a_loop_that_was_held_up_is_not_the_clients_fault() -> None:
    with limited(head_looks=4) as running, Raw(running.address) as raw:
        raw.send(HEAD)
        time.sleep(LOOK_S)
        held = threading.Event()

        def hold() -> None:
            time.sleep(20 * LOOK_S)
            held.set()

        running.loop.call_soon_threadsafe(hold)
        assert held.wait(5)
        raw.send(b"\r\n")
        assert raw.answer()[0] == 200


def test_what_is_idle_between_requests_is_closed_after_a_while_and_not_before() -> None:
    with limited(head_looks=1, keep_alive_s=0.6) as running, Raw(running.address) as raw:
        for pause_s in (0.0, 0.3, 0.3):
            time.sleep(pause_s)
            assert raw.send(REQUEST).answer()[0] == 200
        began = time.monotonic()
        assert raw.rest() == b""
        assert 0.4 < time.monotonic() - began < 1.5


def test_a_reader_that_takes_nothing_is_not_waited_for() -> None:
    with limited(answer_looks=10) as running:
        before = closed("slow_reader")
        with Raw(running.address) as raw:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.send(b"GET /v1/trending?bytes=20000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            settle(running, 1)
            assert httpx.get(f"{running.url}/v1/trending").status_code == 200
            settle(running, 0)
            assert closed("slow_reader") == before + 1
            assert len(raw.rest()) < 20_000_000


def test_a_slow_answer_is_waited_for_however_short_the_limits() -> None:
    with limited(head_looks=2, answer_looks=2) as running:
        assert httpx.get(f"{running.url}/v1/trending?wait_s={20 * LOOK_S}").status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + (b"X-A: " + b"x" * 8_000 + b"\r\n") * 40 + b"\r\n",
        HEAD + b"X-A: " + b"x" * 9_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"x" * 5_000_000,
    ],
    ids=["all headers", "one header", "the path", "a path without end"],
)
def test_a_head_that_is_too_large_is_refused(request_bytes: bytes) -> None:
    with limited() as running, Raw(running.address) as raw:
        try:
            raw.send(request_bytes)
            status, _, body = raw.answer()
        except ConnectionError:
            # It was closed while we sent, and what it said is lost with what we sent.
            assert len(request_bytes) > 100_000
        else:
            assert (status, problem(body)) == (431, "headers_too_large")
        assert httpx.get(f"{running.url}/v1/trending").status_code == 200


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01", b"\r\n\r\nnonsense\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n"]
)
def test_what_is_no_http_is_told_so_and_closed(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    before = metrics.BAD_REQUESTS._value.get()
    with limited() as running, Raw(running.address) as raw:
        status, headers, body = raw.send(sent).answer()
        assert (status, problem(body)) == (400, "bad_http")
        assert headers["connection"] == "close"
        assert raw.rest() == b""
    assert metrics.BAD_REQUESTS._value.get() == before + 1
    # aiohttp's own line has the client's address, and its first bytes.
    assert caplog.records == []


def test_requests_in_a_row_are_answered_in_their_order() -> None:
    with limited() as running, Raw(running.address) as raw:
        raw.send(b"".join(HEAD.replace(b"trending", b"trending?bytes=%d" % n) + b"\r\n" for n in range(100)))
        received = b""
        while received.count(b"HTTP/1.1 200") < 100 or not received.endswith(b'"}'):
            received += raw.socket.recv(1 << 20)
        fillers = [part.partition(b'"}')[0] for part in received.split(b'{"filler":"')[1:]]
        assert [len(filler) for filler in fillers] == list(range(100))


def test_three_thousand_connections_that_ask_nothing_are_in_nobodys_way() -> None:
    most = 100
    allow_open_files(7_000)
    with (
        limited(most=most, head_looks=1_000) as running,
        httpx.Client(base_url=running.url) as neighbour,
        ExitStack() as stack,
    ):
        before = closed("room")
        slowest_s, sockets = 0.0, []
        for n in range(3_000):
            raw = stack.enter_context(Raw(running.address))
            sockets.append(raw)
            # Some say nothing, some half of something.
            raw.send(HEAD if n % 2 else b"")
            if n % 100 == 0:
                asked = time.monotonic()
                # One that has been there all the time, and one that comes now.
                assert neighbour.get("/v1/trending").status_code == 200
                assert httpx.get(f"{running.url}/v1/trending").status_code == 200
                slowest_s = max(slowest_s, time.monotonic() - asked)
        deadline = time.monotonic() + 5
        while closed("room") - before < 3_000 - most:
            assert time.monotonic() < deadline, f"{closed('room') - before} have gone"
            time.sleep(0.01)
        settle(running, most)
        assert slowest_s < 2.0
        # The oldest went, the latest are there still.
        assert sockets[0].rest() == b""
        assert sockets[-1].send(b"\r\n").answer()[0] == 200


def test_who_has_been_idle_the_longest_makes_room_for_who_comes() -> None:
    with limited(most=10, head_looks=1_000) as running, ExitStack() as stack:
        raws = [stack.enter_context(Raw(running.address)) for _ in range(10)]
        for raw in [*raws, raws[0]]:
            assert raw.send(REQUEST).answer()[0] == 200
        # Three that have just come are not taken for a flood.
        late = [stack.enter_context(Raw(running.address)) for _ in range(3)]
        for raw in [*late, raws[0], *raws[4:]]:
            assert raw.send(REQUEST).answer()[0] == 200
        assert [raw.rest() for raw in raws[1:4]] == [b""] * 3


async def test_what_a_client_breaks_is_not_told_of_as_ours(caplog: pytest.LogCaptureFixture) -> None:
    """A body that aiohttp goes on reading when its connection is closed ends in an error, in some orders of events."""
    runner = GuardedRunner(web.Application(), ConnectionLimits())
    await runner.setup()
    assert isinstance(runner.server, GuardedServer)
    connection = runner.server()
    before = metrics.BAD_REQUESTS._value.get()
    connection.log_exception("Unhandled exception", exc_info=RuntimeError("Connection closed."))
    connection.transport = asyncio.Transport()
    connection.log_exception("Unhandled exception", exc_info=RequestPayloadError("no gzip"))
    assert caplog.records == []
    assert metrics.BAD_REQUESTS._value.get() == before + 2
    connection.log_exception("Unhandled exception", exc_info=RuntimeError("ours"))
    assert [record.getMessage() for record in caplog.records] == ["Unhandled exception"]
    connection.transport = None
    await runner.cleanup()


def test_when_all_are_being_served_one_more_is_refused_and_those_are_served() -> None:
    with limited(most=5) as running, ExitStack() as stack:
        before = closed("full")
        busy = [stack.enter_context(Raw(running.address)) for _ in range(5)]
        for raw in busy:
            raw.send(b"GET /v1/trending?wait_s=0.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.1)
        with Raw(running.address) as refused:
            status, headers, body = refused.answer()
            assert (status, problem(body)) == (503, "unavailable")
            assert headers["retry-after"] == "1"
            assert headers["x-content-type-options"] == "nosniff"
            assert refused.rest() == b""
        assert closed("full") == before + 1
        assert [raw.answer()[0] for raw in busy] == [200] * 5
        assert httpx.get(f"{running.url}/v1/trending").status_code == 200


def test_the_account_is_right_after_all_kinds_of_ends() -> None:
    with limited(most=50) as running:
        for ending in range(4):
            raws = [Raw(running.address) for _ in range(20)]
            for n, raw in enumerate(raws):
                if ending == 0:
                    raw.send(REQUEST)
                elif ending == 1:
                    raw.send(b"nonsense\r\n\r\n")
                elif ending == 2:
                    raw.send(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
                else:
                    raw.send(b"GET /v1/trending?wait_s=0.1 HTTP/1.1\r\nHost: localhost\r\n\r\n" * (1 + n % 3))
            time.sleep(0.05)
            for raw in raws:
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                raw.socket.close()
        settle(running, 0)
        server = running.runner.server
        assert isinstance(server, GuardedServer)
        assert server.book.idle == server.book.silent == {}
        assert httpx.get(f"{running.url}/v1/trending").status_code == 200


def test_a_server_that_stops_does_not_wait_for_slow_clients() -> None:
    with ExitStack() as stack, limited() as running:
        for sent in (b"", HEAD, b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"):
            stack.enter_context(Raw(running.address)).send(sent)
        slow = stack.enter_context(Raw(running.address))
        slow.send(b"GET /v1/trending?wait_s=0.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.1)
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(running.runner.cleanup(), running.loop).result(20)
        assert time.monotonic() - began < 8
        # What is being served is served.
        assert slow.answer()[0] == 200
