"""Which brokers the operator named, and how they are spoken to, as the settings say.

Settings flow in, a `KafkaAddress` flows out. Always holds: settings that do not fit together, or that would be left out, are refused.
"""

from infra.kafka_security import BadSecurity, KafkaAddress, KafkaSecurity
from infra.settings import PREFIX, Settings, SettingsError, variable_of

#: Of the variables that say how the brokers of KAFKA_BOOTSTRAP_SERVERS are spoken to.
KAFKA_SECURITY_PREFIX = f"{PREFIX}KAFKA_"


def kafka_address(settings: Settings) -> KafkaAddress | None:
    """The brokers that the operator named; None where they are to be embedded. Raises SettingsError as `security_from`."""
    security = security_from(settings)
    if settings.kafka_bootstrap_servers is None:
        if security.protocol != "plaintext":
            raise SettingsError(
                f"HEADRACE_KAFKA_SECURITY={security.protocol!r} is for the brokers that KAFKA_BOOTSTRAP_SERVERS names, and it "
                "names none: set it, or unset HEADRACE_KAFKA_SECURITY for the embedded broker"
            )
        return None
    return KafkaAddress(settings.kafka_bootstrap_servers, security)


def security_from(settings: Settings) -> KafkaSecurity:
    """What the settings say. Raises SettingsError where they do not fit together, or a file cannot be used."""
    protocol = settings.kafka_security
    sasl, tls = protocol.startswith("sasl"), protocol.endswith("ssl")
    _require(settings, ("kafka_username", "kafka_password"), sasl)
    _forbid(settings, ("kafka_username", "kafka_password"), sasl)
    _forbid(settings, ("kafka_ca_file", "kafka_cert_file", "kafka_key_file"), tls)
    if (settings.kafka_cert_file is None) != (settings.kafka_key_file is None):
        raise SettingsError("HEADRACE_KAFKA_CERT_FILE and HEADRACE_KAFKA_KEY_FILE are set together or not at all")
    password = settings.kafka_password
    security = KafkaSecurity(
        protocol,
        settings.kafka_sasl_mechanism if sasl else None,
        settings.kafka_username,
        None if password is None else password.get_secret_value(),
        settings.kafka_ca_file,
        settings.kafka_cert_file,
        settings.kafka_key_file,
    )
    try:
        security.ssl_context()
    except BadSecurity as error:
        raise SettingsError(str(error)) from error
    return security


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
