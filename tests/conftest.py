"""Fixtures for all tests: one real broker a process of tests, and a disk that fills up; and which files come first."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import running_broker
from tests.small_disk import SmallDisk
from tests.warm_up import use_archive, warm_up


def pytest_configure(config: pytest.Config) -> None:
    """Make once, before the processes of tests begin, what each would make for itself."""
    if not hasattr(config, "workerinput"):
        warm_up(broker="not broker" not in config.option.markexpr)
    use_archive()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with a broker first: they last longest, and `make test` gives whole files to two processes, in order."""
    first = {item.path for item in items if item.get_closest_marker("broker")}
    items.sort(key=lambda item: item.path not in first)


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Kafka of this process, embedded or a container; tests share it, so each uses topic names of its own."""
    with running_broker(tmp_path_factory.mktemp("headrace")) as address:
        yield address


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 6 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        disk = SmallDisk(path, 6).__enter__()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system can be mounted by root alone: {error}")
    yield disk
    disk.__exit__(None, None, None)
