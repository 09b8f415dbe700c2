"""What every answer carries, and what of a request reaches the logs."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from api.access_log import MOST_A_SECOND, AccessLog, AccessLogMode
from api.guard import Guard
from api.keys import SCHEMA, KeyList, KeyRing, Scope
from infra import metrics
from infra.logs import configure_logs
from tests.api.guarded import GuardedThread, Raw
from tests.api.test_keys import TODAY

REQUEST = b"GET /v1/trending HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def running() -> Iterator[GuardedThread]:
    with GuardedThread() as guarded:
        yield guarded


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    # The client of these tests has a log of its own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    "request_bytes",
    [
        REQUEST,
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/trending HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nExpect: nonsense\r\nContent-Length: 1\r\n\r\nx",
        # aiohttp's parser refuses these before there is a request.
        b"G@T /\r\n\r\n",
        b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_every_answer_lets_a_browser_do_nothing_with_it(running: GuardedThread, request_bytes: bytes) -> None:
    with Raw(running.address) as raw:
        status, headers, _ = raw.send(request_bytes).answer()
    assert status in (200, 400, 404, 417, 421, 431)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["server"] == "headrace"


def test_a_header_of_a_views_own_stays(running: GuardedThread) -> None:
    headers = httpx.get(f"{running.url}/page").headers
    assert headers["content-security-policy"] == "default-src 'self'"
    assert headers["cache-control"] == "max-age=60"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["server"] == "headrace"


def test_a_streamed_answer_has_them_too(running: GuardedThread) -> None:
    answer = httpx.get(f"{running.url}/stream")
    assert answer.text == "partpart"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert len(answer.headers["x-request-id"]) == 20


def test_who_goes_in_the_middle_of_a_streamed_answer_is_nobodys_failure(
    running: GuardedThread, caplog: pytest.LogCaptureFixture
) -> None:
    failed = metrics.REQUEST_SECONDS.labels("/stream", "5xx")._sum
    before = failed.get()
    with Raw(running.address) as raw:
        raw.send(b"GET /stream?parts=1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.socket.recv(1000)
    time.sleep(0.1)
    assert httpx.get(f"{running.url}/v1/trending").status_code == 200
    assert failed.get() == before
    assert [record for record in caplog.records if record.name != "httpx"] == []


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("7b0f3a52-4a32-4c30-9bfd-2f6a7a0c9a11", True),
        ("Root=1-67891233-abcdef012345678912345678", True),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        ("short", False),
        ("x" * 65, False),
        ("someone@mail.example", False),
        ("a b c d e f g h", False),
        ('"; DROP TABLE', False),
        ("", False),
        (None, False),
    ],
)
def test_a_sane_request_id_is_echoed_and_any_other_made(running: GuardedThread, given: str | None, taken: bool) -> None:
    headers = {} if given is None else {"X-Request-Id": given}
    ids = [
        httpx.get(f"{running.url}{path}", headers=headers).headers["x-request-id"] for path in ("/v1/trending", "/no")
    ]
    if taken:
        assert ids == [given, given]
    else:
        assert given not in ids
        assert len(set(ids)) == 2


def test_the_id_is_in_every_line_of_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info")
    with GuardedThread(Guard(access_log=AccessLog("all"))) as running:
        answer = httpx.get(f"{running.url}/v1/trending?fail=1", headers={"X-Request-Id": "trace-0123456789"})
        httpx.get(f"{running.url}/v1/trending")
    assert answer.status_code == 500
    said = lines(capsys)
    assert [(line["event"], line["request_id"] == "trace-0123456789") for line in said] == [
        ("request failed", True),
        ("request", True),
        ("request", False),
    ]


@pytest.mark.parametrize(("mode", "statuses"), [("off", []), ("errors", [500, 200]), ("all", [200, 404, 500, 200])])
def test_the_mode_says_which_requests_have_a_line(
    capsys: pytest.CaptureFixture[str], mode: AccessLogMode, statuses: list[int]
) -> None:
    configure_logs("json", "info")
    with GuardedThread(Guard(access_log=AccessLog(mode))) as running:
        for path in ("/v1/trending", "/nowhere", "/v1/trending?fail=1", "/v1/trending?wait_s=1.05"):
            httpx.get(f"{running.url}{path}")
    said = [line for line in lines(capsys) if line["event"] == "request"]
    assert [line["status"] for line in said] == statuses


def test_errors_without_end_are_told_of_so_often_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info")
    log = AccessLog("errors")
    with GuardedThread(Guard(access_log=log)) as running, httpx.Client(base_url=running.url) as http:
        for _ in range(3 * MOST_A_SECOND):
            http.get("/v1/trending?fail=1")
        httpx.get(f"{running.url}/v1/trending?wait_s=1.05")
    said = [line for line in lines(capsys) if line["event"] == "request"]
    assert len(said) < 3 * MOST_A_SECOND
    assert len(said) + sum(line.get("unsaid", 0) for line in said) == 3 * MOST_A_SECOND + 1


def test_no_log_tells_of_a_person(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Whatever a client sends, well formed or not, none of it is in a log, and neither is its address."""
    configure_logs("json", "info")
    held, token = KeyList(SCHEMA).with_new("the-site", [Scope.READ, Scope.WRITE], TODAY)
    file = tmp_path / "keys.json"
    file.write_bytes(held.encode())
    secret = token[16:]
    key = f"X-API-Key: {token}".encode()
    with GuardedThread(Guard(keys=KeyRing(file), access_log=AccessLog("all"))) as running:
        for request in (
            b"GET /v1/recommend/ALICE?exclude=VIDEO&n=3 HTTP/1.1\r\nHost: a\r\nUser-Agent: AGENT\r\nCookie: c=COOKIE\r\n%s\r\n\r\n",
            b"GET /v1/recommend/ALICE?fail=VIDEO HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
            b"GET /ALICE/VIDEO HTTP/1.1\r\nHost: a\r\nX-Request-Id: ALICE@mail\r\n%s\r\n\r\n",
            b'POST /v1/events HTTP/1.1\r\nHost: a\r\n%s\r\nContent-Length: 19\r\n\r\n{"user_id":"ALICE"}',
            b"POST /v1/events HTTP/1.1\r\nHost: a\r\n%s\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nALICE",
            b"DELETE /v1/recommend/ALICE HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
            b"GET /v1/recommend/ALICE HTTP/1.1\r\nHost: a\r\nX-API-Key: hr_WRONG%.0s\r\n\r\n",
            b"ALICE /v1/recommend/ALICE HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
            b"GET /v1/recommend/" + b"ALICE" * 2_000 + b" HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
            b"GET /v1/recommend/ALICE HTTP/1.1\r\nHost: a\r\nALICE\r\n%s\r\n\r\n",
            b"POST /v1/events HTTP/1.1\r\nHost: a\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\nALICE\r\n",
        ):
            with Raw(running.address) as raw:
                assert raw.send(request % key).answer()[0] >= 200
        # One that breaks off, in the middle of its body.
        with Raw(running.address) as raw:
            raw.send(b"POST /v1/events HTTP/1.1\r\nHost: a\r\n%s\r\nContent-Length: 50\r\n\r\nALICE" % key)
        httpx.get(f"{running.url}/readyz")
    said = capsys.readouterr().err
    parsed = [json.loads(line) for line in said.splitlines()]
    requests = [line for line in parsed if line["event"] == "request"]
    assert len(requests) >= 9
    assert {line["route"] for line in requests} == {"/v1/recommend/{user_id}", "/v1/events", "/readyz", "unknown"}
    assert {line["client"] for line in requests} == {"the-site", None}
    assert {line["method"] for line in requests} <= {"GET", "POST", "DELETE"}
    assert all(line["bytes"] > 0 and line["ms"] >= 0 and line["status"] and line["request_id"] for line in requests)
    for private in ("ALICE", "VIDEO", "AGENT", "COOKIE", "WRONG", "mail", secret, "hr_", "127.0.0.1"):
        assert private not in said, f"{private} is in {[line for line in said.splitlines() if private in line]}"
