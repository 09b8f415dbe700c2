"""Probing from outside: which cluster answers at an address, and which ports are free here."""

import contextlib
import socket
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient


def cluster_at(bootstrap: str, timeout_s: float = 5.0) -> str | None:
    """Cluster id of the broker that answers at `bootstrap`; None if none does within `timeout_s`."""
    if not _any_listens(bootstrap):
        return None  # without this librdkafka would go on trying until the time is over
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": lambda _: None}  # "not there" is an answer, not an error
    try:
        client = AdminClient({"bootstrap.servers": bootstrap, **quiet})
        cluster_id: str | None = client.list_topics(timeout=timeout_s).cluster_id
    except KafkaException:
        return None
    return cluster_id


def free_port(host: str) -> int:
    """Return a port of `host` that nobody listens on; it may be taken before you are there."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `port` of `host` now."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def _any_listens(bootstrap: str) -> bool:
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        with contextlib.suppress(OSError, ValueError), socket.create_connection((host.strip("[]"), int(port)), 2.0):
            return True
    return False
