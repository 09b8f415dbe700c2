"""Headrace's own files: one content in three formats, and every fault named by its line."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion import canonical
from ingestion.bad_file import BadFile, BadRow
from topics.catalog import User, Video
from topics.interactions import EVENTS, Interaction, encode

HEADER = b"user_id,video_id,event,at_ms,watch_seconds\n"


def test_all_formats_give_the_same_events(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": "007", "video_id": "NA", "event": "watch", "at_ms": 30, "watch_seconds": 2.5},
        {"user_id": "u", "video_id": "v", "event": "like", "at_ms": 10, "watch_seconds": None},
        {"user_id": "u", "video_id": "v", "event": "watch", "at_ms": 30, "watch_seconds": 0.0},
    ]
    text = b"007,NA,watch,30,2.5\nu,v,like,10,\nu,v,watch,30,0\n"
    (tmp_path / "a.csv").write_bytes(HEADER + text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(HEADER + text))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [list(canonical.read_events(tmp_path / f"a.{end}")) for end in ("csv", "csv.gz", "jsonl", "parquet")]
    assert found[0] == found[1] == found[2] == found[3]
    first, second, third = found[0]
    assert (first.user_id, first.event, first.at_ms, first.watch_seconds) == ("u", "like", 10, None)
    assert (second.user_id, second.video_id, second.watch_seconds) == ("007", "NA", 2.5)
    assert third.watch_seconds == 0.0


def test_event_ids_are_kept_or_made(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "user_id,video_id,event,at_ms,event_id,colour\nu,v,like,1,given,red\nu,v,like,1,,\nu,v,like,1,,\nu,w,like,1,,\n"
    )
    ids = [event.event_id for event in canonical.read_events(tmp_path / "a.csv")]
    assert ids[0] == "given"
    assert ids[1] == ids[2]
    assert len(set(ids)) == 3


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
numbers = st.none() | st.floats(0, 1e9)
events = st.builds(Interaction, ids, ids, ids, st.sampled_from(EVENTS), st.integers(0, 2**50), numbers, numbers)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(events, max_size=20))
def test_what_is_written_as_json_lines_is_read(tmp_path: Path, written: list[Interaction]) -> None:
    """The topic's own values are a file that can be read."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(map(encode, written)))
    assert list(canonical.read_events(path)) == sorted(written, key=lambda event: event.at_ms)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (b"u,v,like,1,\n\nu,v,like,x,\n", 4, "at_ms must be a whole number, got 'x'"),
        (b'"u\nw",v,like,1,\nu,v,like,-1,\n', 4, "milliseconds since 1970"),
        (b"u,v,like,1,\nu,v,like\n", 3, "Expected 5 columns, got 3"),
        (b"u,v,clap,1,\n", 2, "event 'clap' is none of impression"),
        (b"u,v,like,1,\n,v,like,1,\n", 3, "user_id is missing"),
        (b"u,v,like,1,\nu,%s,like,1,\n" % (b"x" * 129), 3, "video_id must be 1 to 128 bytes"),
        (b"u,v,watch,1,nan\n", 2, "watch_seconds must be a number, got 'nan'"),
        (b"u,v,watch,1,inf\n", 2, "finite"),
        (b"u,v,watch,1,-2\n", 2, "not negative"),
        (b"u,v,like,1,\n\xff,v,like,1,\n", 3, "not UTF-8"),
    ],
)
def test_a_bad_csv_row(tmp_path: Path, text: bytes, line: int, why: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + text)
    with pytest.raises(BadRow) as caught:
        canonical.read_table(path)
    assert caught.value.line == line
    assert why in str(caught.value)


GOOD = b'{"user_id":1,"video_id":"v","event":"like","at_ms":3}\n'


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        (b"[1]", "Expected `object`"),
        (GOOD.replace(b"like", b"clap"), "Invalid enum value 'clap'"),
        (GOOD.replace(b":3}", b":NaN}"), "malformed"),
        (GOOD.replace(b":3}", b":-3}"), ">= 0"),
        (GOOD.replace(b"}", b',"watch_seconds":1e999}'), "out of range"),
        (GOOD.replace(b':"v"', b":true"), "video_id"),
        (GOOD.replace(b'"event"', b'"action"'), "missing required field `event`"),
        (GOOD.replace(b'"v"', b'""'), "1 to 128 bytes"),
    ],
)
def test_a_bad_json_line(tmp_path: Path, bad: bytes, why: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n" + bad.strip() + b"\n" + GOOD)
    with pytest.raises(BadRow) as caught:
        canonical.read_table(path)
    assert caught.value.line == 3
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"user_id,video_id,event\nu,v,like\n"),
        ("a.csv", b"user_id,user_id,video_id,event,at_ms\n"),
        ("a.csv.gz", b"no gzip"),
        ("a.parquet", b"PAR1"),
        ("a.txt", HEADER),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile, match=name):
        canonical.read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_an_absent_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        canonical.read_table(tmp_path / name)


def test_no_rows_are_no_events(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER)
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert list(canonical.read_events(tmp_path / "a.csv")) == list(canonical.read_events(tmp_path / "a.jsonl")) == []


def test_videos_in_all_formats(tmp_path: Path) -> None:
    video = Video(
        title="A, b", categories=("x", "y z"), duration_seconds=3.5, published_ms=10, hidden=True, language="en"
    )
    row = {"video_id": "1", **msgspec.to_builtins(video)}
    (tmp_path / "v.jsonl").write_text(json.dumps(row) + '\n{"video_id": 2}\n')
    pa.parquet.write_table(
        pa.Table.from_pylist([row | {"categories": ["x", "y z"]}, {"video_id": "2"}]), tmp_path / "v.parquet"
    )
    (tmp_path / "v.csv").write_text(
        "video_id,title,categories,duration_seconds,hidden,published_ms,language,colour\n"
        '1,"A, b",x|y z,3.5,True,10,en,red\n2,,,,,,,\n'
    )
    for name in ("v.jsonl", "v.parquet", "v.csv"):
        assert dict(canonical.read_videos(tmp_path / name)) == {"1": video, "2": Video()}, name


def test_users_take_other_columns_as_attributes(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("user_id,language,segments,vip\n7,en,new|loud,yes\n")
    (tmp_path / "u.jsonl").write_text(
        '{"user_id": 7, "language": "en", "segments": ["new", "loud"], "attributes": {"vip": "yes"}}'
    )
    expected = {"7": User(language="en", segments=("new", "loud"), attributes={"vip": "yes"})}
    assert dict(canonical.read_users(tmp_path / "u.csv")) == expected
    assert dict(canonical.read_users(tmp_path / "u.jsonl")) == expected


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("3,a,x,", "duration_seconds"),
        ("3,a,-1,", ">= 0"),
        (",a,1,", "video_id is missing"),
        ("3,a,1,maybe", "hidden"),
    ],
)
def test_a_bad_video(tmp_path: Path, row: str, why: str) -> None:
    path = tmp_path / "v.csv"
    path.write_text(f"video_id,title,duration_seconds,hidden\n1,a,1,0\n{row}\n")
    with pytest.raises(BadRow) as caught:
        list(canonical.read_videos(path))
    assert caught.value.line == 3
    assert why in str(caught.value)
