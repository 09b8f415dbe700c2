"""A small HTTP client of a worker's own API, for commands: one connection, JSON in and out, typed errors."""

import contextlib
import http.client
import math
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

TIMEOUT_S = 10.0


class WorkerUnavailable(RuntimeError):
    """Nobody answers at the address, or what answers is no worker that is ready."""


class WorkerRefused(RuntimeError):
    """The worker answered that the request cannot be met; the message says why."""


def base_url(host: str, port: int) -> str:
    """Address of a worker that listens on `host`, as a client on the same machine reaches it."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where others bind, not we
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


class WorkerClient:
    """Requests to the worker at `url`, over one connection that is opened when needed. Not for two threads at once.

    `key` is shown to a worker that asks for one.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, key: str | None = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise WorkerUnavailable(f"{url}: {error}") from error
        if parts.scheme != "http" or not host:
            raise WorkerUnavailable(f"{url} is no address of a worker: expected http://HOST:PORT")
        self.url = f"http://{parts.netloc}"
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def recommend(self, user_id: str, n: int) -> dict[str, Any]:
        """`GET /v1/recommend/{user_id}`."""
        return self.ask("GET", f"/v1/recommend/{quote(user_id, safe='')}?n={n}")

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Send one request and decode the answer.

        Raises
        ------
        WorkerUnavailable
            Nobody answers, it is no worker, or it is not ready (503).
        WorkerRefused
            Any other answer that is not a success.
        """
        status, data = self._exchange(method, path, None if body is None else orjson.dumps(body))
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise WorkerUnavailable(f"what answers at {self.url} is no Headrace worker (status {status})")
        if status == http.client.SERVICE_UNAVAILABLE:
            raise WorkerUnavailable(f"the worker at {self.url} is not ready: {answer.get('detail', 'recovering')}")
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise WorkerRefused(
                f"{method} {path}: {answer.get('detail', answer)} (the key to show is HEADRACE_API_KEY)"
            )
        if status >= http.client.BAD_REQUEST:
            raise WorkerRefused(f"{method} {path}: {answer.get('detail', answer)}")
        return answer

    def gauge(self, name: str) -> float:
        """One value of `/metrics`, by its name and labels as they are written there; WorkerUnavailable if it has none."""
        _, data = self._exchange("GET", "/metrics", None)
        for line in data.decode(errors="replace").splitlines():
            found, _, value = line.rpartition(" ")
            if found == name:
                return float(value)
        raise WorkerUnavailable(f"what answers at {self.url} exports no {name}")

    def gauges(self, prefixes: tuple[str, ...]) -> dict[str, float]:
        """All finite values of `/metrics` whose names begin so, by name and labels as they are written there."""
        status, data = self._exchange("GET", "/metrics", None)
        if status != http.client.OK:
            raise WorkerUnavailable(f"what answers at {self.url} shows no metrics (status {status})")
        found: dict[str, float] = {}
        for line in data.decode(errors="replace").splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(prefixes):
                with contextlib.suppress(ValueError):
                    found[name] = float(value)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        fresh = self._connection.sock is None
        try:
            kind = {"Content-Type": "application/json"} if body else {}
            self._connection.request(method, path, body, self._headers | kind)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if not fresh and isinstance(error, http.client.RemoteDisconnected | ConnectionError) and method == "GET":
                return self._exchange(method, path, body)  # the worker closed an idle connection
            raise WorkerUnavailable(
                f"no worker answers at {self.url} ({error or type(error).__name__}): start one with `headrace worker`, "
                "or name its address with --url"
            ) from error
