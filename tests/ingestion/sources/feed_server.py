"""A real HTTP server whose pages a test writes; as it is told, it refuses, asks for patience, or stops in mid-answer."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

#: What a request gets instead of the page.
Trouble = Callable[[http.server.BaseHTTPRequestHandler], None]


class FeedServer:
    """Pages by path and query.

    Attributes
    ----------
    pages : body and content type
    asked : requests in their order: path, and status of the answer
    troubles : taken from the front, one a request, until none is left
    """

    def __init__(self) -> None:
        self.pages: dict[str, tuple[bytes, str]] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, int]] = []
        self.authorization: list[str | None] = []
        self.troubles: list[Trouble] = []
        self.url = ""

    def put(self, path: str, body: str | bytes, kind: str = "application/json", **headers: str) -> None:
        """Set a page."""
        self.pages[path] = (body.encode() if isinstance(body, str) else body, kind)
        self.headers[path] = headers

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        self.authorization.append(handler.headers.get("Authorization"))
        parts = urlsplit(handler.path)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        if self.troubles:
            self.asked.append((path, 0))
            self.troubles.pop(0)(handler)
            return
        found = self.pages.get(path)
        if found is None:
            self.asked.append((path, 404))
            handler.send_error(404)
            return
        body, kind = found
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        if handler.headers.get("If-None-Match") == etag:
            self.asked.append((path, 304))
            handler.send_response(304)
            handler.send_header("ETag", etag)
            handler.end_headers()
            return
        self.asked.append((path, 200))
        handler.send_response(200)
        for name, value in {"ETag": etag, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        for name, value in self.headers[path].items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


def status(code: int, **headers: str) -> Trouble:
    """An answer of this status."""

    def give(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return give


def half(body: bytes, kind: str = "application/json", *, said: bool = True) -> Trouble:
    """Half of a body; `said`: the header tells how long it should be."""

    def give(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        if said:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.close_connection = True

    return give


def hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    """No answer at all."""
    handler.close_connection = True


@contextmanager
def feed_server() -> Iterator[FeedServer]:
    """Serve on a free port."""
    feed = FeedServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            feed.answer(self)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    feed.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield feed
    finally:
        server.shutdown()
        server.server_close()
