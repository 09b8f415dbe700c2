"""`headrace pull`: what a database, a feed or a folder has new reaches the log once; and what is wrong ends in one line."""

import sqlite3
import sys
from pathlib import Path

import pytest

from cli.committed import read_committed
from cli.main import main
from infra.embedded_kafka import EmbeddedKafka
from ingestion.sources.schemas import Schema, schema_text


class Headrace:
    """Runs the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> str:
        """Output of a command that ends well, or the line of the error."""
        self._monkeypatch.setattr(sys, "argv", ["headrace", "pull", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = self._capsys.readouterr()
        return told.out if ended.value.code in (0, None) else told.err.strip().splitlines()[-1]


@pytest.fixture
def headrace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Headrace:
    monkeypatch.setenv("COLUMNS", "200")
    return Headrace(monkeypatch, capsys)


@pytest.mark.broker
def test_a_source_is_pulled_listed_and_forgotten(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADRACE_PARTITIONS", "2")
    monkeypatch.setenv("COLUMNS", "200")
    shop = tmp_path / "shop.db"
    with sqlite3.connect(shop) as database:
        database.executescript(schema_text(Schema.SQLITE))
        database.execute("INSERT INTO videos (video_id, title) VALUES ('a', 'A'), ('b', 'B')")
        database.execute("INSERT INTO interactions (user_id, video_id, event) VALUES ('u', 'a', 'like')")
    database.close()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "users.csv").write_text("person,country\nu,FI\n,SE\n")
    with EmbeddedKafka(tmp_path / "home") as kafka:
        url = f"sqlite:///{shop}"
        videos = ("sql", url, "--table", "videos", "--kind", "videos")
        assert "videos: 2 records, 0 deletions" in headrace(*videos)
        assert "videos: 0 records" in headrace(*videos)
        monkeypatch.setenv("HEADRACE_SOURCE_URL", url)
        assert "clicks: 1 records" in headrace("sql", "--table", "interactions", "--kind", "events", "--name", "clicks")
        pulled = headrace("folder", str(inbox), "--kind", "users", "--map", "user_id=person", "--settled", "0")
        assert "inbox: 1 records, 0 deletions, 1 rows refused" in pulled
        listed = headrace("list")
        named = [line.split("│")[1].strip() for line in listed.splitlines() if "│" in line]
        assert [name for name in named if name] == ["clicks", "inbox", "videos"]
        assert "--by-key" not in listed
        told = headrace(*videos, "--by-key")
        assert "headrace pull forget videos" in told
        assert "forgotten" in headrace("forget", "videos")
        assert "videos: 2 records" in headrace(*videos, "--by-key", "--lag", "0")
        assert "no source 'nobody'" in headrace("forget", "nobody")
        assert sorted(record.key() or b"" for record in read_committed(kafka.bootstrap, "videos")) == [
            b"a",
            b"a",
            b"b",
            b"b",
        ]
        (event,) = read_committed(kafka.bootstrap, "interactions")
        assert b'"event_id":"clicks:1"' in (event.value() or b"")


def test_what_is_wrong_is_told_before_a_broker_is_asked(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.delenv("HEADRACE_SOURCE_URL", raising=False)
    table = ("--table", "videos", "--kind", "videos")
    assert "HEADRACE_SOURCE_URL" in headrace("sql", *table)
    assert "no table videos" in headrace("sql", "sqlite://", *table)
    assert "FIELD=COLUMN" in headrace("sql", "sqlite://", *table, "--map", "title")
    assert "titel: no field of videos" in headrace("sql", "sqlite://", *table, "--map", "titel=name")
    stream = ("mongo", "mongodb://127.0.0.1:1/shop", "--collection", "videos", "--kind", "videos", "--changes")
    assert "do not --map it" in headrace(*stream, "--map", "video_id=sku")
    assert headrace("schema", "mongodb").startswith("{")
    assert headrace("schema", "postgresql").startswith("-- Tables")
