"""Probing from outside: which cluster answers at an address, why none does, and which ports are free here."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka_security import KafkaSecurity, confluent_options, security_of

#: After brokers have refused us, others of the same address have this long to be kinder.
REFUSED_GRACE_S = 1.0
CONNECT_TIMEOUT_S = 2.0
_LOOK_S = 0.25


class BrokerRefused(RuntimeError):
    """A broker is there and does not speak with us; waiting would not help. The message says what to check."""


@dataclass(frozen=True)
class Answer:
    """What came of asking.

    Attributes
    ----------
    cluster_id : None if no broker answers
    refused : why one that is there does not speak with us, and what to check; None if none has said
    hint : what to think of a broker that is there, does not answer and does not say why; empty if none is there
    brokers : addresses of the cluster's brokers
    """

    cluster_id: str | None = None
    refused: str | None = None
    hint: str = ""
    brokers: tuple[str, ...] = ()


def cluster_at(bootstrap: str, timeout_s: float = 5.0) -> str | None:
    """Cluster id of the broker that answers at `bootstrap`; None if none does within `timeout_s`."""
    return ask(bootstrap, timeout_s).cluster_id


def ask_or_raise(bootstrap: str, timeout_s: float = 5.0) -> Answer:
    """As `ask`. Raises BrokerRefused where a broker is there that will not speak with us."""
    answer = ask(bootstrap, timeout_s)
    if answer.refused is not None:
        raise BrokerRefused(answer.refused)
    return answer


def ask(bootstrap: str, timeout_s: float = 5.0) -> Answer:
    """Ask who is at `bootstrap`, for `timeout_s` at most."""
    if not _any_listens(bootstrap):
        return Answer()  # without this librdkafka would go on trying until the time is over
    errors: list[KafkaError] = []
    # "Not there" is an answer, not an error: nothing is logged.
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": errors.append}
    began = time.monotonic()
    client = AdminClient(confluent_options(bootstrap) | quiet)
    refused: str | None = None
    refused_at = 0.0
    while (left_s := began + timeout_s - time.monotonic()) > 0:
        try:
            # In short turns, for errors are told between them.
            cluster = client.list_topics(timeout=min(left_s, _LOOK_S))
            names = tuple(sorted(f"{broker.host}:{broker.port}" for broker in cluster.brokers.values()))
            return Answer(cluster.cluster_id, brokers=names)
        except KafkaException:
            client.poll(0)
        if refused is None and errors:
            refused = _refusal(bootstrap, errors)
            errors.clear()
            refused_at = time.monotonic()
        if refused is not None and time.monotonic() - refused_at > REFUSED_GRACE_S:
            break
    return Answer(refused=refused, hint=_hint(security_of(bootstrap)))


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


def _refusal(bootstrap: str, errors: list[KafkaError]) -> str | None:
    """Why brokers refuse us, in an operator's words; None where they may only be starting."""
    security = security_of(bootstrap)
    said = next((error for error in errors if error.code() in _TELLING), None)
    # Of "sasl_ssl://host:port/bootstrap: SASL authentication error: why (after 3ms in state AUTH_REQ)", the why.
    text = "" if said is None else " ".join(said.str().split(": ", 1)[-1].split(" (after ")[0].split())
    if said is not None and said.code() == KafkaError._AUTHENTICATION:
        if "handshake failed" in text:
            return (
                f"Kafka at {bootstrap} does not take {security.mechanism} ({text}): check HEADRACE_KAFKA_SASL_MECHANISM, and that "
                "HEADRACE_KAFKA_SECURITY is that of the listener at this port"
            )
        return (
            f"Kafka at {bootstrap} refuses the user {security.username!r} with {security.mechanism} ({text}): check "
            "HEADRACE_KAFKA_USERNAME, HEADRACE_KAFKA_PASSWORD (or its file) and HEADRACE_KAFKA_SASL_MECHANISM"
        )
    if "certificate required" in text:
        return f"Kafka at {bootstrap} asks for a certificate: set HEADRACE_KAFKA_CERT_FILE and HEADRACE_KAFKA_KEY_FILE"
    if "PLAINTEXT broker" in text or "wrong version number" in text:
        return f"Kafka at {bootstrap} does not speak TLS: check the port, and HEADRACE_KAFKA_SECURITY={security.protocol!r}"
    if "certificate verify failed" in text:
        authority = "the system" if security.ca_file is None else f"HEADRACE_KAFKA_CA_FILE={str(security.ca_file)!r}"
        return (
            f"the certificate of Kafka at {bootstrap} is not vouched for by {authority}, or names another host: check "
            "HEADRACE_KAFKA_CA_FILE, and that KAFKA_BOOTSTRAP_SERVERS names brokers as their certificates do"
        )
    if said is not None and said.code() == KafkaError._SSL:
        return (
            f"TLS with Kafka at {bootstrap} fails ({text}): check HEADRACE_KAFKA_CA_FILE and HEADRACE_KAFKA_CERT_FILE"
        )
    if not security.encrypted and _speaks_tls(bootstrap):
        wanted = "sasl_ssl" if security.authenticates else "ssl' or 'sasl_ssl"
        return f"Kafka at {bootstrap} speaks TLS, and HEADRACE_KAFKA_SECURITY={security.protocol!r} does not: set it to '{wanted}'"
    return None


_TELLING = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._TRANSPORT)


def _hint(security: KafkaSecurity) -> str:
    if security.authenticates:
        return ""
    return (
        "; one that asks for a user closes connections without a word: is "
        f"HEADRACE_KAFKA_SECURITY={security.protocol!r} right?"
    )


def _hosts(bootstrap: str) -> Iterator[tuple[str, int]]:
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        with contextlib.suppress(ValueError):
            yield host.strip("[]"), int(port)


def _any_listens(bootstrap: str) -> bool:
    for address in _hosts(bootstrap):
        with contextlib.suppress(OSError), socket.create_connection(address, CONNECT_TIMEOUT_S):
            return True
    return False


def _speaks_tls(bootstrap: str) -> bool:
    """Whether what listens there begins as TLS does; whom it is signed by does not matter, for nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for host, port in _hosts(bootstrap):
        with contextlib.suppress(OSError), socket.create_connection((host, port), CONNECT_TIMEOUT_S) as raw:
            raw.settimeout(CONNECT_TIMEOUT_S)
            with context.wrap_socket(raw, server_hostname=host):
                return True
    return False
