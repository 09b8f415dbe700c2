"""A real broker that asks for TLS and a user or a certificate, with a CA of its own; and one that nobody trusts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from infra.embedded_kafka import EmbeddedKafka
from infra.kafka_config import HOST, SecureListeners
from infra.kafka_probe import free_port

USERNAME, PASSWORD = "headrace", "Correct-horse7"


@dataclass(frozen=True)
class SecureKafka:
    """Where it listens, and what clients need; `other_ca` has signed nothing here."""

    plaintext: str
    sasl: str
    tls: str
    ca: Path
    other_ca: Path
    client_cert: Path
    client_key: Path
    password_file: Path

    def settings(self, **changed: object) -> dict[str, object]:
        """Of a client of the SASL listener, but for what is changed, by field name."""
        return {
            "kafka_security": "sasl_ssl",
            "kafka_username": USERNAME,
            "kafka_password_file": self.password_file,
            "kafka_ca_file": self.ca,
        } | changed


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """Run it for the `with` block."""
    ca, other = trustme.CA(), trustme.CA()
    own, client = ca.issue_cert(HOST, "localhost"), ca.issue_cert("client.example", common_name="client")
    files = {name: folder / f"{name}.pem" for name in ("ca", "other", "broker", "client", "client-key")}
    ca.cert_pem.write_to_path(files["ca"])
    other.cert_pem.write_to_path(files["other"])
    # Java reads no other form of a key.
    key = load_pem_private_key(own.private_key_pem.bytes(), None)
    form = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files["broker"].write_bytes(form + own.cert_chain_pems[0].bytes())
    client.cert_chain_pems[0].write_to_path(files["client"])
    client.private_key_pem.write_to_path(files["client-key"])
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    listeners = SecureListeners(free_port(HOST), free_port(HOST), files["broker"], files["ca"], USERNAME, PASSWORD)
    with EmbeddedKafka(folder, secure=listeners) as kafka:
        yield SecureKafka(
            kafka.bootstrap,
            f"{HOST}:{listeners.sasl_port}",
            f"{HOST}:{listeners.tls_port}",
            files["ca"],
            files["other"],
            files["client"],
            files["client-key"],
            password,
        )
