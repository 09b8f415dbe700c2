"""The embedded broker's configuration: one KRaft node that is broker and controller, on loopback only.

Ports and the data folder flow in, the text of `server.properties` flows out.
"""

from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
NODE_ID = 1


@dataclass(frozen=True)
class SecureListeners:
    """Two more listeners, for tests of how clients speak to brokers that ask for more: TLS with SASL, and TLS with certificates.

    Attributes
    ----------
    sasl_port, tls_port : to listen on; the first asks for a user, the second for a client's certificate
    keystore, truststore : PEM: the broker's key and certificates, and the certificates of the CA that clients' come from
    username, password : the one user, of SCRAM and PLAIN
    """

    sasl_port: int
    tls_port: int
    keystore: Path
    truststore: Path
    username: str
    password: str = field(repr=False)

    def properties(self) -> dict[str, str]:
        """What the broker has to be told."""
        jaas = "org.apache.kafka.common.security"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.truststore),
            "listener.name.tls.ssl.client.auth": "required",
            "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": f"{jaas}.scram.ScramLoginModule required;",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{jaas}.scram.ScramLoginModule required;",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f'{jaas}.plain.PlainLoginModule required user_{self.username}="{self.password}";'
            ),
        }

    def format_arguments(self) -> list[str]:
        """What makes the user, when the broker's folder is made."""
        return [
            part
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={self.username},password={self.password}]")
        ]


def server_properties(data: Path, port: int, controller_port: int, secure: SecureListeners | None = None) -> str:
    """Text of `server.properties` for a broker that keeps its log in `data` and serves on `port`."""
    values: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        # One node: nothing can be replicated, and the defaults of 3 would refuse every transaction.
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        # 50 partitions each by default: a few hundred files and a second of start-up for one client group.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        # Topics are created on purpose, with partitions and retention; a typing error must not make one.
        "auto.create.topics.enable": "false",
        # A worker that starts alone waits for nobody.
        "group.initial.rebalance.delay.ms": 0,
        # A crashed worker's open transaction holds back every read_committed reader: abort it when its 10 s are over.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        # A broker killed and started again is refused until its old session is over (9 s by default).
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 1000,
        # Two cores and 384 MB are shared with the worker; the cleaner alone would take 128 MB.
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "log.cleaner.io.buffer.size": 512 * 1024,
    }
    if secure is not None:
        more = f",SASL://{HOST}:{secure.sasl_port},TLS://{HOST}:{secure.tls_port}"
        values["listeners"] = f"{values['listeners']}{more}"
        values["advertised.listeners"] = f"{values['advertised.listeners']}{more}"
        values["listener.security.protocol.map"] = f"{values['listener.security.protocol.map']},SASL:SASL_SSL,TLS:SSL"
        values |= secure.properties()
    return "".join(f"{key}={_escaped(str(value))}\n" for key, value in values.items())


def _escaped(value: str) -> str:
    """Escape `value` as java.util.Properties reads it: a backslash in a folder's name is a character."""
    return value.replace("\\", "\\\\")
