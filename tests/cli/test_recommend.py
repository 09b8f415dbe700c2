"""`headrace recommend`: a table of a running worker's answer, or one line that says why there is none."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from cli.main import main
from infra.kafka_probe import free_port


class Answers(BaseHTTPRequestHandler):
    """Answers every request with `status` and `body`, and keeps the paths."""

    status: ClassVar[int]
    body: ClassVar[bytes]
    paths: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def answers() -> Iterator[tuple[type[Answers], str]]:
    kind = type("Kind", (Answers,), {"status": 200, "body": b"{}", "paths": []})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["headrace", "recommend", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_list_is_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: tuple[type[Answers], str]
) -> None:
    kind, url = answers
    reason = {"kind": "watched_together", "text": "because you watched v7", "video_id": "v7"}
    item = {"video_id": "v1", "score": 0.25, "title": "[b]Soup[/b]", "reasons": [reason]}
    kind.body = json.dumps({"source": "owner", "items": [item]}).encode()
    monkeypatch.setenv("COLUMNS", "120")
    assert run(monkeypatch, "a/b ?", "--n", "3", "--url", url) == 0
    assert kind.paths == ["/v1/recommend/a%2Fb%20%3F?n=3"]
    out = capsys.readouterr().out
    [row] = [line for line in out.splitlines() if "v1" in line]
    for cell in ("1", "v1", "[b]Soup[/b]", "0.250", "because you watched v7"):
        assert cell in row


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port("127.0.0.1")
    monkeypatch.setenv("HEADRACE_WEB_PORT", str(port))
    assert run(monkeypatch, "somebody") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"headrace: no worker answers at http://127.0.0.1:{port} ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b'{"error": "unavailable", "detail": "state is being recovered"}', "is not ready: state is being rec"),
        (400, b'{"error": "bad_id", "detail": "user_id must be short"}', "user_id must be short"),
        (200, b"<html>hello</html>", "is no Headrace worker"),
    ],
)
def test_an_answer_that_is_no_list(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: tuple[type[Answers], str],
    status: int,
    body: bytes,
    said: str,
) -> None:
    kind, url = answers
    kind.status, kind.body = status, body
    assert run(monkeypatch, "somebody", "--url", url) == 1
    error = capsys.readouterr().err
    assert error.startswith("headrace: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert run(monkeypatch, "somebody", "--url", url) == 1
    assert url in capsys.readouterr().err


@pytest.mark.parametrize("n", ["0", "201", "many"])
def test_a_length_that_is_none(monkeypatch: pytest.MonkeyPatch, n: str) -> None:
    assert run(monkeypatch, "somebody", "--n", n) == 2
