"""How brokers are spoken to, from settings to both libraries' options; nothing that is secret is shown."""

import os
import pickle
from pathlib import Path

import pytest
import trustme

from infra.kafka_address import kafka_address, security_from
from infra.kafka_security import (
    KafkaAddress,
    aiokafka_options,
    confluent_options,
    security_of,
)
from infra.settings import PREFIX, Settings, SettingsError

PASSWORD = "Correct-horse7"  # noqa: S105 - of nothing


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "one:9093,two:9093")


def address(**values: object) -> KafkaAddress:
    found = kafka_address(Settings(**values))
    assert found is not None
    return found


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def test_a_plain_address_needs_no_options() -> None:
    for plain in (address(), "one:9093,two:9093"):
        assert confluent_options(plain) == {"bootstrap.servers": "one:9093,two:9093"}
        assert aiokafka_options(plain) == {"bootstrap_servers": "one:9093,two:9093"}


def test_both_libraries_are_told_the_same(ca_file: Path) -> None:
    secure = address(
        kafka_security="sasl_ssl",
        kafka_sasl_mechanism="SCRAM-SHA-256",
        kafka_username="u",
        kafka_password=PASSWORD,
        kafka_ca_file=ca_file,
    )
    assert confluent_options(secure) == {
        "bootstrap.servers": "one:9093,two:9093",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "u",
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(ca_file),
    }
    options = aiokafka_options(secure)
    context = options.pop("ssl_context")
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert options == {
        "bootstrap_servers": "one:9093,two:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "u",
        "sasl_plain_password": PASSWORD,
    }


def test_an_address_shows_no_secret_and_keeps_it() -> None:
    secure = address(kafka_security="sasl_plaintext", kafka_username="u", kafka_password=PASSWORD)
    assert secure == "one:9093,two:9093"
    for text in (str(secure), repr(secure), f"{secure}", repr(secure.security), repr([secure])):
        assert PASSWORD not in text
    assert security_of(pickle.loads(pickle.dumps(secure))).password == PASSWORD  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kafka_security": "sasl_ssl"}, "needs HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD"),
        ({"kafka_security": "sasl_ssl", "kafka_username": "u"}, "or HEADRACE_KAFKA_PASSWORD_FILE"),
        ({"kafka_username": "u"}, "HEADRACE_KAFKA_USERNAME is set and HEADRACE_KAFKA_SECURITY='plaintext'"),
        ({"kafka_password": PASSWORD}, "HEADRACE_KAFKA_PASSWORD is set and .*set that to 'sasl_ssl'"),
        ({"kafka_security": "ssl", "kafka_password": PASSWORD}, "HEADRACE_KAFKA_PASSWORD is set"),
        ({"kafka_ca_file": "ca.pem"}, "HEADRACE_KAFKA_CA_FILE is set and .*set that to 'ssl' or 'sasl_ssl'"),
        ({"kafka_security": "ssl", "kafka_ca_file": "absent.pem"}, "HEADRACE_KAFKA_CA_FILE='absent.pem'.*No such file"),
        ({"kafka_security": "ssl", "kafka_ca_file": __file__}, "no certificates in PEM"),
        ({"kafka_security": "ssl", "kafka_cert_file": "a"}, "HEADRACE_KAFKA_CERT_FILE and HEADRACE_KAFKA_KEY_FILE"),
        (
            {"kafka_security": "ssl", "kafka_cert_file": "a", "kafka_key_file": "b"},
            "HEADRACE_KAFKA_KEY_FILE='b'.*No such",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(values: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        security_from(Settings(**values))
    assert PASSWORD not in str(caught.value)


def test_the_embedded_broker_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert kafka_address(Settings()) is None
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS names, and it names none"):
        kafka_address(Settings(kafka_security="ssl"))
