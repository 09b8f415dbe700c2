"""Fixtures for all tests: one real broker a session."""

from collections.abc import Iterator

import pytest

from infra.embedded_kafka import EmbeddedKafka


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Kafka of this session; tests share it, so each uses topic names of its own."""
    with EmbeddedKafka(tmp_path_factory.mktemp("headrace")) as kafka:
        yield kafka.bootstrap
