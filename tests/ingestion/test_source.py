"""A file is recognised by its columns."""

from pathlib import Path

import pytest

from ingestion.bad_file import BadFile
from ingestion.source import Format, Kind, read_event_table, read_users, read_videos, sniff

FILES = {
    "kuairand.csv": "user_id,video_id,time_ms,play_time_ms,long_view",
    "kuairand_videos.csv": "video_id,author_id,upload_dt",
    "kuairand_users.csv": "user_id,user_active_degree",
    "ratings.csv": "userId,movieId,rating,timestamp",
    "movies.csv": "movieId,title,genres",
    "events.csv": "at_ms,event,video_id,user_id,more",
    "events.jsonl": '\n{"user_id": 1, "video_id": 2, "event": "like", "at_ms": 3}',
    "videos.csv": "video_id,title",
    "users.jsonl": '{"user_id": 1}',
}


@pytest.mark.parametrize(
    ("name", "format_", "kind"),
    [
        ("kuairand.csv", Format.KUAIRAND, Kind.EVENTS),
        ("kuairand_videos.csv", Format.KUAIRAND, Kind.VIDEOS),
        ("kuairand_users.csv", Format.KUAIRAND, Kind.USERS),
        ("ratings.csv", Format.MOVIELENS, Kind.EVENTS),
        ("movies.csv", Format.MOVIELENS, Kind.VIDEOS),
        ("events.csv", Format.HEADRACE, Kind.EVENTS),
        ("events.jsonl", Format.HEADRACE, Kind.EVENTS),
        ("videos.csv", Format.HEADRACE, Kind.VIDEOS),
        ("users.jsonl", Format.HEADRACE, Kind.USERS),
    ],
)
def test_sniff(tmp_path: Path, name: str, format_: Format, kind: Kind) -> None:
    path = tmp_path / name
    path.write_text(FILES[name] + "\n")
    for given in (None, format_):
        source = sniff(path, given)
        assert (source.format, source.kind) == (format_, kind)


def test_a_given_format_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(FILES["ratings.csv"] + "\n")
    with pytest.raises(BadFile, match=r"unknown columns .*movieId.*; expected kuairand events"):
        sniff(path, Format.KUAIRAND)


def test_the_wrong_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text(FILES["movies.csv"] + "\n")
    with pytest.raises(BadFile, match="holds videos, expected events"):
        read_event_table(path)
    with pytest.raises(BadFile, match="holds videos, expected users"):
        read_users(path)
    assert list(read_videos(path)) == []


@pytest.mark.parametrize("text", ["", "\n", "a,b\n", "user_id,video_id\n"])
def test_a_file_of_nothing_known(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(BadFile, match=r"a\.csv"):
        sniff(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sniff(tmp_path / "a.csv")
