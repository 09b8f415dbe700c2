"""`headrace ingest`: files reach the log of the broker, and a file that cannot be read stops it before it starts."""

import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from cli.main import main
from infra.embedded_kafka import EmbeddedKafka


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["headrace", "ingest", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def lengths(bootstrap: str) -> dict[str, int]:
    """Return how many records each of the source topics holds."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "lengths"})
    try:
        return {
            topic: sum(
                consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)[1]
                for partition in range(2)
            )
            for topic in ("interactions", "videos", "users")
        }
    finally:
        consumer.close()


@pytest.mark.broker
def test_files_of_all_kinds_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADRACE_PARTITIONS", "2")
    files = [
        write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,1,4,5\n2,1,3,4\n3,1,2,3\n"),
        write(tmp_path / "movies.csv", "movieId,title,genres\n1,A (1999),Drama\n2,B (2000),Comedy\n"),
        write(tmp_path / "users.jsonl", '{"user_id": 1, "language": "en"}\n'),
    ]
    with EmbeddedKafka(tmp_path / "home") as kafka:  # another process's: found through its folder and left running
        capsys.readouterr()
        assert run(monkeypatch, *files) == 0
        assert lengths(kafka.bootstrap) == {"interactions": 3, "videos": 2, "users": 1}

        monkeypatch.setenv("HEADRACE_PARTITIONS", "3")
        assert run(monkeypatch, *files) == 1
    captured = capsys.readouterr()
    assert captured.err.endswith(
        "headrace: topic interactions: partitions must be 3, found 2. Alter or delete the topic, "
        "or set HEADRACE_PARTITIONS.\n"
    )
    lines = captured.out.splitlines()
    assert [line.split(",")[0] for line in lines] == [  # videos first: events come to a catalogue that knows them
        "movies.csv: 2 rows (movielens videos)",
        "users.jsonl: 1 rows (headrace users)",
        "ratings.csv: 3 rows (movielens events)",
    ]


def test_an_unknown_file_stops_before_a_broker_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    good = write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n")
    bad = write(tmp_path / "bad.csv", "a,b\n1,2\n")
    assert run(monkeypatch, good, bad) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"headrace: {bad}: unknown columns a, b; expected ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("absent.csv",), ("--speed", "0", __file__), ("--format", "x", __file__)])
def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    assert run(monkeypatch, *arguments) == 2
