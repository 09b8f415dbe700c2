"""Bodies that are slow, half there, too large, or not what they say: each is answered, and nothing of them stays in memory."""

import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator

import httpx
import pytest

from api.bodies import Bodies
from api.guard import Guard
from api.middleware import MAX_BODY_BYTES
from infra import metrics
from tests.api.guarded import GuardedThread, Raw, problem

WITHIN_S = 0.4
HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n"
MB = 1_000_000


@pytest.fixture(scope="module")
def running() -> Iterator[GuardedThread]:
    with GuardedThread(Guard(bodies=Bodies(within_s=WITHIN_S))) as guarded:
        yield guarded


@pytest.fixture(autouse=True)
def _nothing_is_left(running: GuardedThread) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while running.guard.bodies.held_bytes:
        assert time.monotonic() < deadline, f"{running.guard.bodies.held_bytes} bytes are held for nobody"
        time.sleep(0.01)


def failures() -> float:
    """Requests that were answered with a server error."""
    samples = next(iter(metrics.REQUEST_SECONDS.collect())).samples
    return sum(s.value for s in samples if s.name.endswith("_count") and s.labels["status"] == "5xx")


def sized(body: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def chunked(part: bytes, times: int) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"%x\r\n%s\r\n" % (len(part), part)) * times + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000, MAX_BODY_BYTES])
def test_a_body_of_any_allowed_size_arrives_whole(running: GuardedThread, size: int) -> None:
    answer = httpx.post(f"{running.url}/v1/events", content=b"x" * size)
    assert (answer.status_code, answer.json()["bytes"]) == (202, size)
    with Raw(running.address) as raw:
        status, _, body = raw.send(chunked(b"y" * 1000, size // 1000)).answer()
    assert (status, body.partition(b",")[0]) == (202, b'{"bytes":%d' % (size // 1000 * 1000))


def test_a_body_that_comes_in_pieces_and_in_time_is_taken(running: GuardedThread) -> None:
    with Raw(running.address) as raw:
        raw.send(HEAD + b"Content-Length: 4\r\n\r\n")
        for letter in (b"a", b"b", b"c", b"d"):
            time.sleep(WITHIN_S / 10)
            raw.send(letter)
        assert raw.answer()[0] == 202
        # And the connection goes on.
        assert raw.send(sized(b"abc")).answer()[0] == 202


@pytest.mark.parametrize("drip", [False, True])
def test_a_slow_body_is_told_so_in_time_and_neighbours_do_not_wait(running: GuardedThread, drip: bool) -> None:
    with Raw(running.address) as raw, httpx.Client(base_url=running.url) as neighbour:
        began = time.monotonic()
        raw.send(HEAD + b"Content-Length: 1000\r\n\r\nhalf")
        answered = 0
        while time.monotonic() - began < WITHIN_S * 0.8:
            if drip:
                raw.send(b"x")
            asked = time.monotonic()
            assert neighbour.post("/v1/events", content=b"{}").status_code == 202
            assert time.monotonic() - asked < WITHIN_S
            answered += 1
        status, headers, body = raw.answer()
        assert WITHIN_S * 0.9 < time.monotonic() - began < WITHIN_S + 1.5
        assert (status, problem(body)) == (408, "request_timeout")
        assert headers["content-type"].startswith("application/problem+json")
        assert raw.rest() == b""
        assert time.monotonic() - began < WITHIN_S + running.guard.limits.linger_s + 1
        assert answered > 3


@pytest.mark.parametrize("sent", [b"half", b"x" * 300_000])
def test_a_body_that_breaks_off_is_nobodys_failure(
    running: GuardedThread, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = failures()
    for _ in range(20):
        with Raw(running.address) as raw:
            raw.send(HEAD + b"Content-Length: 1000000\r\n\r\n" + sent)
    time.sleep(0.1)
    assert httpx.get(f"{running.url}/v1/trending").status_code == 200
    assert failures() == before
    assert [record for record in caplog.records if record.name != "httpx"] == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        sized(b"x" * (10 * MB)),
        chunked(b"x" * 65_536, 160),
        sized(gzip.compress(b"x" * (50 * MB), mtime=0), b"Content-Encoding: gzip\r\n"),
        sized(b"x" * (MAX_BODY_BYTES + 1)),
    ],
    ids=["10 MB", "10 MB chunked", "50 MB in 50 KB", "one byte too many"],
)
def test_a_body_that_is_too_large_is_refused_and_neighbours_do_not_wait(
    running: GuardedThread, request_bytes: bytes
) -> None:
    slowest_s = 0.0
    with Raw(running.address) as raw, httpx.Client(base_url=running.url) as neighbour:
        sending = threading.Thread(target=raw.send, args=(request_bytes,))
        sending.start()
        for _ in range(30):
            asked = time.monotonic()
            assert neighbour.get("/v1/trending").status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - asked)
        status, _, body = raw.answer()
        sending.join()
    assert (status, problem(body)) == (413, "request_entity_too_large")
    assert slowest_s < 0.5


def test_a_declared_size_is_enough_to_refuse(running: GuardedThread) -> None:
    with Raw(running.address, timeout_s=WITHIN_S / 2) as raw:
        assert raw.send(HEAD + b"Content-Length: 10000000\r\n\r\nx").answer()[0] == 413


@pytest.mark.parametrize("rest", [b"", b"zz\r\nnonsense"])
def test_a_refused_body_that_breaks_off_is_nobodys_failure(
    running: GuardedThread, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with Raw(running.address) as raw:
            raw.send(chunked(b"x" * 65_536, 40).removesuffix(b"0\r\n\r\n"))
            assert raw.answer()[0] == 413
            raw.send(rest)
    time.sleep(0.1)
    assert httpx.get(f"{running.url}/v1/trending").status_code == 200
    # aiohttp tells of each with a traceback.
    assert [record for record in caplog.records if record.name != "httpx"] == []


def test_a_client_that_waits_to_be_told_to_go_on_is_told(running: GuardedThread) -> None:
    with Raw(running.address) as raw:
        raw.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert raw.socket.recv(100).startswith(b"HTTP/1.1 100")
        assert raw.send(b"abc").answer()[0] == 202


@pytest.mark.parametrize(
    ("coding", "packed", "status"),
    [
        (b"gzip", gzip.compress(b"x" * 10_000, mtime=0), 202),
        (b"GZIP", gzip.compress(b"x" * 10_000, mtime=0), 202),
        (b"deflate", zlib.compress(b"x" * 10_000), 202),
        (b"identity", b"x" * 10_000, 202),
        (b"gzip", gzip.compress(b"x" * MAX_BODY_BYTES, mtime=0), 202),
        (b"gzip", gzip.compress(b"x" * (MAX_BODY_BYTES + 1), mtime=0), 413),
        (b"gzip", gzip.compress(b"x" * 10_000, mtime=0)[:-3], 400),
        (b"gzip", gzip.compress(b"x" * 10_000, mtime=0) * 2, 400),
        (b"gzip", b"no gzip", 400),
        (b"br", b"x", 415),
        (b"gzip, gzip", gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), 415),
    ],
)
def test_a_packed_body_is_unpacked_or_refused(
    running: GuardedThread, coding: bytes, packed: bytes, status: int
) -> None:
    with Raw(running.address) as raw:
        got, _, body = raw.send(sized(packed, b"Content-Encoding: %s\r\n" % coding)).answer()
    assert got == status, body
    if status == 202:
        assert json.loads(body)["bytes"] in (10_000, MAX_BODY_BYTES)


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabcd",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: -3\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_a_bad_request_and_the_connection_ends(running: GuardedThread, request_bytes: bytes) -> None:
    before = failures()
    with Raw(running.address) as raw:
        status, _, _ = raw.send(request_bytes).answer()
        assert status in (400, 413)
        raw.rest()
    assert failures() == before


def test_what_all_bodies_hold_together_is_bounded() -> None:
    bodies = Bodies(within_s=2.0, most_held_bytes=3 * MB)
    with GuardedThread(Guard(bodies=bodies)) as running:
        halves = [Raw(running.address) for _ in range(10)]
        try:
            for n, half in enumerate(halves):
                while n == 2 and bodies.held_bytes < 2 * MB:
                    time.sleep(0.01)
                half.send(HEAD + b"Content-Length: 2000000\r\n\r\n" + b"x" * MB)
            statuses = [half.answer()[0] for half in halves[2:]]
            assert set(statuses) == {503}
            assert MB < bodies.held_bytes <= 3 * MB
            # What is large waits for those that are under way; what is small has room.
            assert httpx.post(f"{running.url}/v1/events", content=b"x" * 2 * MB).status_code == 503
            assert httpx.post(f"{running.url}/v1/events", content=b"x" * 1000).status_code == 202
        finally:
            for half in halves:
                half.socket.close()
        deadline = time.monotonic() + 5
        while bodies.held_bytes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert bodies.held_bytes == 0
        assert httpx.post(f"{running.url}/v1/events", content=b"x" * 2 * MB).status_code == 202
