"""The switch between embedded servers and containers; and, with it on and Docker there, the containers that no other test starts."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import containers
from tests.containers import COMPOSE, SWITCH, image_of, kafka_environment, redis_arguments, wanted

ROOT = Path(__file__).parents[2]
ONLY_CONTAINERS = pytest.mark.skipif(not wanted(), reason=f"{SWITCH} is not set")


def test_images_are_those_of_the_stack() -> None:
    text = COMPOSE.read_text()
    for service in ("kafka", "redis", "postgres", "mongo"):
        assert f"image: {image_of(service)}\n" in text
    # The embedded broker is of the same release: the same tests, the same Kafka.
    assert image_of("kafka").rpartition(":")[2] in (ROOT / "infra" / "kafka_jars.py").read_text()


@pytest.mark.parametrize(("value", "on"), [("1", True), ("yes", True), ("0", False), ("", False), (None, False)])
def test_the_switch(monkeypatch: pytest.MonkeyPatch, value: str | None, on: bool) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    assert wanted() is on


def test_a_broker_in_a_container_tells_its_address_outside() -> None:
    environment = kafka_environment(45678)
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:45678"
    assert "HOST" not in environment["KAFKA_LISTENERS"]
    assert environment["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"
    assert all(isinstance(value, str) for value in environment.values())


def test_redis_is_told_what_valkey_is_told() -> None:
    assert redis_arguments({"save": "", "maxmemory": "2mb"}) == ["--save", "", "--maxmemory", "2mb"]


def test_without_docker_no_embedded_server_stands_in() -> None:
    """The switch is on and no engine answers: the same tests are skipped, and say why."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    environment = os.environ | {SWITCH: "1", "DOCKER_HOST": nobody, "PYTHONPATH": str(ROOT)}
    tests = [
        "tests/api/test_cache.py::test_the_latest_list_of_a_user_is_found_by_another_worker",  # Redis
        "tests/topics/test_specs.py::test_create_then_check_then_name_what_differs",  # Kafka
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-rs", *tests],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 skipped" in done.stdout
    assert f"{SWITCH} is set, and no Docker engine answers" in done.stdout


@ONLY_CONTAINERS
def test_postgresql_keeps_a_log_that_can_be_read() -> None:
    with containers.postgres_url() as url:
        assert url.startswith("postgresql://headrace:headrace@127.0.0.1:")


@ONLY_CONTAINERS
def test_mongodb_has_change_streams() -> None:
    with containers.mongo_url() as url:
        assert url.startswith("mongodb://127.0.0.1:")
