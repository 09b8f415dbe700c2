"""Listening sockets that outlive the program: the next one of the same process goes on with them.

Flows in: addresses to listen on, and what the program before has left. Flows out: sockets that listen, by address. Always holds: a
socket that is handed over never stops listening, so that whoever connects meanwhile waits in the kernel's queue and is not refused.
"""

import os
import socket
import threading
from collections.abc import Iterable

import msgspec
import structlog

log = structlog.get_logger(__name__)

#: Hands the sockets to the next program, by address. No HEADRACE_ before it: it is no setting.
LISTENERS_VARIABLE = "_HEADRACE_LISTENERS"
#: Connections that wait to be accepted: those of the seconds that a restart takes.
BACKLOG = 1024
#: Sockets that were left to us and that nobody has asked for after this are closed: who waits there would wait for ever.
UNUSED_S = 60.0


class Listeners:
    """Sockets by address; `close` ends those that are here, not copies made of them."""

    def __init__(self, left: dict[str, list[socket.socket]] | None = None) -> None:
        self._sockets = left or {}
        #: Whether clients may be waiting since the program before.
        self.inherited = bool(left)
        self._timer = threading.Timer(UNUSED_S, self._close_unused)
        self._timer.daemon = True
        if self.inherited:
            self._timer.start()

    @classmethod
    def from_environment(cls) -> "Listeners":
        """What the program before has left, if anything."""
        text = os.environ.pop(LISTENERS_VARIABLE, "")
        left: dict[str, list[socket.socket]] = {}
        for address, numbers in (msgspec.json.decode(text, type=dict[str, list[int]]) if text else {}).items():
            left[address] = [socket.socket(fileno=number) for number in numbers]
        for each in _all(left):
            each.set_inheritable(False)
        return cls(left)

    def has(self, host: str, port: int) -> bool:
        """Whether this address is ours already."""
        return _name(host, port) in self._sockets

    def listen(self, host: str, port: int) -> list[socket.socket]:
        """Copies of the sockets of an address, which is listened on from now on if it was not. Raises OSError."""
        self._timer.cancel()
        name = _name(host, port)
        if name not in self._sockets:
            self._sockets[name] = _listening(host, port)
        return [each.dup() for each in self._sockets[name]]

    def hand_over(self) -> None:
        """Leave the sockets to the program that this process is about to become."""
        self._timer.cancel()
        for each in _all(self._sockets):
            each.set_inheritable(True)
        numbers = {name: [each.fileno() for each in sockets] for name, sockets in self._sockets.items()}
        os.environ[LISTENERS_VARIABLE] = msgspec.json.encode(numbers).decode()

    def close(self) -> None:
        """Listen no more; what waits is told."""
        self._timer.cancel()
        for each in _all(self._sockets):
            each.close()
        self._sockets = {}

    def _close_unused(self) -> None:
        log.warning("the worker did not come to serve in time: connections that wait are closed", seconds=UNUSED_S)
        self.close()


def _name(host: str, port: int) -> str:
    return f"{host}:{port}"


def _all(sockets: dict[str, list[socket.socket]]) -> Iterable[socket.socket]:
    return [each for group in sockets.values() for each in group]


def _listening(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that the name has."""
    opened: list[socket.socket] = []
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made = socket.socket(family, kind, protocol)
            opened.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(BACKLOG)
            made.setblocking(False)
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened
