"""How brokers are spoken to: TLS, SASL, or neither, for both client libraries, made in this one place.

Settings flow in, a `KafkaAddress` flows out, which goes wherever an address goes; from it each client's options are made. Always
holds: an address that is a plain string is spoken to in plain text, and what is secret is in no address, `repr` or message.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from infra.settings import PREFIX, Settings, SettingsError, variable_of

#: Of the variables that say how the brokers of KAFKA_BOOTSTRAP_SERVERS are spoken to.
KAFKA_SECURITY_PREFIX = f"{PREFIX}KAFKA_"

Protocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]


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

    @classmethod
    def of(cls, settings: Settings) -> "KafkaSecurity":
        """What the settings say. Raises SettingsError where they do not fit together, or a file cannot be used."""
        protocol = settings.kafka_security
        sasl, tls = protocol.startswith("sasl"), protocol.endswith("ssl")
        _require(settings, ("kafka_username", "kafka_password"), sasl)
        _forbid(settings, ("kafka_username", "kafka_password"), sasl)
        _forbid(settings, ("kafka_ca_file", "kafka_cert_file", "kafka_key_file"), tls)
        if (settings.kafka_cert_file is None) != (settings.kafka_key_file is None):
            raise SettingsError("HEADRACE_KAFKA_CERT_FILE and HEADRACE_KAFKA_KEY_FILE are set together or not at all")
        password = settings.kafka_password
        security = cls(
            protocol,
            settings.kafka_sasl_mechanism if sasl else None,
            settings.kafka_username,
            None if password is None else password.get_secret_value(),
            settings.kafka_ca_file,
            settings.kafka_cert_file,
            settings.kafka_key_file,
        )
        security.ssl_context()
        return security

    def ssl_context(self) -> ssl.SSLContext | None:
        """For libraries that use Python's TLS; None without TLS. Raises SettingsError where a file cannot be used."""
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"HEADRACE_KAFKA_CA_FILE={str(self.ca_file)!r}: no certificates in PEM can be read there: {error}"
            ) from error
        if self.cert_file is not None and self.key_file is not None:
            try:
                # With a password given, OpenSSL would not ask the terminal for one.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(
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


def kafka_address(settings: Settings) -> KafkaAddress | None:
    """The brokers that the operator named; None where they are to be embedded. Raises SettingsError as `KafkaSecurity.of`."""
    security = KafkaSecurity.of(settings)
    if settings.kafka_bootstrap_servers is None:
        if security.protocol != "plaintext":
            raise SettingsError(
                f"HEADRACE_KAFKA_SECURITY={security.protocol!r} is for the brokers that KAFKA_BOOTSTRAP_SERVERS names, and it "
                "names none: set it, or unset HEADRACE_KAFKA_SECURITY for the embedded broker"
            )
        return None
    return KafkaAddress(settings.kafka_bootstrap_servers, security)


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


def _require(settings: Settings, fields: tuple[str, ...], needed: bool) -> None:
    missing = [variable_of(field) for field in fields if getattr(settings, field) is None]
    if needed and missing:
        raise SettingsError(
            f"HEADRACE_KAFKA_SECURITY={settings.kafka_security!r} needs {' and '.join(missing)}"
            + (" (or HEADRACE_KAFKA_PASSWORD_FILE)" if "HEADRACE_KAFKA_PASSWORD" in missing else "")
        )


def _forbid(settings: Settings, fields: tuple[str, ...], used: bool) -> None:
    """Refuse what would be left out: who sets a password wants it to be asked for."""
    given = [variable_of(field) for field in fields if getattr(settings, field) is not None]
    if given and not used:
        wanted = "sasl_ssl" if given[0] == "HEADRACE_KAFKA_USERNAME" or "PASSWORD" in given[0] else "ssl' or 'sasl_ssl"
        raise SettingsError(
            f"{given[0]} is set and HEADRACE_KAFKA_SECURITY={settings.kafka_security!r} does not use it: "
            f"set that to '{wanted}', or unset {given[0]}"
        )
