"""Kafka's jars: complete or absent, fetched once, repaired when damaged, and a clear error without a network."""

import zipfile
from pathlib import Path

import pytest

from infra.kafka_jars import KAFKA, JarsUnavailableError, cache_dir, kafka_jars


class Repository:
    """A fetch that makes two small jars and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> list[Path]:
        self.calls += 1
        folder.mkdir(parents=True)
        jars = [folder / "b.jar", folder / "a.jar"]
        for jar in jars:
            with zipfile.ZipFile(jar, "w") as archive:
                archive.writestr("META-INF/MANIFEST.MF", "")
        return jars


def offline(_: Path) -> list[Path]:
    raise ConnectionError("no route to host")


def test_the_second_call_fetches_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    first = kafka_jars(tmp_path, Repository())
    assert [jar.name for jar in first] == ["b.jar", "a.jar"]
    assert all(jar.is_file() for jar in first)
    assert kafka_jars(tmp_path, offline) == first


@pytest.mark.parametrize("damage", ["missing", "cut short", "no manifest", "unreadable manifest"])
def test_a_damaged_cache_is_fetched_again(tmp_path: Path, damage: str) -> None:
    repository = Repository()
    jars = kafka_jars(tmp_path, repository)
    manifest = jars[0].parent / "jars.json"
    if damage == "missing":
        jars[0].unlink()
    elif damage == "cut short":
        jars[1].write_bytes(jars[1].read_bytes()[:20])
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text('{"schema": 1, "jars": [')
    assert kafka_jars(tmp_path, repository) == jars
    assert all(zipfile.is_zipfile(jar) for jar in jars)
    assert repository.calls == 2


def test_a_damaged_download_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    def cut(folder: Path) -> list[Path]:
        jars = Repository()(folder)
        jars[1].write_bytes(b"PK")
        return jars

    with pytest.raises(JarsUnavailableError, match=r"a\.jar arrived damaged"):
        kafka_jars(tmp_path, cut)
    assert list(tmp_path.iterdir()) == []


def test_without_network_and_cache_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JarsUnavailableError, match=r"no route to host.*KAFKA_BOOTSTRAP_SERVERS") as caught:
        kafka_jars(tmp_path, offline)
    assert KAFKA in str(caught.value)


def test_a_faster_process_wins_without_harm(tmp_path: Path) -> None:
    def slow(folder: Path) -> list[Path]:
        kafka_jars(tmp_path, Repository())
        return Repository()(folder)

    assert all(jar.is_file() for jar in kafka_jars(tmp_path, slow))


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "given")
    assert cache_dir() == Path("given/headrace")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "headrace"
