"""How brokers are spoken to: TLS, SASL, or neither, for both client libraries, made in this one place.

A `KafkaAddress` flows in, which goes wherever an address goes; each client's options flow out. Always holds: an address that is a
plain string is spoken to in plain text, and what is secret is in no address, `repr` or message.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Protocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]


class BadSecurity(ValueError):
    """A file cannot be used; the message names its variable."""


@dataclass(frozen=True)
class KafkaSecurity:
    """How to speak to brokers.

    Attributes
    ----------
    mechanism, username, password : of SASL; None without it
    ca_file : PEM; None trusts whom the system trusts
    cert_file, key_file : PEM, of the client, where brokers ask for it
    """

    protocol: Protocol = "plaintext"
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether it is TLS."""
        return self.protocol.endswith("ssl")

    @property
    def authenticates(self) -> bool:
        """Whether it is SASL."""
        return self.protocol.startswith("sasl")

    def ssl_context(self) -> ssl.SSLContext | None:
        """For libraries that use Python's TLS; None without TLS. Raises BadSecurity where a file cannot be used."""
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise BadSecurity(
                f"HEADRACE_KAFKA_CA_FILE={str(self.ca_file)!r}: no certificates in PEM can be read there: {error}"
            ) from error
        if self.cert_file is not None and self.key_file is not None:
            try:
                # With a password given, OpenSSL would not ask the terminal for one.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (OSError, ssl.SSLError) as error:
                raise BadSecurity(
                    f"HEADRACE_KAFKA_CERT_FILE={str(self.cert_file)!r}, HEADRACE_KAFKA_KEY_FILE={str(self.key_file)!r}: "
                    f"no certificate with its key, both in PEM and not encrypted, can be read there: {error}"
                ) from error
        return context


PLAINTEXT = KafkaSecurity()


class KafkaAddress(str):
    """Addresses of brokers, `host:port` and commas, that know how these are spoken to; shown and compared as the addresses alone."""

    __slots__ = ("security",)
    security: KafkaSecurity

    def __new__(cls, servers: str, security: KafkaSecurity = PLAINTEXT) -> "KafkaAddress":
        """Join the two."""
        made = super().__new__(cls, servers)
        made.security = security
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes of ours."""
        return KafkaAddress, (str(self), self.security)


def security_of(bootstrap: str) -> KafkaSecurity:
    """How an address is spoken to."""
    return bootstrap.security if isinstance(bootstrap, KafkaAddress) else PLAINTEXT


def confluent_options(bootstrap: str) -> dict[str, Any]:
    """Options of every confluent-kafka client: where the brokers are, and how they are spoken to."""
    security = security_of(bootstrap)
    options: dict[str, Any] = {"bootstrap.servers": str(bootstrap)}
    if security.protocol != "plaintext":
        options["security.protocol"] = security.protocol
    if security.authenticates:
        options["sasl.mechanism"] = security.mechanism
        options["sasl.username"], options["sasl.password"] = security.username, security.password
    for name, path in (
        ("ssl.ca.location", security.ca_file),
        ("ssl.certificate.location", security.cert_file),
        ("ssl.key.location", security.key_file),
    ):
        if path is not None:
            options[name] = str(path)
    return options


def aiokafka_options(bootstrap: str) -> dict[str, Any]:
    """Options of every aiokafka client, as `confluent_options`."""
    security = security_of(bootstrap)
    options: dict[str, Any] = {"bootstrap_servers": str(bootstrap)}
    if security.protocol != "plaintext":
        options |= {"security_protocol": security.protocol.upper(), "ssl_context": security.ssl_context()}
    if security.authenticates:
        options["sasl_mechanism"] = security.mechanism
        options["sasl_plain_username"], options["sasl_plain_password"] = security.username, security.password
    return options
